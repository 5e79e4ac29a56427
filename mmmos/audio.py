"""Audio: decode, mix to mono, resample, cut into windows. The only module that touches audio bytes.

Conventions: samples are float32 in [-1, 1]; a signal is ``(samples,)``, a decoded file ``(samples, channels)``;
rates are in Hz, times in s. A file that cannot be used raises ``Rejected`` with one code of ``REASONS``.
The policy below (decoder, mono by mean over channels) is part of every store key: ``POLICY``.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from mmmos.errors import Rejected

Samples = NDArray[np.float32]

REASONS = {
    "missing": "the file is not there",
    "not_a_file": "the path is a folder, a pipe or a device",
    "unreadable": "the file system refuses to read it",
    "changed": "the file was written to while it was being read",
    "empty_file": "the file has 0 bytes",
    "not_audio": "the content is not audio",
    "needs_ffmpeg": "the content is audio of a kind that libsndfile does not decode",
    "decode_error": "the decoder gave up",
    "no_samples": "the file or the segment holds no samples",
    "too_short": "less than 0.1 s of audio",
    "too_long": "more than 24 h of audio",
    "non_finite": "NaN or infinite samples",
    "bad_rate": "a sample rate outside 1 kHz to 768 kHz",
    "bad_segment": "the segment lies outside the audio",
    "bad_embedding": "the encoder gave NaN, infinite, absurd or zero vectors",
}

MIN_SECONDS = 0.1
MAX_SECONDS = 24 * 3600.0
RATES = (1_000, 768_000)
BLOCK = 1 << 20

# Part of every store key: a change here changes numbers.
POLICY = {"decoder": "libsndfile-1", "mono": "mean", "audio": "1"}

# Formats in which a seek lands on the very sample; the others are decoded from their beginning.
_EXACT_SEEK = {"WAV", "WAVEX", "W64", "RF64", "FLAC", "AIFF", "AU", "CAF"}

# Audio that libsndfile does not open: (offset, magic bytes) of MP4, Matroska, AAC, ASF, AVI, AMR, WavPack, APE, DSD.
_NEEDS_FFMPEG = (
    (4, b"ftyp"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"\xff\xf1"),
    (0, b"\xff\xf9"),
    (0, b"0&\xb2u"),
    (8, b"AVI "),
    (0, b"#!AMR"),
    (0, b"wvpk"),
    (0, b"MAC "),
    (0, b"DSD "),
)

# A file opened without waiting, so that a pipe in its place cannot block.
_OPEN = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def content_hash(path: str | Path) -> str:
    """blake2b-256 of a file's bytes, hex. Raises ``Rejected`` (missing, not_a_file, unreadable, empty_file)."""
    digest = hashlib.blake2b(digest_size=32)
    with _open(Path(path)) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def stamp(path: str | Path) -> tuple[int, int]:
    """Size and time of the last write (ns): two equal stamps mean that nothing was written in between."""
    try:
        status = Path(path).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class Stream:
    """A file being decoded: rate in Hz, declared length in s (not to be believed), blocks (samples, channels)."""

    rate: int
    seconds: float
    blocks: Iterator[Samples]


@contextmanager
def stream(path: str | Path, start: float | None = None, end: float | None = None) -> Iterator[Stream]:
    """Decode a file, or its segment [start, end) in s, block by block, by content and not by name.

    Raises ``Rejected``, also while the blocks are read: what came before belongs to no usable clip then.
    """
    import soundfile

    with _open(Path(path)) as raw:
        head = raw.read(64)
        raw.seek(0)
        try:
            with soundfile.SoundFile(raw) as file:
                yield Stream(file.samplerate, file.frames / file.samplerate, _blocks(file, start, end))
        except soundfile.LibsndfileError as error:
            raise _undecodable(head, error.error_string) from None


def read(path: str | Path, start: float | None = None, end: float | None = None) -> tuple[Samples, int]:
    """Decode a file, or its segment [start, end) in s, at once.

    Returns ``(samples, channels)`` float32 and the rate in Hz. Raises ``Rejected``.
    """
    with stream(path, start, end) as file:
        return np.concatenate(list(file.blocks)), file.rate


@contextmanager
def _open(path: Path) -> Iterator[BinaryIO]:
    """A regular, non-empty file opened for reading, without a name that a decoder could go by."""
    try:
        with os.fdopen(_descriptor(path), "rb") as file:
            yield file
    except OSError as error:
        raise Rejected("unreadable", f"{path}: {error.strerror or error}") from None


def _descriptor(path: Path) -> int:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("not_a_file", f"{path} is not a regular file")
        if status.st_size == 0:
            raise Rejected("empty_file", f"{path} has 0 bytes")
        return os.open(path, _OPEN)
    except (FileNotFoundError, NotADirectoryError):
        raise Rejected("missing", f"there is no file {path}") from None
    except ValueError as error:
        raise Rejected("unreadable", f"{str(path)!r}: {error}") from None


def _blocks(file, start: float | None, end: float | None) -> Iterator[Samples]:  # type: ignore[no-untyped-def]
    """The samples of a segment. The declared length is not believed: blocks are read until none is left."""
    rate = file.samplerate
    if not RATES[0] <= rate <= RATES[1]:
        raise Rejected("bad_rate", f"{rate} Hz; allowed are {RATES[0]} to {RATES[1]} Hz")
    first, last = _segment(start, end, rate)
    exact, size = file.format in _EXACT_SEEK, max(BLOCK // file.channels, 1)
    position = file.seek(first) if exact and 0 < first < file.frames else 0
    while position < last:
        # Of an MP3 the last bit of a sample depends on how much is asked for, so whole blocks are.
        block = _block(file, min(size, last - position) if exact else size, position)
        if not len(block):
            break
        if position + len(block) > first:
            yield _finite(block[max(first - position, 0) : last - position], max(position, first), rate)
        position += len(block)
    _check(start, end, (first, last), position, rate)


def _check(start: float | None, end: float | None, segment: tuple[int, int], position: int, rate: int) -> None:
    """Refuse a segment that the audio, ``position`` samples from its beginning, did not fill."""
    samples = min(position, segment[1]) - segment[0]
    if samples > MAX_SECONDS * rate:
        raise Rejected("too_long", f"more than {MAX_SECONDS / 3600:g} h of audio")
    if not position:
        raise Rejected("no_samples", "the header is valid and no samples follow")
    if samples <= 0:
        raise Rejected("bad_segment", f"the segment starts at {start:g} s, the audio ends at {position / rate:.3f} s")
    if end is not None and math.inf > end > position / rate + MIN_SECONDS:
        raise Rejected("bad_segment", f"the segment ends at {end:g} s, the audio ends at {position / rate:.3f} s")
    if samples < MIN_SECONDS * rate:
        raise Rejected("too_short", f"{samples / rate:.4f} s of audio; at least {MIN_SECONDS} s are needed")


def _segment(start: float | None, end: float | None, rate: int) -> tuple[int, int]:
    """First sample of a segment and the one behind its last, at most one sample more than is allowed."""
    begin, stop = start or 0.0, math.inf if end is None else end
    if not 0 <= begin < stop:
        raise Rejected("bad_segment", f"the segment from {begin:g} s to {stop:g} s holds nothing")
    return round(begin * rate), round(min(stop, begin + MAX_SECONDS) * rate) + (stop > begin + MAX_SECONDS)


def _block(file, count: int, position: int) -> Samples:  # type: ignore[no-untyped-def]
    import soundfile

    try:
        block: Samples = file.read(count, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = _plain(error.error_string)
        raise Rejected("decode_error", f"{reason}, after {position / file.samplerate:.3f} s") from None
    return block


def _finite(block: Samples, position: int, rate: int) -> Samples:
    bad = ~np.isfinite(block).all(axis=1)
    if bad.any():
        first = (position + int(bad.argmax())) / rate
        raise Rejected("non_finite", f"NaN or infinite samples, the first at {first:.3f} s")
    return block


def _undecodable(head: bytes, reason: str) -> Rejected:
    if len(head) < 44:
        return Rejected("not_audio", f"{len(head)} bytes are too short to be audio")
    if any(head[offset : offset + len(magic)] == magic for offset, magic in _NEEDS_FFMPEG):
        return Rejected("needs_ffmpeg", "m4a, aac, webm or wma: convert it to flac, for example: ffmpeg -i IN OUT.flac")
    text = head.lstrip()[:15].decode("latin-1").lower()
    if text.startswith(("<!doctype", "<html", "<?xml", "{")):
        return Rejected("not_audio", f"it begins with {text!r}: a failed download?")
    if head[:4] in (b"RIFF", b"fLaC", b"OggS", b"FORM", b"RF64") or head[:3] == b"ID3":
        return Rejected("decode_error", _plain(reason))
    return Rejected("not_audio", f"{_plain(reason)}; it begins with {head[:12]!r}")


def _plain(reason: str) -> str:
    """A message of libsndfile without the punctuation around it."""
    return reason.removeprefix("Error : ").strip(" .")


def mono(samples: Samples) -> Samples:
    """Mean over channels: ``(samples, channels)`` to ``(samples,)``."""
    return samples[:, 0].copy() if samples.shape[1] == 1 else samples.mean(axis=1, dtype=np.float32)


class Windows:
    """Cuts a mono signal that comes in blocks into windows of ``window`` samples; the tail keeps its own length.

    A tail shorter than ``minimum`` samples is left out unless it is the only window.
    """

    def __init__(self, window: int, hop: int, minimum: int) -> None:
        self._window, self._hop, self._minimum = window, hop, minimum
        self._start, self._held = 0, np.zeros(0, np.float32)

    def push(self, block: Samples, last: bool = False) -> Iterator[tuple[int, Samples]]:
        """First sample and samples of each window that is complete by now; with ``last`` of all that are left."""
        self._held = np.concatenate([self._held, block])
        while len(self._held) > self._window:
            yield self._start, self._held[: self._window]
            self._start, self._held = self._start + self._hop, self._held[self._hop :]
        if last and (self._start == 0 or len(self._held) >= self._minimum):
            yield self._start, self._held


def pad(signal: Samples, minimum: int) -> Samples:
    """The signal, with zeros behind it up to ``minimum`` samples when it is shorter."""
    return signal if len(signal) >= minimum else np.pad(signal, (0, minimum - len(signal)))
