"""Decoding through libsndfile, block by block: PCM, float, µ-law, A-law, FLAC, ALAC, Vorbis, Opus and MPEG audio."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmmos.audio import limits, opening
from mmmos.audio.header import CONTAINERS, Header, bad_codec, check
from mmmos.audio.segment import Numbered, Samples
from mmmos.audio.source import Source
from mmmos.errors import Rejected

# Formats in which a seek lands on the very sample; the others are decoded from their beginning.
_EXACT_SEEK = {"WAV", "WAVEX", "W64", "RF64", "FLAC", "AIFF", "AU", "CAF"}

_CODECS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW", "ALAC_", "VORBIS", "OPUS", "MPEG_LAYER_")

# First bytes of containers: what libsndfile does not open of them is damaged audio.
_KNOWN = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"dns.", b"caff", b"riff")

_UNKNOWN_LENGTH = 1 << 60


@contextmanager
def opened(path: str | Path, file: BinaryIO, header: Header) -> Iterator[Source]:
    """Open what libsndfile decodes. Raises ``Rejected``."""
    import soundfile

    head = file.read(64)
    view = opening.View(file, header.prefix, header.offset)
    try:
        sound = _sequential()(view)
    except soundfile.LibsndfileError as error:
        raise _read_error(path, view) or _undecodable(head, error.error_string) from None
    with sound:
        check(sound.samplerate, sound.channels)
        if not sound.subtype.startswith(_CODECS):
            raise bad_codec(sound.subtype)
        yield Source(
            rate=sound.samplerate,
            channels=sound.channels,
            container=_container(header, sound.format),
            seconds=_seconds(header, sound),
            cut=header.cut,
            blocks=lambda first, last: _blocks(path, sound, view, first, last),
        )


@cache
def _sequential() -> Any:
    """A kind of ``SoundFile`` that is read on and on: it neither asks nor sets its place after a block.

    The declared length does not limit what is read then, and the samples do not depend on the sizes of blocks.
    """
    import soundfile

    class Sequential(soundfile.SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

    return Sequential


def _container(header: Header, opened_as: str) -> str:
    if header.container != "other":
        return header.container
    name = opened_as.lower()
    return name if name in CONTAINERS else "other"


def _seconds(header: Header, sound: Any) -> float:
    if header.seconds is not None:
        return header.seconds
    frames = sound.frames
    return frames / sound.samplerate if 0 < frames < _UNKNOWN_LENGTH else math.nan


def _blocks(path: str | Path, sound: Any, view: opening.View, first: int, last: int) -> Numbered:
    """Blocks until none is left: the declared length is not believed."""
    import soundfile

    rate, position = sound.samplerate, 0
    exact, size = sound.format in _EXACT_SEEK, max(limits.BLOCK // sound.channels, 1)
    try:
        if exact and 0 < first < sound.frames:
            position = sound.seek(first)
            yield position, np.zeros((0, sound.channels), np.float32)
        while position < last:
            block = _block(sound, min(size, last - position))
            if view.error or not len(block):
                break
            yield position, block
            position += len(block)
    except soundfile.LibsndfileError as error:
        reached = sound.tell()
        place = f"after {reached / rate:.3f} s" if reached > position else f"after at least {position / rate:.3f} s"
        raise _read_error(path, view) or _failed(error.error_string, place) from None
    if view.error:
        raise opening.unreadable(path, view.error)


def _block(sound: Any, count: int) -> Samples:
    block: Samples = sound.read(out=np.empty((count, sound.channels), np.float32))
    return block if 2 * len(block) > count else block.copy()


def _read_error(path: str | Path, view: opening.View) -> Rejected | None:
    return opening.unreadable(path, view.error) if view.error else None


def _failed(reason: str, place: str) -> Rejected:
    _check_memory(reason)
    return Rejected("decode_error", f"{_plain(reason)}, {place}")


def _check_memory(reason: str) -> None:
    """Raise ``MemoryError`` where libsndfile failed for want of memory."""
    if "malloc" in reason or "memory" in reason.lower():
        raise MemoryError(reason)


def _undecodable(head: bytes, reason: str) -> Rejected:
    """Why a file could not be opened, told from its first bytes."""
    _check_memory(reason)
    text = head.lstrip()[:15].decode("latin-1").lower()
    if text.startswith(("<!doctype", "<html", "<?xml", "{")):
        return Rejected("not_audio", f"it begins with {text!r}: a failed download?")
    if head[:4] in _KNOWN or head[:3] == b"ID3":
        return Rejected("decode_error", _plain(reason))
    return Rejected("not_audio", f"{_plain(reason)}; it begins with {head[:12]!r}")


def _plain(reason: str) -> str:
    """A message of libsndfile without the punctuation around it."""
    return reason.removeprefix("Error : ").strip(" .")
