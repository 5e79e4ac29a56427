"""The process that decodes for another one: one clip after the other, told and answered through pipes.

A request is a line of JSON: path, start, end and the folder that a relative path starts from. Answers are messages, a
kind and a length (``MESSAGE``) and so many bytes: ``READY`` once, then for every request ``HEADER`` (``FORMAT``),
``BLOCK`` (float32) and ``END`` (measures, float64), or ``REJECTED`` (JSON: reason, detail) in place of what follows;
``ALIVE`` comes in between, for every block that is decoded on the way to a segment.
It ends when its requests do, which is also when the process that it works for has died.
"""

import json
import os
import queue
import signal
import struct
import sys
import threading
from pathlib import Path
from typing import Any

from mmmos.audio import streaming
from mmmos.errors import Rejected, first_line

MESSAGE = struct.Struct("<BQ")
FORMAT = struct.Struct("<qqd")
READY, ALIVE, HEADER, BLOCK, END, REJECTED = range(6)


# What is not covered runs in the process itself, which is killed and may write no file.
def main(memory: int) -> None:  # pragma: no cover
    """Serve until the requests end; ``memory`` in bytes is what decoding may take beyond what the process has."""
    import soundfile  # noqa: F401 (loaded before memory is counted)

    requests, answers = _pipes()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, waiting), daemon=True).start()
    _limit(memory)
    _send(answers, READY)
    while True:
        _serve(answers, *json.loads(waiting.get()))


def _pipes() -> tuple[int, int]:  # pragma: no cover
    """The pipes to the other process, out of the way of libraries that print: theirs goes nowhere."""
    requests, answers = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    return requests, answers


def _limit(memory: int) -> None:  # pragma: no cover
    """No files, no core dumps, and on Linux so much memory; Ctrl-C is the other process's to decide."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            taken = int(file.read().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = taken + memory if hard == resource.RLIM_INFINITY else min(taken + memory, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _listen(requests: int, waiting: "queue.SimpleQueue[bytes]") -> None:  # pragma: no cover
    """Take in requests; at their end all of this session ends at once, with whatever it started."""
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            waiting.put(line)
    if sys.platform != "win32" and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(0)


def _serve(answers: int, path: str, start: float | None, end: float | None, folder: str) -> None:
    try:
        if not Path(path).is_absolute():
            os.chdir(folder)
        with streaming.stream(path, start, end, skipped=lambda: _send(answers, ALIVE)) as clip:
            _send(answers, HEADER, FORMAT.pack(clip.rate, clip.channels, clip.seconds))
            for block in clip.blocks:
                _send(answers, BLOCK, block.tobytes())
            _send(answers, END, clip.measures().tobytes())
    except Rejected as error:
        _refuse(answers, error.reason, error.detail)
    except MemoryError:
        _refuse(answers, "out_of_memory", f"{path} takes more memory to decode than a decoder is given")
    except Exception as error:
        _refuse(answers, "decoder_crashed", f"the decoder failed: {type(error).__name__}: {first_line(error)}")


def _refuse(answers: int, reason: str, detail: str) -> None:
    _send(answers, REJECTED, json.dumps([reason, detail]).encode())


def _send(answers: int, kind: int, content: Any = b"") -> None:
    """Write a message whole; a pipe that nobody reads ends the process."""
    try:
        for part in (MESSAGE.pack(kind, len(content)), content):
            left = memoryview(part)
            while left:
                left = left[os.write(answers, left) :]
    except OSError:  # pragma: no cover
        os._exit(0)
