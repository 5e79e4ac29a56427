"""Containers made of chunks or of a fixed header: WAV, RF64, W64, AIFF, AU, CAF.

Their sizes are compared with the file's: what was never filled in (streamed) reads to the end of the file, as ffmpeg
does it, and what promises more than is there is cut. Sources: RFC 2361, EBU Tech 3306, Apple's AIFF-C and
CAF, Sun's AU.
"""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

from mmmos.audio.header import Header, check, declared

_MOST_CHUNKS = 10_000
_MOST_HEADER = 1 << 20

_WAV_CODECS = {1: "PCM", 3: "float", 6: "A-law", 7: "µ-law", 0x55: "MP3"}
_WAV_OTHERS = {2: "MS ADPCM", 0x11: "IMA ADPCM", 0x14: "G.723 ADPCM", 0x31: "GSM 6.10", 0x40: "G.721 ADPCM"}
_AIFF_CODECS = {b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"42ni", b"23ni"} | {
    *(b"fl32", b"FL32", b"fl64", b"FL64", b"ulaw", b"ULAW", b"alaw", b"ALAW")
}
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
_CAF_CODECS = {b"lpcm", b"alaw", b"ulaw", b"alac"}


def _chunks(file: BinaryIO, at: int, size: int, layout: str, even: bool = True) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and declared length of each chunk from ``at`` on."""
    form = struct.Struct(layout)
    for _ in range(_MOST_CHUNKS):
        if not 0 <= at <= size - form.size:
            return
        name, length = form.unpack(_at(file, at, form.size))
        yield name, at + form.size, length
        at += form.size + length + (length % 2 if even else 0)


def _at(file: BinaryIO, place: int, count: int) -> bytes:
    """Bytes at a place, with zeros where the file has none."""
    file.seek(place)
    return file.read(count).ljust(count, b"\0")


def wav(file: BinaryIO, size: int) -> Header:
    """RIFF, RIFX (big-endian) and RF64. Raises ``Rejected`` (bad_rate, bad_channels, bad_codec)."""
    magic = _at(file, 0, 4)
    container, order = "rf64" if magic == b"RF64" else "wav", ">" if magic == b"RIFX" else "<"
    frame, rate, long = 0, 0, 0
    for name, place, length in _chunks(file, 12, size, f"{order}4sI"):
        if name == b"ds64":
            long = int.from_bytes(_at(file, place + 8, 8), "little")
        elif name == b"fmt " and place + 16 <= size:
            frame, rate = _wav_format(_at(file, place, 26), order, length)
        elif name == b"data" and rate:
            given = long if container == "rf64" and length == 0xFFFFFFFF else length
            there = size - place
            if not _is_open(file, given, place, size, order):
                return Header(container, declared(given, frame, rate), given - there >= max(frame, 1))
            return Header(container, math.nan, False, _closed(_at(file, 0, place), there, order), place)
    return Header(container)


def _wav_format(fields: bytes, order: str, length: int) -> tuple[int, int]:
    """Bytes of a frame (0: not plain samples) and rate in Hz."""
    tag, channels, rate, _, _, bits = struct.unpack(f"{order}HHIIHH", fields[:16])
    if tag == 0xFFFE and length >= 26:
        tag = struct.unpack(f"{order}H", fields[24:26])[0]
    check(rate, channels, None if tag in _WAV_CODECS else _WAV_OTHERS.get(tag, f"with the WAV tag {tag:#06x}"))
    return (channels * ((bits + 7) // 8) if tag != 0x55 else 0), rate


def _is_open(file: BinaryIO, length: int, place: int, size: int, order: str) -> bool:
    """Whether a length of samples was never filled in: 0, or one of the maxima that writers into pipes put there."""
    if length == 0:
        after = place
        for name, start, count in _chunks(file, place, size, f"{order}4sI"):
            if not (name.isascii() and name.decode("latin-1").isprintable()):
                return True
            after = start + count + count % 2
        return after < size - 1 or after > size + 1
    if length == 0xFFFFFFFF:
        return True
    return length > size - place and (0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000)


def _closed(head: bytes, there: int, order: str) -> bytes:
    """The bytes before the samples with the true sizes filled in; beyond 4 GB those of an RF64."""
    if len(head) > _MOST_HEADER:
        return head
    total = len(head) + there - 8
    if total < 0xFFFFFFFF or order == ">":
        sizes = struct.pack(f"{order}I", min(total, 0xFFFFFFFF)), struct.pack(f"{order}I", min(there, 0xFFFFFFFF))
        return (b"RIFF" if order == "<" else b"RIFX") + sizes[0] + head[8:-4] + sizes[1]
    long = struct.pack("<4sIQQQI", b"ds64", 28, total + 36, there, 0, 0)
    rest = head[12:-4] if head[:4] != b"RF64" else head[12 + 8 + struct.unpack("<I", head[16:20])[0] : -4]
    return b"RF64\xff\xff\xff\xffWAVE" + long + rest + b"\xff\xff\xff\xff"


def w64(file: BinaryIO, size: int) -> Header:
    """Sony's Wave64. Raises ``Rejected`` (bad_rate, bad_channels, bad_codec)."""
    at, frame, rate = 40, 0, 0
    for _ in range(_MOST_CHUNKS):
        if not 0 < at <= size - 24:
            break
        name, length = struct.unpack("<4s12xQ", _at(file, at, 24))
        if name == b"fmt " and at + 40 <= size:
            frame, rate = _wav_format(_at(file, at + 24, 26), "<", length - 24)
        elif name == b"data" and rate:
            return Header("w64", declared(length - 24, frame, rate), at + length - size >= max(frame, 1))
        at += (max(length, 24) + 7) // 8 * 8
    return Header("w64")


def aiff(file: BinaryIO, size: int) -> Header:
    """AIFF and AIFF-C. Raises ``Rejected`` (bad_rate, bad_channels, bad_codec)."""
    compressed = _at(file, 8, 4) == b"AIFC"
    seconds, frame = math.nan, 1
    for name, place, length in _chunks(file, 12, size, ">4sI"):
        if name == b"COMM" and place + 18 <= size:
            channels, frames, bits, rate = struct.unpack(">hIh10s", _at(file, place, 18))
            codec = _at(file, place + 18, 4) if compressed else b"NONE"
            check(_extended(rate), channels, None if codec in _AIFF_CODECS else repr(codec.decode("latin-1")))
            seconds, frame = frames / _extended(rate), max(channels * ((bits + 7) // 8), 1)
        elif name == b"SSND":
            return Header("aiff", None if math.isnan(seconds) else seconds, length - (size - place) >= frame)
    return Header("aiff")


def _extended(number: bytes) -> float:
    """An IEEE 754 number of 80 bits; NaN where it is none of use."""
    exponent, mantissa = struct.unpack(">HQ", number)
    if exponent & 0x8000 or exponent >= 16383 + 63:
        return math.nan
    return float(mantissa) * 2.0 ** (exponent - 16383 - 63)


def au(file: BinaryIO, size: int) -> Header:
    """Sun's AU, of either byte order. Raises ``Rejected`` (bad_rate, bad_channels, bad_codec)."""
    order = ">" if _at(file, 0, 4) == b".snd" else "<"
    offset, length, encoding, rate, channels = struct.unpack(f"{order}5I", _at(file, 4, 20))
    check(rate, channels, None if encoding in _AU_BYTES else f"with the AU number {encoding}")
    frame = channels * _AU_BYTES[encoding]
    if length == 0xFFFFFFFF:
        return Header("au", math.nan)
    return Header("au", declared(length, frame, rate), length - (size - offset) >= frame)


def caf(file: BinaryIO, size: int) -> Header:
    """Apple's CAF. Raises ``Rejected`` (bad_rate, bad_channels, bad_codec)."""
    frame, rate = 0, 0.0
    for name, place, length in _chunks(file, 8, size, ">4sq", even=False):
        if name == b"desc" and place + 28 <= size:
            rate, codec, _, packet, per_packet, channels = struct.unpack(">d4sIIII", _at(file, place, 28))
            check(rate, channels, None if codec in _CAF_CODECS else repr(codec.decode("latin-1")))
            frame = packet if per_packet == 1 else 0
        elif name == b"data" and rate:
            there = size - place
            if length > 0 and length - there >= max(frame, 1) and place <= _MOST_HEADER:
                prefix = _at(file, 0, place - 8) + struct.pack(">q", there)
                return Header("caf", declared(length - 4, frame, rate), True, prefix, place)
            seconds = declared(length - 4, frame, rate) if length > 0 and frame else None
            return Header("caf", seconds)
    return Header("caf")
