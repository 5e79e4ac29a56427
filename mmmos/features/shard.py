"""One shard: an immutable safetensors file that describes itself.

Tensors: ``unit`` (rows, layers, dim) in the stored dtype, ``norm`` (rows, layers) float32, ``frames`` (rows,) int32,
``span`` (rows, 2) float64 s. A row is a window; the rows of a clip are consecutive.
The header holds the feature set's fingerprint, the clips with their rows, the rejected clips with their reasons, the
checksum of the tensors, and a checksum of all this, so that any index can be rebuilt from headers and any damage is
seen: in the header when it is read, in the tensors when they are. The file is named by its checksum.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from mmmos.errors import StoreError
from mmmos.files import canonical_json, tensor_bytes, write_atomic

SUFFIX = ".safetensors"
_HEADER_LIMIT = 1 << 20
_TENSORS = ("unit", "norm", "frames", "span")


class DamagedShard(StoreError):
    """A shard whose content is not what was written."""


@dataclass(frozen=True)
class ClipRows:
    """The windows of one clip, ready to be stored: arrays as in the module's docstring."""

    key: str
    unit: NDArray[np.floating]
    norm: NDArray[np.float32]
    frames: NDArray[np.int32]
    span: NDArray[np.float64]


@dataclass(frozen=True)
class Contents:
    """The header of a shard: clip key -> (first row, rows), rejected clip key -> (reason, detail)."""

    path: Path
    fingerprint: str
    clips: dict[str, tuple[int, int]]
    rejected: dict[str, tuple[str, str]] = field(default_factory=dict)


def write(folder: Path, fingerprint: str, clips: list[ClipRows], rejected: dict[str, tuple[str, str]]) -> Path:
    """Write a shard named by its checksum; the file is whole or absent. Returns its path."""
    tensors = {name: np.concatenate([getattr(clip, name) for clip in clips]) for name in _TENSORS} if clips else {}
    table, first = {}, 0
    for clip in clips:
        table[clip.key] = [first, len(clip.frames)]
        first += len(clip.frames)
    about = {
        "fingerprint": fingerprint,
        "clips": table,
        "rejected": {key: list(value) for key, value in rejected.items()},
        "tensors": _tensors_checksum(tensors),
    }
    checksum = _checksum(about)
    data = tensor_bytes(tensors, metadata={"mmmos": canonical_json(about | {"checksum": checksum})})
    return write_atomic(folder / f"{checksum[:32]}{SUFFIX}", data)


def read_contents(path: Path) -> Contents:
    """The header of a shard, its checksum verified. Raises ``DamagedShard`` for a file that is no whole shard."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            about = _header(path, file.read(length) if length <= _HEADER_LIMIT else b"")
        return Contents(
            path,
            str(about["fingerprint"]),
            {key: (int(first), int(rows)) for key, (first, rows) in about["clips"].items()},
            {key: (str(reason), str(detail)) for key, (reason, detail) in about["rejected"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedShard(f"{path} is not a readable shard: {error}.") from None


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a shard, all checksums verified. Raises ``DamagedShard`` for damage of any kind."""
    try:
        data = path.read_bytes()
        about = _header(path, data[8 : 8 + int.from_bytes(data[:8], "little")])
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise DamagedShard(f"{path} cannot be read: {error}.") from None
    if _tensors_checksum(tensors) != about["tensors"]:
        raise DamagedShard(f"{path} is damaged: its tensors do not match their checksum.")
    return tensors


def _header(path: Path, text: bytes) -> dict[str, Any]:
    """What a shard's header says of it; ``ValueError`` when it does not match its checksum or the file's name."""
    about: dict[str, Any] = json.loads(json.loads(text)["__metadata__"]["mmmos"])
    expected = about.pop("checksum")
    if _checksum(about) != expected or path.stem != expected[:32]:
        raise ValueError("the header does not match its checksum")
    return about


def _checksum(about: dict[str, Any]) -> str:
    """blake2b-256 (hex) of the header's canonical JSON."""
    return hashlib.blake2b(canonical_json(about).encode(), digest_size=32).hexdigest()


def _tensors_checksum(tensors: dict[str, NDArray[Any]]) -> str:
    """blake2b-256 (hex) over the tensors' names, dtypes, shapes and bytes, in the order of their names."""
    digest = hashlib.blake2b(digest_size=32)
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.data)
    return digest.hexdigest()
