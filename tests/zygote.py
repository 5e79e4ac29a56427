"""Runs each `mmmos` of a shell in a fork of one process that has imported what commands import (3 s of CPU each time).

``zygote.py --serve SOCKET`` says "ready" and serves until its stdin ends; ``zygote.py SOCKET ARGUMENT …`` is `mmmos`
for the shell that calls it: with its folder, environment, stdin, stdout, stderr and exit code.
The serving process has a single thread, so that a fork has all there is; it runs no command itself.
"""

import atexit
import gc
import json
import os
import socket
import sys
import threading

# huggingface_hub is not among what these import: it reads the environment on import.
IMPORTED = (
    *(
        "mmmos.pipeline",
        "mmmos.scoring",
        "mmmos.features.extraction.extract",
        "mmmos.submissions.check",
        "mmmos.submissions.write",
    ),
    *("mmmos.ensembles.heads.classical", "mmmos.features.encoders.melstats", "nnAudio.features", "numba", "librosa"),
)
# Neither OpenBLAS nor pyarrow's jemalloc start threads.
ALONE = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def serve(address: str) -> None:
    """Fork for each caller; the command that a fork runs ends it."""
    from importlib import import_module
    from select import select

    for name in IMPORTED:
        import_module(name)
    import_module("mmmos.cli").build()
    # What is there already is not looked through, and so not copied, in a fork.
    gc.freeze()
    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208
    if threads > 1 or "huggingface_hub" in sys.modules:
        sys.exit(f"{threads} threads; huggingface_hub is imported: {'huggingface_hub' in sys.modules}")
    with socket.socket(socket.AF_UNIX) as ear:
        ear.bind(address)
        ear.listen()
        os.write(1, b"ready\n")
        while True:
            ready, _, _ = select([ear, 0], [], [])
            if 0 in ready:
                return
            caller, _ = ear.accept()
            # The one forked here waits for the command and answers; nobody waits for it.
            if not os.fork():
                ear.close()
                answer(caller)
            caller.close()
            while _ended():
                pass


def _ended() -> bool:
    try:
        return os.waitpid(-1, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return False


def answer(caller: socket.socket) -> None:
    """Run what the caller asks for in a fork, and tell its exit code."""
    _, files, _, _ = socket.recv_fds(caller, 1, 3)
    request = b"".join(iter(lambda: caller.recv(1 << 16), b""))
    command = os.fork()
    if not command:
        caller.close()
        run(files, **json.loads(request))
    for file in (0, 1, 2, *files):
        os.close(file)
    code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
    caller.sendall(str(code).encode())
    os._exit(0)


def run(files: list[int], arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be `mmmos`, and exit."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[:] = ["mmmos", *arguments]
    from mmmos.cli import main

    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    # An interpreter that ends takes down all that was imported, for as long as importing it took.
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def call(address: str, arguments: list[str]) -> int:
    """Have a command run; its exit code."""
    request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(address)
        socket.send_fds(line, [b"."], [0, 1, 2])
        line.sendall(json.dumps(request).encode())
        line.shutdown(socket.SHUT_WR)
        code = int(line.recv(16))
    if code < 0:
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(sys.argv[2])
    else:
        sys.exit(call(sys.argv[1], sys.argv[2:]))
