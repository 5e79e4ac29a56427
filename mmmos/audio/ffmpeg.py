"""Decoding through the ffmpeg command: what libsndfile does not open, m4a, aac, webm, wma and the like.

The container is told by its first bytes and forced, the file is named as a file and by nothing else, no shell and no
network take part, and samples come through a pipe: first audio stream, its own rate and channels, float32.
"""

import math
import re
import shutil
import struct
import subprocess
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mmmos.audio import limits
from mmmos.audio.header import Header, check
from mmmos.audio.segment import Numbered
from mmmos.audio.source import Source
from mmmos.errors import Rejected

DEMUXERS = {
    "mp4": "mov",
    "matroska": "matroska",
    "aac": "aac",
    "asf": "asf",
    "avi": "avi",
    "amr": "amr",
    "wavpack": "wv",
    "ape": "ape",
    "dsf": "dsf",
    "tta": "tta",
    "musepack": "mpc",
    "flv": "flv",
}

INSTALL = (
    "install ffmpeg (Debian, Ubuntu: apt install ffmpeg; macOS: brew install ffmpeg; Windows: winget install ffmpeg), "
    "or convert the file where it is: ffmpeg -i IN OUT.flac"
)

_HEADER = struct.Struct(">4s5I")


@contextmanager
def opened(path: str | Path, header: Header) -> Iterator[Source]:
    """Start ffmpeg on a file. Raises ``Rejected``; ffmpeg ends with the context, or by itself when its reader does."""
    command = shutil.which("ffmpeg")
    if command is None:
        raise Rejected("needs_ffmpeg", f"{header.container} is decoded by ffmpeg: {INSTALL}")
    pipe = subprocess.PIPE
    process = subprocess.Popen(  # noqa: S603 (no shell; every argument is ours but the path, which follows "file:")
        _arguments(command, str(path), DEMUXERS[header.container]), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    assert process.stdout and process.stderr
    said: deque[bytes] = deque(maxlen=5)
    listener = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
    listener.start()
    try:
        yield _source(process, listener, said, header.container)
    finally:
        process.kill()
        process.wait()
        listener.join()
        process.stdout.close()
        process.stderr.close()


def _arguments(command: str, path: str, demuxer: str) -> list[str]:
    return [
        *(command, "-nostdin", "-hide_banner", "-v", "error", "-threads", "1", "-protocol_whitelist", "file,pipe"),
        *("-f", demuxer, "-i", f"file:{path}", "-map", "0:a:0", "-map_metadata", "-1"),
        *("-c:a", "pcm_f32be", "-f", "au", "pipe:1"),
    ]


def _source(
    process: "subprocess.Popen[bytes]", listener: threading.Thread, said: deque[bytes], container: str
) -> Source:
    """The stream behind the AU header that ffmpeg writes first."""
    assert process.stdout
    out = process.stdout
    head = out.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise _failed(process, listener, said, 0.0)
    _, offset, _, _, rate, channels = _HEADER.unpack(head)
    check(rate, channels)
    out.read(offset - _HEADER.size)

    def blocks(_: int, last: int) -> Numbered:
        position = 0
        size = max(limits.BLOCK // channels, 1) * channels * 4
        while position < last:
            data = out.read(size)
            block = np.frombuffer(data, ">f4", len(data) // 4 // channels * channels).astype(np.float32)
            if len(block):
                yield position, block.reshape(-1, channels)
            position += len(block) // channels
            if len(data) < size:
                if process.wait():
                    raise _failed(process, listener, said, position / rate)
                return

    return Source(rate, channels, container, math.nan, False, blocks)


def _failed(
    process: "subprocess.Popen[bytes]", listener: threading.Thread, said: deque[bytes], seconds: float
) -> Rejected:
    """What ffmpeg said last of the audio itself, without its closing line on the file and without addresses."""
    process.wait()
    listener.join()
    lines = [re.sub(r"^\[[^]]* @ [^]]*\] *", "", line.decode("utf-8", "replace").strip()) for line in said]
    words = [line for line in lines if line and not line.startswith("file:")] or [
        line.rpartition(": ")[2] for line in lines
    ]
    reason = words[-1].rstrip(".") if words else f"it ended with status {process.returncode} and said nothing"
    return Rejected("decode_error", f"ffmpeg: {reason}{f', after {seconds:.3f} s' if seconds else ''}")
