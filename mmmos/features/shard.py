"""One shard: an immutable safetensors file that describes itself.

Tensors: ``unit`` (rows, layers, dim) in the stored dtype, ``norm`` (rows, layers) float32, ``frames`` (rows,) int32,
``span`` (rows, 2) float64 s. A row is a window; the rows of a clip are consecutive.
The header holds the feature set's fingerprint, the clips with their rows, the rejected clips with their reasons,
and a blake2b checksum of all of it, so that any index can be rebuilt and any damage is seen.
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
    }
    checksum = _checksum(about, tensors)
    data = tensor_bytes(tensors, metadata={"mmmos": canonical_json(about | {"checksum": checksum})})
    return write_atomic(folder / f"{checksum[:32]}{SUFFIX}", data)


def read_contents(path: Path) -> Contents:
    """The header of a shard. Raises ``StoreError`` for a file that is no shard."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= _HEADER_LIMIT:
                raise ValueError(f"a header of {length} bytes")
            about = json.loads(json.loads(file.read(length))["__metadata__"]["mmmos"])
        return Contents(
            path,
            str(about["fingerprint"]),
            {key: (int(first), int(rows)) for key, (first, rows) in about["clips"].items()},
            {key: (str(reason), str(detail)) for key, (reason, detail) in about["rejected"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is not a readable shard: {error}.") from None


def read(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a shard, its checksum verified. Raises ``StoreError`` for damage of any kind."""
    try:
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["mmmos"])
        tensors = load(data)
        expected = about.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise StoreError(f"{path} cannot be read: {error}.") from None
    if _checksum(about, tensors) != expected or not path.name.startswith(expected[:32]):
        raise StoreError(f"{path} is damaged: its content does not match its checksum.")
    return tensors


def _checksum(about: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> str:
    """blake2b-256 over the header and, in the order of their names, the tensors' shapes, dtypes and bytes."""
    digest = hashlib.blake2b(canonical_json(about).encode(), digest_size=32)
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.data)
    return digest.hexdigest()
