"""``pull``: the files of a revision, verified against the hub's own list of them.

The list is remembered when all files are there, so that without the network a revision that was pulled whole is served
from the hub's cache, and nothing else is.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mmmos import progress
from mmmos.errors import InputError, SetupError
from mmmos.files import pretty_json, sha256_file, write_atomic
from mmmos.hub.address import Address, parse
from mmmos.hub.client import ITS_OWN, Kind, client, is_offline

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_ENTRIES = 10_000
_SHOWN = 5


@dataclass(frozen=True)
class Listed:
    """A file as the hub lists it: bytes, and their SHA-256 (64 hex digits) or, of small files, git's SHA-1 (40)."""

    size: int
    digest: str


@dataclass(frozen=True)
class Listing:
    """The files of a commit, by name."""

    commit: str
    files: dict[str, Listed]


def pull(address: Address | str, *, kind: Kind, allowed: Sequence[str], limit: int) -> dict[str, Path]:
    """The files of a revision: name in the repository -> plain file in the hub's cache, verified by size and digest.

    ``allowed``: patterns of names, of which ``*`` matches no slash. With any other file, or more than ``limit`` bytes
    in all, nothing is downloaded. Without the network it is what was last pulled of this revision, and no socket is
    opened. Raises ``InputError`` for what the repository holds, ``SetupError`` where it is not to be had.
    """
    address = parse(address) if isinstance(address, str) else address
    known = _recorded(address, kind)
    # What a commit holds never changes.
    if known and (is_offline() or known.commit == address.revision):
        _check(known, address, allowed, limit)
        if found := _cached(known, address, kind):
            return found
    if is_offline():
        raise SetupError(
            f"{address} is not on this machine, or not all of it, and the network is off. With network the same command"
            " fetches it; after that it needs none."
        )
    with client(address, kind) as api:
        listing = _listing(api, address, kind)
        _check(listing, address, allowed, limit)
        names = progress.track(sorted(listing.files), len(listing.files), f"fetching {address.repo}")
        found = {name: _fetched(api, address, kind, listing, name) for name in names}
    _record(listing, address, kind)
    return found


def _listing(api: "HfApi", address: Address, kind: Kind) -> Listing:
    """What the hub says of a revision. Raises ``InputError`` for too many files."""
    from huggingface_hub.hf_api import RepoFile

    commit = api.repo_info(address.repo, repo_type=kind, revision=address.revision or None).sha
    if not commit or not _COMMIT.fullmatch(commit):
        raise ValueError("the answer names no commit")
    files = {}
    for count, entry in enumerate(api.list_repo_tree(address.repo, repo_type=kind, revision=commit, recursive=True)):
        if count >= _MOST_ENTRIES:
            raise InputError([f"{address} holds more than {_MOST_ENTRIES} files and folders. Nothing is fetched."])
        if isinstance(entry, RepoFile) and entry.path not in ITS_OWN:
            digest = entry.lfs.sha256 if entry.lfs else entry.blob_id
            files[entry.path] = Listed(int(entry.size), str(digest))
    return Listing(commit, files)


def _check(listing: Listing, address: Address, allowed: Sequence[str], limit: int) -> None:
    """Raise ``InputError`` for files that do not belong there, for too large ones, and for none."""
    sizes = [file.size for file in listing.files.values()]
    strange = sorted(name for name in listing.files if not _is_allowed(name, allowed))
    if strange:
        shown = ", ".join(repr(name[:100]) for name in strange[:_SHOWN])
        more = f" and {len(strange) - _SHOWN} more" if len(strange) > _SHOWN else ""
        wrong = f"it holds {shown}{more}; allowed are {', '.join(allowed)}"
    elif not sizes:
        wrong = "it holds no files"
    elif min(sizes) < 0 or sum(sizes) > limit:
        wrong = f"its files have {sum(sizes)} bytes in all; at most {limit} are fetched"
    else:
        return
    raise InputError([f"{address} is not what it should be: {wrong}. Nothing is fetched."])


def _is_allowed(name: str, allowed: Sequence[str]) -> bool:
    parts = name.split("/")
    if any(part in ("", ".", "..") or "\\" in part or ":" in part or not part.isprintable() for part in parts):
        return False
    patterns = [pattern.split("/") for pattern in allowed]
    return any(len(pattern) == len(parts) and all(map(fnmatchcase, parts, pattern)) for pattern in patterns)


def _fetched(api: "HfApi", address: Address, kind: Kind, listing: Listing, name: str) -> Path:
    """A file in the hub's cache, downloaded when it is absent or damaged there."""
    for again in (False, True):
        path = api.hf_hub_download(address.repo, name, repo_type=kind, revision=listing.commit, force_download=again)
        if found := _verified(path, listing.files[name]):
            return found
    raise InputError(
        [f"{address}: {name} came with another size or digest than the hub lists; it is not used. Try again later."]
    )


def _cached(listing: Listing, address: Address, kind: Kind) -> dict[str, Path] | None:
    """The files of a listing when the hub's cache has all of them as they should be; opens no socket."""
    from huggingface_hub import try_to_load_from_cache

    found = {}
    for name, listed in listing.files.items():
        path = try_to_load_from_cache(address.repo, name, revision=listing.commit, repo_type=kind)
        if not isinstance(path, str) or not (file := _verified(path, listed)):
            return None
        found[name] = file
    return found


def _verified(path: str, listed: Listed) -> Path | None:
    """The plain file that a path of the cache leads to, None when it is not the listed one."""
    file = Path(path).resolve()
    if not file.is_file() or file.stat().st_size != listed.size:
        return None
    digest = sha256_file(file) if _SHA256.fullmatch(listed.digest) else _git_sha1(file)
    return file if digest == listed.digest else None


def _git_sha1(file: Path) -> str:
    """The digest (hex) by which git knows the content of a file."""
    digest = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _record(listing: Listing, address: Address, kind: Kind) -> None:
    """Remember that all files of a revision are in the cache; where that fails, only the next pull is the slower."""
    with suppress(OSError):
        for revision in {address.revision, listing.commit}:
            write_atomic(_record_path(address, kind, revision), pretty_json(asdict(listing)))


def _recorded(address: Address, kind: Kind) -> Listing | None:
    """What is remembered of a revision; None for nothing, or nothing that can be read."""
    try:
        about = json.loads(_record_path(address, kind, address.revision).read_bytes())
        files = {str(name): Listed(int(each["size"]), str(each["digest"])) for name, each in about["files"].items()}
        return Listing(about["commit"], files) if _COMMIT.fullmatch(about["commit"]) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _record_path(address: Address, kind: Kind, revision: str) -> Path:
    from huggingface_hub.constants import HF_ASSETS_CACHE

    folder = f"{kind}s--{address.repo.replace('/', '--')}"
    return Path(HF_ASSETS_CACHE) / "mmmos" / "hub" / folder / f"{quote(revision or 'main', safe='')}.json"
