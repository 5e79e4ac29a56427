"""Containers made of packets: FLAC, Ogg, MPEG audio. Sources: RFC 9639, RFC 3533, RFC 7845, Xing's and LAME's tags."""

import math
import struct
from typing import BinaryIO

from mmmos.audio.header import Header, check

_PAGE = 27 + 255 + 255 * 255
_SEARCHED = 4096


def after_id3(file: BinaryIO) -> int:
    """The place behind the ID3v2 tags that a file begins with."""
    at = 0
    for _ in range(16):
        file.seek(at)
        tag = file.read(10)
        if len(tag) < 10 or tag[:3] != b"ID3":
            break
        a, b, c, d = tag[6:10]
        at += 10 + ((a & 127) << 21 | (b & 127) << 14 | (c & 127) << 7 | (d & 127)) + (10 if tag[5] & 16 else 0)
    return at


def flac(file: BinaryIO, at: int) -> Header:
    """Native FLAC whose magic lies at ``at``. Raises ``Rejected`` (bad_rate)."""
    file.seek(at + 8)
    info = file.read(18)
    if len(info) < 18:
        return Header("flac")
    fields = int.from_bytes(info[10:18], "big")
    rate, channels, samples = fields >> 44, (fields >> 41 & 7) + 1, fields & (1 << 36) - 1
    check(rate, channels)
    return Header("flac", samples / rate if samples else math.nan)


def ogg(file: BinaryIO, size: int) -> Header:
    """Ogg with Vorbis, Opus or FLAC; it is cut where no page says that it is the last.

    Raises ``Rejected`` (bad_rate, bad_channels, bad_codec).
    """
    file.seek(0)
    page = file.read(27 + 255 + 64)
    if len(page) < 28:
        return Header("ogg")
    packet = page[27 + page[26] :]
    if packet[:7] == b"\x01vorbis" and len(packet) >= 16:
        check(struct.unpack("<I", packet[12:16])[0], packet[11])
    elif packet[:8] == b"OpusHead" and len(packet) >= 10:
        check(48_000, packet[9])
    elif packet[:8] == b"Speex   ":
        check(48_000, 1, "Speex")
    cut = not _ends(file, size)
    return Header("ogg", math.nan if cut else None, cut)


def _ends(file: BinaryIO, size: int) -> bool:
    """Whether the last page of an Ogg file is whole and marked as the last."""
    start = max(size - 2 * _PAGE, 0)
    file.seek(start)
    tail = file.read(2 * _PAGE)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27 or len(tail) < at + 27 + tail[at + 26]:
        return False
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    return bool(tail[at + 5] & 4) and at + 27 + len(segments) + sum(segments) <= len(tail)


def is_mpeg(frame: bytes) -> bool:
    """Whether four bytes are the header of an MPEG audio frame, layers I to III."""
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return False
    return frame[1] >> 3 & 3 != 1 and frame[1] >> 1 & 3 != 0 and frame[2] >> 4 != 15 and frame[2] >> 2 & 3 != 3


def mp3(file: BinaryIO, at: int, size: int) -> Header:
    """MPEG audio from ``at`` on: only a Xing, Info or VBRI tag declares its length."""
    file.seek(at)
    head = file.read(_SEARCHED)
    first = next((place for place in range(len(head) - 4) if is_mpeg(head[place : place + 4])), None)
    if first is None:
        return Header("mp3", math.nan)
    frame = head[first:]
    mpeg1, mono = frame[1] & 8, frame[3] >> 6 == 3
    side = 4 + ((17 if mono else 32) if mpeg1 else (9 if mono else 17))
    tag, present, bytes_ = frame[side : side + 4], 0, 0
    if tag in (b"Xing", b"Info") and len(frame) >= side + 16:
        flags, frames, declared = struct.unpack(">3I", frame[side + 4 : side + 16])
        present = frames if flags & 1 else 0
        bytes_ = declared if flags & 3 == 3 else 0
    elif frame[36:40] == b"VBRI" and len(frame) >= 54:
        bytes_, present = struct.unpack(">2I", frame[46:54])
    missing = bytes_ - (size - at - first)
    return Header("mp3", None if present else math.nan, missing > 0 and missing >= bytes_ // 1000)
