"""What can be scored: files, samples with their rate, file objects, Audiobox's dicts, manifests, lists of these."""

import io
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import audio
from mmmos.audio import isolated
from mmmos.audio.limits import CHANNELS
from mmmos.errors import Rejected, UsageError, first_line
from mmmos.features import decoding

KINDS = (
    "a path, samples with a rate, a pair (samples, rate), a binary file object, a dict with 'path', a manifest's"
    " DataFrame, or a list of these"
)


@dataclass(frozen=True)
class Clip:
    """A clip to be scored: of a file, by ``path``; of ``samples`` (samples,) or (samples, channels) at ``rate`` Hz; or
    of a binary ``file`` object, from where it stands. ``start`` and ``end`` in s, None to either end.
    """

    id: str
    path: str | None = None
    samples: NDArray[Any] | None = None
    rate: int | None = None
    start: float | None = None
    end: float | None = None
    domain: str | None = None
    file: BinaryIO | None = None


class Given(NamedTuple):
    """The clips of an input, and whether it was one thing, not a list."""

    clips: Iterable[Clip]
    one: bool


@contextmanager
def opened(clip: Clip) -> Iterator[audio.Stream]:
    """The audio of a clip, as ``audio.isolated.stream`` gives it. Raises ``Rejected``, also for a file that is written
    to while it is read.
    """
    if clip.samples is not None:
        yield decoding.of_samples(clip.samples, clip.rate or 0, clip.start, clip.end)
    elif clip.path is not None:
        before = audio.stamp(clip.path)
        with isolated.stream(clip.path, clip.start, clip.end) as stream:
            yield stream
        if audio.stamp(clip.path) != before:
            raise Rejected("changed", f"{clip.path} was written to while it was being read; try again")
    else:
        with _spooled(clip) as path, _unnamed(path), isolated.stream(path, clip.start, clip.end) as stream:
            yield stream


@contextmanager
def _spooled(clip: Clip) -> Iterator[str]:
    """A temporary file with what a file object holds. Raises ``Rejected`` (unreadable)."""
    assert clip.file is not None, "a clip has a path, samples or a file"
    with tempfile.TemporaryDirectory(prefix="mmmos-") as folder:
        path = Path(folder) / "audio"
        try:
            with path.open("wb") as copy:
                shutil.copyfileobj(clip.file, copy, 1 << 20)
        except Exception as error:
            raise Rejected("unreadable", f"the file object cannot be read: {first_line(error)}") from error
        yield str(path)


@contextmanager
def _unnamed(path: str) -> Iterator[None]:
    """Speak of "the file" instead of a temporary one."""
    try:
        yield
    except Rejected as error:
        raise Rejected(error.reason, error.detail.replace(path, "the file")) from None


def read(given: Any, rate: int | None = None) -> Given:
    """The clips of whatever ``Scorer`` takes. Raises ``UsageError`` for what is none of ``KINDS``.

    Of a list all entries are looked at first; an iterator is followed as it goes. Ids: paths verbatim, "0", "1", … for
    the rest by place, a manifest's own; "#2", … is put behind a repeated one.
    """
    if isinstance(given, pd.DataFrame):
        _no_rate(rate)
        return Given(_manifest(given), False)
    if _is_one(given):
        return Given([_clip(given, "0", rate)], True)
    if not isinstance(given, Iterable) or isinstance(given, np.generic):
        raise UsageError(f"A scorer takes {KINDS}; got {type(given).__name__}.")
    clips = _distinct(_clip(each, str(place), rate) for place, each in enumerate(given))
    return Given(clips if isinstance(given, Iterator) else list(clips), False)


def _is_one(given: Any) -> bool:
    if isinstance(given, tuple):
        return (
            len(given) == 2
            and any(isinstance(part, np.ndarray) or _is_tensor(part) for part in given)
            and any(isinstance(part, Real) for part in given)
        )
    kinds = (str, bytes, bytearray, os.PathLike, np.ndarray, Mapping)
    return isinstance(given, kinds) or _is_tensor(given) or hasattr(given, "read")


def _is_tensor(given: Any) -> bool:
    return type(given).__module__.partition(".")[0] == "torch" and hasattr(given, "detach")


def _clip(given: Any, place: str, rate: int | None) -> Clip:
    if isinstance(given, tuple) and _is_one(given):
        _no_rate(rate, "a pair (samples, rate) has its own")
        samples, own = given
        if not isinstance(own, Real):
            raise UsageError("A pair is (samples, rate), in this order, as soundfile.read returns it.")
        return _clip(samples, place, own)  # type: ignore[arg-type]
    if isinstance(given, str | os.PathLike):
        _no_rate(rate, "a file tells its own")
        path = os.fsdecode(given)
        return Clip(path, path)
    if isinstance(given, np.ndarray) or _is_tensor(given):
        return Clip(place, samples=_samples(given), rate=_rate(rate))
    if isinstance(given, Mapping):
        _no_rate(rate, "a dict names its own 'sample_rate'")
        return _entry(given, place)
    if isinstance(given, bytes | bytearray):
        raise UsageError("Bytes may be a path or the content of a file; give a str, or io.BytesIO(content).")
    if isinstance(given, io.TextIOBase):
        raise UsageError('A file object must be binary: open it with "rb".')
    if hasattr(given, "read"):
        _no_rate(rate, "a file tells its own")
        return Clip(place, file=given)
    raise UsageError(f"A scorer takes {KINDS}; entry {place} is {type(given).__name__}.")


def _entry(given: Mapping[str, Any], place: str) -> Clip:
    """Audiobox's entries: {"path": file or samples, "sample_rate", "start_time", "end_time"}; other keys are let be."""
    if "path" not in given:
        raise UsageError(
            f"A dict needs 'path', a file or samples with 'sample_rate'; got {', '.join(map(str, given))}."
        )
    source, rate = given["path"], given.get("sample_rate")
    clip = _clip(source, place, rate if isinstance(source, np.ndarray) or _is_tensor(source) else None)
    start, end = (_seconds(given.get(name), name) for name in ("start_time", "end_time"))
    return replace(clip, start=start, end=end)


def _seconds(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Real) or value != value:
        raise UsageError(f"{name} is a number of seconds; got {value!r}.")
    return float(value)


def _rate(rate: Any) -> int:
    if rate is None:
        raise UsageError("Samples need their rate in Hz: scorer(samples, rate).")
    if isinstance(rate, bool) or not isinstance(rate, Real) or not float(rate).is_integer():
        raise UsageError(f"A rate is a whole number of Hz; got {rate!r}.")
    return int(float(rate))


def _no_rate(rate: Any, why: str = "a manifest's files tell their own") -> None:
    if rate is not None:
        raise UsageError(f"A rate belongs to samples; {why}.")


def _samples(given: Any) -> NDArray[Any]:
    """Samples (samples,) or (samples, channels) of a numpy array of that shape, or a tensor (channels, samples)."""
    if isinstance(given, np.ndarray):
        table, shape = given, "(samples,) or (samples, channels)"
    else:
        tensor = given.detach().cpu()
        if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
            tensor = tensor.float()
        table, shape = tensor.numpy().T, "(channels, samples)" if tensor.ndim > 1 else "(samples,)"
    if table.dtype.kind not in "fiu" or (table.dtype.kind in "iu" and table.dtype.itemsize > 4):
        raise UsageError(f"Samples are floating point, or integers of 8, 16 or 32 bits; got {table.dtype}.")
    if table.ndim not in (1, 2):
        raise UsageError(
            f"Samples are {shape}; got {given.ndim} dimensions, {tuple(given.shape)}: give a list of clips."
        )
    if table.ndim == 2 and not 1 <= table.shape[1] <= CHANNELS:
        raise UsageError(f"Samples are {shape}, with 1 to {CHANNELS} channels; got {tuple(given.shape)}. Transpose it?")
    return table


def _manifest(table: pd.DataFrame) -> Iterator[Clip]:
    """The clips of a manifest, each with the file that ``locate`` finds for it."""
    from mmmos.manifest import locate

    if "path" not in table:
        raise UsageError("A DataFrame is a manifest with a column 'path', as mmmos.read_manifest returns it.")
    files = [file or path for file, path in zip(locate(table)["file"], table["path"], strict=True)]
    edges = [table[name] if name in table else [None] * len(table) for name in ("start", "end", "domain")]
    return _distinct(
        Clip(str(id_), file, start=_known(start), end=_known(end), domain=None if pd.isna(domain) else str(domain))
        for id_, file, start, end, domain in zip(table.index, files, *edges, strict=True)
    )


def _known(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _distinct(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Clips with ids of their own: "#2", "#3", … behind repeated ones."""
    seen: set[str] = set()
    count: dict[str, int] = {}
    for clip in clips:
        name = clip.id
        while name in seen:
            count[clip.id] = count.get(clip.id, 1) + 1
            name = f"{clip.id}#{count[clip.id]}"
        seen.add(name)
        yield replace(clip, id=name)
