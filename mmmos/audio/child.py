"""One decoding process, seen from the process that it works for."""

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmmos.audio import limits, worker
from mmmos.audio.segment import Samples
from mmmos.errors import Rejected, SetupError

# Seconds without a word after which a decoding process is ended, where the platform can wait so (not on Windows).
TIMEOUT = 60.0
# Bytes that decoding may take beyond what the process needs for itself (on Linux).
MEMORY = 2 << 30

_PIPE_BYTES = 1 << 20
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from mmmos.audio import worker; worker.main({})"
# Threads of linear algebra are not needed, and take time and memory to start.
_ALONE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Child:
    """A decoding process, just started; ``idle`` when it has come to the end of a clip.

    Its methods raise ``Rejected`` for what befalls the clip and ``SetupError`` where the process cannot start.
    """

    def __init__(self) -> None:
        self.idle = self._ready = False
        self._measures: NDArray[np.float64] | None = None
        self._owner = os.getpid()
        self._process = _started()
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._requests, self._answers, self._said = self._process.stdin, self._process.stdout, self._process.stderr
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll:  # pragma: no branch (not on Windows)
            self._poll.register(self._answers, select.POLLIN)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its process group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def ask(self, path: str | Path, start: float | None, end: float | None) -> None:
        """Ask for a clip, as soon as the process is ready."""
        self.idle, self._measures = False, None
        if not self._ready:
            self._wait()
        times = [None if time is None else float(time) for time in (start, end)]
        request = json.dumps([str(path), *times, "" if Path(path).is_absolute() else _folder()])
        try:
            self._requests.write(request.encode() + b"\n")
        except OSError:
            raise self._crashed() from None

    def header(self) -> tuple[int, int, float]:
        """Rate in Hz, channels and declared length in s of the clip that was asked for."""
        rate, channels, seconds = worker.FORMAT.unpack(self._answer(worker.HEADER)[1])
        return rate, channels, seconds

    def blocks(self) -> Iterator[Samples]:
        """The mono blocks of the clip."""
        while True:
            kind, content = self._answer(worker.BLOCK, worker.END)
            if kind == worker.END:
                self._measures, self.idle = np.frombuffer(content, np.float64), True
                return
            yield np.frombuffer(content, np.float32)

    def measures(self) -> NDArray[np.float64]:
        """The measures of the clip; they come behind its last block."""
        if self._measures is None:
            raise RuntimeError("The measures of a clip are known after its last block.")
        return self._measures

    def end(self) -> None:
        """Kill it, and what it started."""
        if self._owner != os.getpid():
            return
        if self._process.returncode is None:
            self._kill()
            self._process.wait()
        self._close()

    def abandon(self) -> None:
        """Let go of another process's child, which a fork has inherited: it must not keep its pipes open."""
        self._process.returncode = 0
        self._close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.pid, signal.SIGKILL)
            else:  # pragma: no cover (Windows)
                self._process.kill()

    def _close(self) -> None:
        for pipe in (self._requests, self._answers, self._said):
            with contextlib.suppress(OSError):
                pipe.close()

    def _answer(self, *kinds: int) -> tuple[int, bytearray]:
        """The next message, of one of these kinds. Raises ``Rejected``."""
        kind = worker.ALIVE
        while kind == worker.ALIVE:
            kind, length = worker.MESSAGE.unpack(self._read(worker.MESSAGE.size))
            if kind not in (*kinds, worker.ALIVE, worker.REJECTED) or length > max(4 * limits.BLOCK, 1 << 20):
                raise Rejected("decoder_crashed", "the decoder's process answered with nonsense")
            content = self._read(length)
        if kind == worker.REJECTED:
            self.idle = True
            raise Rejected(*json.loads(content))
        return kind, content

    def _read(self, count: int) -> bytearray:
        """So many bytes. Raises ``Rejected`` where they do not come."""
        data = bytearray(count)
        left = memoryview(data)
        while left:
            if self._poll and not self._poll.poll(TIMEOUT * 1000):
                raise Rejected("decode_timeout", f"the decoder said nothing for {TIMEOUT:g} s and was ended")
            try:
                got = self._answers.readinto(left)  # type: ignore[attr-defined]
            except (OSError, ValueError):
                got = 0
            if not got:
                raise self._crashed()
            left = left[got:]
        return data

    def _crashed(self) -> Rejected:
        """What ended it."""
        if self._process.returncode is None:
            self._kill()
        status = self._process.wait()
        if status >= 0:
            return Rejected("decoder_crashed", f"the decoder's process ended with status {status}")
        name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
        hint = ": often the system's want of memory" if name == "SIGKILL" else ""
        return Rejected("decoder_crashed", f"the decoder's process was ended by {name}{hint}")

    def _wait(self) -> None:
        """Until the process is ready. Raises ``SetupError`` where it ends by itself before."""
        try:
            self._answer(worker.READY)
        except Rejected as error:
            if (self._process.returncode or 0) <= 0:
                raise
            said = self._said.read().decode("utf-8", "replace").strip().splitlines()
            raise SetupError(f"The decoding process cannot start: {said[-1] if said else error.detail}") from None
        self._said.close()
        self._ready = True


def _started() -> "subprocess.Popen[bytes]":
    path = [entry or _folder() for entry in sys.path]
    command = [sys.executable, f"-Xutf8={sys.flags.utf8_mode}", "-c", _START.format(MEMORY), json.dumps(path)]
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(  # noqa: S603 (this interpreter)
            command, bufsize=0, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | _ALONE, start_new_session=True
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES):
            raise SetupError(f"The decoding process cannot start: {error}") from None
        raise Rejected("decoder_crashed", f"the decoding process cannot start: {error.strerror or error}") from None
    if sys.platform == "linux" and process.stdout:  # pragma: no branch (Linux)
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return process


def _folder() -> str:
    """The working folder; "" where it is gone."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""
