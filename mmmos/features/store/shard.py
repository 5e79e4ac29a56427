"""One shard: an immutable safetensors file that describes itself.

A row is a window; the rows of a clip are consecutive. A clip of very many windows comes in parts, each an entry, which
may lie in different shards. The tensors, in the order of the file:

=============  ==========================  ====================================================================
``entries``    (entries, 4) int64          first row, number of rows, number of the part, 1 for a clip's last part
``measures``   (entries, measures) float64 what was measured of the audio, NaN in all parts but the last
``span``       (rows, 2) float64           begin and end of the window in the clip, s
``frames``     (rows,) int64               frames of the window
``checksum``   (rows,) int64               CRC-32 of the row's numbers
``keys``       (entries, 16) uint8         keys of the clips
``rejected``   (bytes,) uint8              JSON: key of a rejected clip -> reason, detail, name of the file
``norm``       (rows, layers) float32      norms of the window means
``unit``       (rows, layers, dim)         unit vectors of the window means, in the stored dtype
``frame_norm`` (all frames, chosen layers) as ``norm``, of single frames; only in sets that keep frames
``frame_unit`` (all frames, chosen, dim)   as ``unit``
=============  ==========================  ====================================================================

The header holds the feature set's fingerprint, the digest of the tensors down to ``rejected``, the index, and a random
number; the file is named by the digest of its header. So any index can be rebuilt from the files alone, damage of any
byte is seen, in the header and the index when a shard is opened, in a row when that is read; and no name is ever used
twice: who deletes or sets aside a file that was listed before cannot meet another one, written meanwhile.
"""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import MEASURES
from mmmos.errors import StoreError
from mmmos.features.pooling import ABSURD
from mmmos.features.store.remote import Place, Remote
from mmmos.files import Bytes, canonical_json, write_atomic

SPEC = "spec.json"
SUFFIX = ".safetensors"
INDEX = ("entries", "measures", "span", "frames", "checksum", "keys", "rejected")
ROWS = ("norm", "unit")
FRAMES = ("frame_norm", "frame_unit")

HEADER_LIMIT = 1 << 16
DTYPES = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "F16": "<f2", "U8": "|u1"}
_NAMES = {np.dtype(numpy): name for name, numpy in DTYPES.items()}

Array = NDArray[Any]
Reason = tuple[str, str, str]


class DamagedShard(StoreError):
    """A shard whose content is not what was written."""


@dataclass(frozen=True)
class ClipRows:
    """The windows of one clip, or of a part of it, ready to be stored: arrays as in the module's docstring.

    ``key`` is 32 hexadecimal digits; ``measures`` (``audio.MEASURES``,) or None where they are unknown. ``frame_norm``
    and ``frame_unit`` hold the frames of all windows one after the other.
    """

    key: str
    unit: NDArray[np.floating]
    norm: NDArray[np.float32]
    frames: NDArray[np.int64]
    span: NDArray[np.float64]
    measures: NDArray[np.float64] | None = None
    part: int = 0
    last: bool = True
    frame_norm: NDArray[np.float32] | None = None
    frame_unit: NDArray[np.floating] | None = None

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self.unit.nbytes + (0 if self.frame_unit is None else self.frame_unit.nbytes)


@dataclass(frozen=True)
class Piece:
    """A tensor that is written piece by piece: its dtype, its shape, its content in order."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    content: Iterable[Array]


def write(
    folder: Place,
    fingerprint: str,
    clips: Sequence[ClipRows],
    rejected: Mapping[str, Reason],
    *,
    unique: bool = True,
) -> Place:
    """Write a shard; the file is whole or absent. Returns its path. ``unique``: as in ``write_pieces``.

    Raises ``StoreError`` for rows that are not finite, absurd or zero.
    """
    for clip in clips:
        _refuse(clip)
    rows = [len(clip.frames) for clip in clips]
    firsts = np.cumsum([0, *rows])[:-1].tolist()
    unknown = np.full(len(MEASURES), np.nan)
    entries = [[first, n, clip.part, clip.last] for first, n, clip in zip(firsts, rows, clips, strict=True)]
    index: dict[str, Array] = {
        "entries": np.array(entries, np.int64).reshape(-1, 4),
        "measures": np.array([unknown if clip.measures is None else clip.measures for clip in clips], np.float64),
        "keys": np.frombuffer(b"".join(bytes.fromhex(clip.key) for clip in clips), np.uint8).reshape(-1, 16),
        "span": _joined([clip.span for clip in clips], (0, 2), np.float64),
        "frames": _joined([clip.frames for clip in clips], (0,), np.int64),
        "checksum": _joined([_checksums(clip) for clip in clips], (0,), np.int64),
    }
    index["measures"] = index["measures"].reshape(-1, len(MEASURES))
    pieces = {name: _piece([getattr(clip, name) for clip in clips]) for name in ROWS} if clips else {}
    if clips and clips[0].frame_unit is not None:
        pieces |= {name: _piece([getattr(clip, name) for clip in clips]) for name in FRAMES}
    return write_pieces(folder, fingerprint, index, rejected, pieces, unique=unique)


def write_pieces(
    folder: Place,
    fingerprint: str,
    index: Mapping[str, Array],
    rejected: Mapping[str, Reason],
    pieces: Mapping[str, Piece],
    *,
    unique: bool = True,
) -> Place:
    """Write a shard from its index and the pieces of the other tensors, which need not be in memory together.

    Without ``unique`` the file is the same bytes, and has the same name, whenever its content is the same.
    """
    index = {**index, "rejected": _text(rejected)}
    head = [np.asarray(index[name], order="C") for name in INDEX]
    digest = hashlib.blake2b(digest_size=32)
    for tensor in head:
        digest.update(_bytes(tensor))
    about = {"fingerprint": fingerprint, "measures": list(MEASURES), "index": digest.hexdigest()}
    if unique:
        about["nonce"] = secrets.token_hex(16)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in zip(INDEX, head, strict=True)}
    shapes |= {name: (pieces[name].dtype, pieces[name].shape) for name in (*ROWS, *FRAMES) if name in pieces}
    header = _header(about, shapes)

    def content() -> Iterable[Bytes]:
        yield header
        yield from map(_bytes, head)
        for name in list(shapes)[len(INDEX) :]:
            for array in pieces[name].content:
                yield _bytes(np.asarray(array, order="C"))

    path = folder / f"{digest_name(header)}{SUFFIX}"
    return path.write(content()) if isinstance(path, Remote) else write_atomic(path, content())


def _refuse(clip: ClipRows) -> None:
    """Raise ``StoreError`` for rows that no reader should ever meet."""
    if not len(clip.frames) or (clip.frames < 1).any() or not are_sound(_vectors(clip)):
        raise StoreError(f"The rows of clip {clip.key} are not finite, absurd or zero; they are not stored.")


def are_sound(vectors: Mapping[str, Array]) -> bool:
    """Whether the vectors of rows, by tensor, are finite, in range, and those of no window all zero."""
    sound = vectors["norm"].any(axis=1).all()
    for names in (ROWS, FRAMES) if "frame_unit" in vectors else (ROWS,):
        norm, unit = (vectors[name] for name in names)
        sound &= np.isfinite(unit).all() and np.abs(unit).max() < 2
        sound &= np.isfinite(norm).all() and norm.min() >= 0 and norm.max() < ABSURD * np.sqrt(unit.shape[-1])
    return bool(sound)


def _vectors(clip: ClipRows) -> dict[str, Array]:
    names = ROWS if clip.frame_unit is None else (*ROWS, *FRAMES)
    return {name: getattr(clip, name) for name in names}


def row_checksums(vectors: Mapping[str, Array], span: Array, frames: Array) -> NDArray[np.int64]:
    """CRC-32 of each of some rows, at least one: of its place, number of frames and vectors, and of its frames."""
    found = np.empty(len(frames), np.int64)
    whole = [_cut(array, len(frames)) for array in (span, *(vectors[name] for name in ROWS))]
    single = [_cut(vectors[name], int(frames.sum())) for name in FRAMES if name in vectors]
    end = 0
    for row, count in enumerate(frames.tolist()):
        code, begin, end = count, end, end + count
        for data, size in whole:
            code = crc32(data[row * size : (row + 1) * size], code)
        for data, size in single:
            code = crc32(data[begin * size : end * size], code)
        found[row] = code
    return found


def _cut(array: Array, count: int) -> tuple[memoryview, int]:
    """The bytes of an array and how many of them each of its ``count`` items has."""
    data = _bytes(np.asarray(array, order="C"))
    return data, len(data) // count


def _checksums(clip: ClipRows) -> NDArray[np.int64]:
    return row_checksums(_vectors(clip), np.ascontiguousarray(clip.span), clip.frames)


def _header(about: Mapping[str, Any], shapes: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> bytes:
    """Length and JSON of a safetensors file, padded with spaces so that the tensors begin at a multiple of 64 bytes."""
    tensors: dict[str, Any] = {"__metadata__": {"mmmos": canonical_json(about)}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        begin, end = end, end + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        tensors[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    return len(text).to_bytes(8, "little") + text


def digest_name(header: bytes) -> str:
    """What a shard is named by: blake2b-128 (hex) of its header."""
    return hashlib.blake2b(header, digest_size=16).hexdigest()


def _text(rejected: Mapping[str, Reason]) -> NDArray[np.uint8]:
    """The rejections as JSON in ASCII, padded with spaces so that what follows is aligned; nothing for none."""
    text = json.dumps({key: rejected[key] for key in sorted(rejected)}, separators=(",", ":")) if rejected else ""
    return np.frombuffer((text + " " * (-len(text) % 8)).encode(), np.uint8)


def _joined(arrays: Sequence[Array], shape: tuple[int, ...], dtype: Any) -> Array:
    return np.concatenate(arrays).astype(dtype) if arrays else np.zeros(shape, dtype)


def _piece(arrays: Sequence[Array]) -> Piece:
    return Piece(arrays[0].dtype, (sum(map(len, arrays)), *arrays[0].shape[1:]), arrays)


def _bytes(array: Array) -> memoryview:
    """The bytes of an array in C order."""
    return array.reshape(-1).view(np.uint8).data
