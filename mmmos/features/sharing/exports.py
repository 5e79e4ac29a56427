"""``export``: feature sets of some clips without their audio, in a folder that is itself laid out as a store.

Nothing in it tells of the machine: files go by their base names, and the same clips of the same store are the same
bytes.
"""

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import pandas as pd

from mmmos import audio
from mmmos.errors import InputError, StoreError, UsageError
from mmmos.features.encoders import card
from mmmos.features.extraction.clips import find
from mmmos.features.extraction.extract import open_set
from mmmos.features.spec import EncoderRecipe, Encoders, FeatureSpec, resolve
from mmmos.features.store import FeatureSet, describe
from mmmos.features.store.compaction import disown_damaged, flatten
from mmmos.features.store.index import ATTEMPTS, Index, changing
from mmmos.features.store.lists import LIST, written
from mmmos.features.store.shard import Reason
from mmmos.files import TEMPORARY, sync_folder, write_atomic

README = "README.md"


@dataclass(frozen=True)
class Exported:
    """What was exported: names of the feature sets, number of clips, bytes; (reason, detail) of clips left out."""

    sets: tuple[str, ...]
    clips: int
    size: int
    left_out: pd.DataFrame


def export(
    clips: pd.DataFrame,
    encoders: Encoders,
    to: str | Path,
    *,
    store: str | Path = "features",
    workspace: str | Path = ".",
) -> Exported:
    """Write the embeddings of clips, and which of them were rejected, to a new folder; it is whole or absent.

    Clips without a readable file are left out. Raises ``UsageError`` when the folder is there or the store lacks clips.
    """
    target = Path(to).resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{to} is there already; name a folder that is not.")
    found, refused = find(clips, store)
    names = pd.Index(list(refused), dtype=object)
    left_out = pd.DataFrame(list(refused.values()), names, ["reason", "detail"], dtype=object)
    if not found:
        detail = f", for one {left_out['detail'].iloc[0]}" if refused else ""
        raise InputError([f"There is nothing to export: none of {len(clips)} clips can be read{detail}."])
    keys = list(dict.fromkeys(clip.key for clip in found.values()))
    tables = resolve(encoders, workspace).tables()
    sets = [open_set(table, store) for table in tables]
    for each in sets:
        _refuse_absent(each, keys, encoders)
    scratch = target.parent / f".{target.name}.{os.getpid()}-{secrets.token_hex(8)}{TEMPORARY}"
    try:
        for each in sets:
            _copy(each, keys, scratch / each.folder.name)
        entries = [(clip, str(clips.at[clip, "path"]), each.start, each.end, each.key) for clip, each in found.items()]
        write_atomic(scratch / LIST, written(entries))
        write_atomic(scratch / README, _readme(tables, sets, keys, len(found)))
        size = sum(path.stat().st_size for path in scratch.rglob("*") if path.is_file())
        if target.exists():
            target.rmdir()
        scratch.replace(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Exported(tuple(each.spec.name for each in sets), len(found), size, left_out)


def _refuse_absent(each: FeatureSet, keys: Sequence[str], encoders: Encoders) -> None:
    absent = each.missing(keys)
    if absent:
        recipe = encoders if isinstance(encoders, str) else "RECIPE"
        raise UsageError(
            f"{len(absent)} of {len(keys)} clips are not in {each.folder}; nothing is exported. First type"
            f" mmmos features extract {recipe} with the same inputs: it computes only what is missing."
        )


def _copy(each: FeatureSet, keys: Sequence[str], folder: Path) -> None:
    """Write the clips, all their rows verified, and the rejections among them."""
    for _ in range(ATTEMPTS):
        index = Index(each.folder, each.spec.fingerprint)
        index.rejected = {key: _impersonal(reason) for key, reason in index.rejected.items()}
        describe(folder, each.spec)
        try:
            disown_damaged(index)
            flatten(index, folder, keys)
        except FileNotFoundError:
            # Another process has compacted the set.
            shutil.rmtree(folder)
            continue
        if lost := index.missing(keys):
            raise StoreError(
                f"The rows of {len(lost)} of {len(keys)} clips in {each.folder} are damaged; nothing is exported. Type"
                " mmmos features compact, which leaves them behind, and then extract them again."
            )
        return
    raise changing(each.folder)


def _impersonal(rejection: Reason) -> Reason:
    """A rejection without paths: a detail that may hold one gives way to what the reason says in general."""
    reason, detail, name = rejection
    return reason, audio.REASONS.get(reason, "") if "/" in detail or "\\" in detail else detail, PurePath(name).name


def _readme(tables: Sequence[EncoderRecipe], sets: Sequence[FeatureSet], keys: Sequence[str], count: int) -> str:
    names = ", ".join(each.spec.name for each in sets)
    head = f"""\
---
license: other
license_name: that-of-each-encoders-weights
pretty_name: "Embeddings of {count} clips ({names})"
tags:
- mmmos
- audio
- embeddings
---
# Embeddings without audio

Embeddings of {count} clips, made by MMMOS. There is no audio here. `{LIST}` names the clips; each folder is a
feature set, and its `spec.json` says all that its numbers depend on.

To use them, type in a workspace

    mmmos features import FOLDER

with this folder, or `hf://owner/name` where it lies on the Hugging Face hub, and after that `mmmos features extract` or
`mmmos run` with a manifest of the same clips: those whose audio is absent are found by id, file name and segment.

Each feature set may be used as the licence of its encoder's weights allows, and as the rights in the clips allow.
"""
    about = [_section(table, each, keys) for table, each in zip(tables, sets, strict=True)]
    return "\n".join([head, *about])


def _section(table: EncoderRecipe, each: FeatureSet, keys: Sequence[str]) -> str:
    spec, facts = each.spec, each.spec.encoder
    rejected = len(each.rejections(keys))
    commercial = card(table.encoder).commercial
    licence = facts.licence + ("" if commercial else ", **may not be used commercially**")
    rows = {
        "encoder": f"{facts.name} (family {facts.family}, code {facts.code}, {facts.precision})",
        "weights": _weights(table, spec),
        "licence of the weights": licence,
        "input": f"{facts.rate} Hz, windows of {spec.window:g} s every {spec.hop:g} s",
        "vectors": f"{facts.layers} layers × {facts.dim}, {spec.dtype}",
        "frames kept": f"layers {', '.join(spec.frames)}" if spec.frames else "none",
        "clips": f"{len(keys) - rejected} with embeddings, {rejected} rejected",
        "fingerprint": spec.fingerprint,
    }
    lines = [f"- {name}: {value}" for name, value in rows.items()]
    return "\n".join([f"## {each.folder.name}", "", *lines, ""])


def _weights(table: EncoderRecipe, spec: FeatureSpec) -> str:
    """Where weights are to be had when they are published ones; of others only the digest, no path."""
    facts = spec.encoder
    if not facts.sha256:
        return "none"
    published = facts.weights == card(table.encoder).weights
    source = f"{facts.weights} {facts.revision}".strip() if published else "the exporter's own"
    return f"{source}, SHA-256 {facts.sha256}"
