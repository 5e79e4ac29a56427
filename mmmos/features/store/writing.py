"""Shards and ``spec.json`` of a feature set, written to its folder in a store."""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmmos.errors import SetupError
from mmmos.features.spec import FeatureSpec
from mmmos.features.store import shard
from mmmos.features.store.location import location
from mmmos.features.store.remote import Place, Remote
from mmmos.features.store.shard import SPEC, ClipRows, Reason
from mmmos.files import pretty_json, write_atomic


def folder_of(store: str | Path | Remote, spec: FeatureSpec) -> Place:
    """The folder of a feature set in a store: its name and the first 12 digits of its fingerprint."""
    return location(store) / f"{spec.name}-{spec.fingerprint[:12]}"


def write(
    store: str | Path | Remote, spec: FeatureSpec, clips: Sequence[ClipRows], rejected: Mapping[str, Reason]
) -> Place | None:
    """Store clips and rejections of a feature set in one shard; they are durable when this returns.

    Returns the shard's path, None when there was nothing to store. Raises ``SetupError`` when the disk refuses and
    ``StoreError`` for rows that are not sound.
    """
    if not clips and not rejected:
        return None
    folder = folder_of(store, spec)
    try:
        describe(folder, spec)
        return shard.write(folder, spec.fingerprint, clips, rejected)
    except OSError as error:
        size = sum(clip.nbytes for clip in clips) / 1e6
        more = f" {size:.1f} MB were to be written." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise SetupError(
            f"{folder} cannot be written: {error.strerror or error}.{more} What is stored already is kept; the same"
            " command goes on from there."
        ) from error


def describe(folder: Place, spec: FeatureSpec) -> None:
    """Write ``spec.json``, which says what a feature set's numbers depend on, where it is absent or other."""
    about, text = folder / SPEC, spec_text(spec)
    try:
        current = about.read_bytes()
    except OSError:
        current = b""
    if current != text:
        if isinstance(about, Remote):
            about.write([text])
        else:
            write_atomic(about, text)


def spec_text(spec: FeatureSpec) -> bytes:
    """What ``spec.json`` holds."""
    return pretty_json({"name": spec.name, **spec.numbers()}).encode()
