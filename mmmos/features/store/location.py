"""Where a store is: a folder, or a URL that fsspec knows."""

import os
import re
from pathlib import Path

from mmmos.errors import UnknownName, UsageError
from mmmos.features.store.remote import Place, Remote, cache_of

_URL = re.compile(r"([A-Za-z][\w+.-]+)://(.*)", re.DOTALL)
# What becomes of a URL that was taken for a path.
_LOST = re.compile(r"([A-Za-z][\w+.-]+):/([^/].*)", re.DOTALL)
_PASSWORD = re.compile(r"[^/@]*:[^/@]*@")


def location(store: str | Path | Remote) -> Place:
    """The folder or the URL that is meant by a store; ``file://`` is a folder.

    Raises ``UsageError`` for a URL that cannot be one of a store, ``UnknownName`` for a protocol that fsspec lacks.
    """
    if isinstance(store, Remote):
        return store
    text = os.fspath(store)
    if "::" in text and "://" in text:
        raise UsageError(f"{text!r} is a chain of URLs, in which no store can lie; name the URL of the store alone.")
    if found := _URL.fullmatch(text):
        return _at_url(text, *found.groups())
    if (lost := _LOST.fullmatch(text)) and lost[1] in _protocols() and not Path(text).exists():
        raise UsageError(f"{text!r} is no folder, and as a URL it lacks a slash: {lost[1]}://{lost[2]}, not as a Path.")
    return Path(store)


def _at_url(url: str, protocol: str, rest: str) -> Place:
    if protocol not in (known := _protocols()):
        raise UnknownName("protocol for a store", protocol, known)
    if protocol in ("file", "local"):
        from fsspec.implementations.local import LocalFileSystem

        return Path(LocalFileSystem._strip_protocol(url))
    if _PASSWORD.match(rest):
        raise UsageError(
            "The URL of a store is shown in messages, so that no password belongs there: put it into the environment"
            " or into ~/.config/fsspec."
        )
    if not rest.strip("/"):
        raise UsageError(f"{url!r} names no bucket and no folder; write {protocol}://bucket/folder.")
    return Remote(url.rstrip("/"))


def _protocols() -> list[str]:
    from fsspec.registry import known_implementations, registry

    return sorted({*known_implementations, *registry})


def local(store: str | Path, verb: str) -> Path:
    """The folder of a store that has to be one. Raises ``UsageError`` for a URL."""
    place = location(store)
    if isinstance(place, Remote):
        raise UsageError(
            f"{place} is a URL, and only a folder can be {verb}. Copy the store to a folder with the tools of the"
            " object store, type the same with that folder, and copy what is new back; delete there what is gone here."
        )
    return place


def home(store: str | Path) -> Path:
    """Where a store keeps what only this machine needs: in its folder, for a URL in the local cache."""
    place = location(store)
    return cache_of(place.url) if isinstance(place, Remote) else place
