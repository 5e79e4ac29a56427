"""Feature sets from anyone, verified to the last number: what passes could have been written by an extraction here."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmmos import progress
from mmmos.audio import REASONS, TRANSIENT
from mmmos.errors import shorten
from mmmos.features.spec import SCHEMA
from mmmos.features.store.reading import Contents, Reader, open_shard
from mmmos.features.store.shard import SPEC, SUFFIX, DamagedShard, are_sound
from mmmos.features.store.upkeep import spec_of
from mmmos.manifest.rows import Report

_KEY = re.compile(r"[0-9a-f]{32}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]")

# Bytes of a header, of a shard's index and of its rejections; rows that are read at a time.
_HEADER, _INDEX, _REJECTED = 1 << 16, 1 << 30, 1 << 26
_ROWS = 64


@dataclass(frozen=True)
class ForeignSet:
    """A feature set of the folder: its name there, what ``spec.json`` says, its fingerprint, its shards, verified."""

    folder: str
    about: dict[str, Any]
    fingerprint: str
    shards: list[Contents]


def verified(folder: Path, report: Report) -> ForeignSet | None:
    """A feature set when every number in it is what an extraction could have written.

    Otherwise None, or the set without the shards that are wrong; the report says why.
    """
    try:
        found, fingerprint = spec_of(folder)
        if problem := _wrong_spec(found, folder.name):
            raise ValueError(problem)
    except (OSError, ValueError) as error:
        report.add(f"{folder.name}/{SPEC}", str(error).rstrip("."))
        return None
    paths = sorted(folder.glob(f"*{SUFFIX}"))
    if not paths:
        report.add(folder.name, "it holds no shards")
    shards = []
    for path in progress.track(paths, len(paths), f"verifying {folder.name}"):
        try:
            shards.append(_verified_shard(path, found, fingerprint))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, DamagedShard) as error:
            report.add(f"{folder.name}/{path.name}", str(error).replace(f"{path} ", "it ").rstrip("."))
    return ForeignSet(folder.name, found, fingerprint, shards)


def _wrong_spec(about: dict[str, Any], folder: str) -> str:
    """What is wrong with a spec whose fingerprint is right; "" for nothing."""
    if about.get("schema") != SCHEMA:
        return f"it is of schema {shorten(about.get('schema'))}; this version of MMMOS reads schema {SCHEMA}"
    if about.get("name") != folder[:-13]:
        return f"it is called {shorten(about.get('name'))}, and its folder is not"
    encoder, frames = about.get("encoder"), about.get("frames")
    if not isinstance(encoder, dict) or not isinstance(frames, list):
        return "it describes no encoder and frames"
    sizes, names = [encoder.get("layers"), encoder.get("dim")], encoder.get("layer_names")
    if not all(type(size) is int and 0 < size < 1 << 20 for size in sizes):
        return f"{shorten(sizes)} are no numbers of layers and dimensions"
    if not isinstance(names, list) or len(names) != sizes[0] or any(frame not in names for frame in frames):
        return "its layers, their names and the layers of its frames do not agree"
    if about.get("dtype") not in ("float16", "float32"):
        return f"its vectors are {shorten(about.get('dtype'))}; allowed are float16 and float32"
    return ""


def _verified_shard(path: Path, about: dict[str, Any], fingerprint: str) -> Contents:
    """An opened shard. Raises ``ValueError`` and ``DamagedShard``."""
    _check_header(path, about)
    contents = open_shard(path)
    if contents.fingerprint != fingerprint:
        raise ValueError(f"it belongs to another feature set ({shorten(contents.fingerprint)})")
    for wrong, what in _checks(contents, bool(about["frames"])):
        if wrong:
            raise ValueError(what)
    if len(contents.frames):
        reader = Reader(contents)
        for first in range(0, len(contents.frames), _ROWS):
            if not are_sound(reader.rows(first, min(_ROWS, len(contents.frames) - first))):
                raise ValueError(f"it holds vectors that are not finite, absurd or zero, after row {first}")
    return contents


def _check_header(path: Path, about: dict[str, Any]) -> None:
    """Raise ``ValueError`` for a header that this version would not have written for these layers and dimensions."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _HEADER:
            raise ValueError("it does not begin like a shard")
        header = file.read(length)
    try:
        tensors = json.loads(header)
        measures = json.loads(tensors.pop("__metadata__")["mmmos"])["measures"]
    except ValueError:
        raise ValueError("its header is cut off or damaged") from None
    layers, dim, frames = about["encoder"]["layers"], about["encoder"]["dim"], len(about["frames"])
    clips, rows = tensors["entries"]["shape"][0], tensors["span"]["shape"][0]
    rejected, vectors = tensors["rejected"]["shape"][0], "F16" if about["dtype"] == "float16" else "F32"
    shapes = {
        "entries": ("I64", 8, [clips, 4]),
        "measures": ("F64", 8, [clips, len(measures)]),
        "span": ("F64", 8, [rows, 2]),
        "frames": ("I64", 8, [rows]),
        "checksum": ("I64", 8, [rows]),
        "keys": ("U8", 1, [clips, 16]),
        "rejected": ("U8", 1, [rejected]),
    }
    width = 2 if vectors == "F16" else 4
    if rows:
        shapes |= {"norm": ("F32", 4, [rows, layers]), "unit": (vectors, width, [rows, layers, dim])}
    if rows and frames:
        count = tensors["frame_norm"]["shape"][0]
        shapes |= {"frame_norm": ("F32", 4, [count, frames]), "frame_unit": (vectors, width, [count, frames, dim])}
    if not all(type(size) is int and 0 <= size < 1 << 40 for _, _, shape in shapes.values() for size in shape):
        raise ValueError("its tensors have impossible shapes")
    wanted, end = {}, 0
    for name, (dtype, bytes_each, shape) in shapes.items():
        begin, end = end, end + bytes_each * int(np.prod([1, *shape], dtype=object))
        wanted[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    if json.dumps(tensors) != json.dumps(wanted):
        raise ValueError("its tensors are not those of its feature set")
    if wanted["rejected"]["data_offsets"][1] > _INDEX or rejected > _REJECTED:
        raise ValueError("its index is larger than any that MMMOS writes")
    if path.stat().st_size != 8 + length + end:
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {8 + length + end}")


def _checks(contents: Contents, has_frames: bool) -> Iterator[tuple[bool, str]]:
    """Whether something is wrong with a shard's index, and what."""
    first, rows, part, last = contents.entries.T
    frames, span = contents.frames, contents.span
    yield bool((rows < 1).any() or (first != np.cumsum(rows) - rows).any()), "its clips do not follow each other"
    yield int(rows.sum()) != len(frames), "its rows belong to no clip"
    yield bool((part != 0).any() or (last != 1).any()), "it holds parts of clips"
    yield len(np.unique(contents.keys)) != len(contents.keys), "it holds a clip twice"
    yield bool((frames < 1).any() or (frames >= 1 << 32).any()), "it holds windows without frames"
    single = contents.places["frame_norm"][1][0] if has_frames and len(frames) else int(frames.sum())
    yield int(frames.sum()) != single, "it holds other numbers of frames than it says"
    sound = np.isfinite(span).all() and (span[:, 0] >= 0).all() and (span[:, 0] < span[:, 1]).all()
    yield not sound, "it holds windows that begin after their end"
    yield bool(np.isinf(contents.measures).any()), "it holds infinite measures"
    for key, (reason, detail, name) in contents.rejected.items():
        sane = _KEY.fullmatch(key) and reason in REASONS and reason not in TRANSIENT and len(detail) <= 1000
        clean = not _UNPRINTABLE.search(detail + name) and "/" not in name and len(name) <= 255
        yield not (sane and clean), f"it holds a rejection that no extraction stores ({shorten(key)})"
