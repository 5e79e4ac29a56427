"""Which container a file is, by its first bytes and never by its name, and what it declares."""

import math
import os
from pathlib import PurePath
from typing import BinaryIO

from mmmos.audio import chunks, packets
from mmmos.audio.header import CONTAINERS, Header
from mmmos.errors import Rejected

# Bytes of a WAV without samples.
_LEAST = 44

# Offset and magic bytes of what only ffmpeg decodes.
_FOREIGN = (
    (4, b"ftyp", "mp4"),
    (4, b"moov", "mp4"),
    (4, b"mdat", "mp4"),
    (4, b"wide", "mp4"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "asf"),
    (8, b"AVI ", "avi"),
    (0, b"#!AMR", "amr"),
    (0, b"wvpk", "wavpack"),
    (0, b"MAC ", "ape"),
    (0, b"DSD ", "dsf"),
    (0, b"TTA1", "tta"),
    (0, b"MPCK", "musepack"),
    (0, b"MP+", "musepack"),
    (0, b"FLV\x01", "flv"),
)

# File name extensions and the containers that they promise; an extension that is not here promises nothing.
_EXTENSIONS = {
    **dict.fromkeys(("wav", "wave", "bwf"), ("wav", "rf64", "w64", "nist")),
    "rf64": ("rf64", "wav"),
    "w64": ("w64",),
    **dict.fromkeys(("aif", "aiff", "aifc"), ("aiff",)),
    **dict.fromkeys(("au", "snd"), ("au",)),
    "caf": ("caf",),
    "flac": ("flac",),
    **dict.fromkeys(("ogg", "oga", "opus", "spx"), ("ogg",)),
    **dict.fromkeys(("mp3", "mp2", "mpga"), ("mp3",)),
    **dict.fromkeys(("m4a", "m4b", "mp4", "m4v", "mov", "3gp"), ("mp4",)),
    **dict.fromkeys(("webm", "weba", "mka", "mkv"), ("matroska",)),
    "aac": ("aac", "mp4"),
    **dict.fromkeys(("wma", "wmv", "asf"), ("asf",)),
    "avi": ("avi",),
    "amr": ("amr",),
    "wv": ("wavpack",),
    "ape": ("ape",),
    "dsf": ("dsf",),
    "tta": ("tta",),
    "mpc": ("musepack",),
    "flv": ("flv",),
    "sph": ("nist",),
    "voc": ("voc",),
}


def examine(file: BinaryIO) -> Header:
    """The header of an open file, which stands at its beginning afterwards.

    Raises ``OSError``, and before any decoder has seen the file ``Rejected``: not_audio, bad_rate, bad_channels,
    bad_codec.
    """
    size = os.fstat(file.fileno()).st_size
    if size < _LEAST:
        raise Rejected("not_audio", f"{size} bytes are too short to be audio")
    at = packets.after_id3(file)
    file.seek(at)
    head = file.read(16)
    header = _examined(file, head, at, size)
    file.seek(0)
    return header


def _examined(file: BinaryIO, head: bytes, at: int, size: int) -> Header:
    foreign = [name for offset, magic, name in _FOREIGN if head[offset : offset + len(magic)] == magic]
    if foreign:
        return Header(foreign[0], math.nan)
    if head[:2] in (b"\xff\xf1", b"\xff\xf9"):
        return Header("aac", math.nan)
    if at == 0 and head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return chunks.wav(file, size)
    if at == 0 and head[:8] == b"riff\x2e\x91\xcf\x11":
        return chunks.w64(file, size)
    if at == 0 and head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return chunks.aiff(file, size)
    if at == 0 and head[:4] in (b".snd", b"dns."):
        return chunks.au(file, size)
    if at == 0 and head[:4] == b"caff":
        return chunks.caf(file, size)
    if at == 0 and head[:4] == b"OggS":
        return packets.ogg(file, size)
    if head[:4] == b"fLaC":
        return packets.flac(file, at)
    if at or packets.is_mpeg(head[:4]):
        return packets.mp3(file, at, size)
    return Header()


def extension_mismatch(path: str | PurePath, container: str | float) -> bool:
    """Whether a file's name promises another container than was measured: its name, or its number in ``CONTAINERS``.

    A name without an extension of audio promises nothing, and NaN is unknown: False.
    """
    if not isinstance(container, str):
        if math.isnan(container):
            return False
        container = CONTAINERS[int(container)]
    # Of a million clips a path object for each would take seconds.
    promised = _EXTENSIONS.get(os.path.splitext(path)[1][1:].lower())  # noqa: PTH122
    return promised is not None and container != "other" and container not in promised
