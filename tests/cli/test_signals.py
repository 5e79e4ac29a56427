"""Ctrl-C, SIGTERM and SIGHUP: the process ends in time, with its code, what is saved and the command that goes on."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmmos.cli import signals

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
WORDS = {INT: "Interrupted.", TERM: "Terminated.", HUP: "Terminated."}
LIMIT = 3.0

# A stand-in command: `work` is what `mmmos run` does. It says "ready" once it is busy.
COMMAND = """
import contextlib, os, signal, sys, threading, time
from mmmos import cli, parallel, progress
# What runs in the background of a shell inherits a SIGINT that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
def ready():
    os.write(1, b"ready\\n")
{body}
cli.build = lambda: lambda *arguments, **options: work()
cli.main(sys.argv[1:])
"""

SITUATIONS = {
    "sleeping": """
def work():
    ready(); time.sleep(60)
""",
    "a loop in Python": """
def work():
    ready()
    while True: pass
""",
    "a long C function": """
import hashlib
def work():
    ready(); hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)
""",
    "threads that are waited for": """
from concurrent.futures import ThreadPoolExecutor
def work():
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(time.sleep, 60) for _ in range(4)]
        ready(); waiting[0].result()
""",
    "threads ahead": """
def slow(item):
    yield item
    time.sleep(60)
def work():
    with contextlib.closing(parallel.ahead(slow, range(9), threads=3)) as made:
        for _, results in made:
            next(results); ready(); next(results)
""",
    "worker processes": """
def work():
    results = parallel.map(time.sleep, [0.0, *[60.0] * 8], jobs=2)
    next(results); ready(); next(results)
""",
    "worker processes that start": """
import joblib, joblib.externals.loky
def work():
    ready(); list(parallel.map(time.sleep, [60.0] * 4, jobs=2))
""",
    "worker processes in a C function": """
import hashlib
from functools import partial
def work():
    hashing = partial(hashlib.pbkdf2_hmac, "sha256", b"a", b"b")
    results = parallel.map(hashing, [1, *[2_000_000_000] * 3], jobs=2)
    next(results); ready(); next(results)
""",
    "an import": """
def work():
    sys.path.insert(0, os.environ["FOLDER"])
    ready(); import slow
""",
    "an import that survives everything": """
def work():
    sys.path.insert(0, os.environ["FOLDER"])
    ready(); import stubborn
""",
    "a pipe that nobody reads": """
def work():
    ready()
    while True: print("x" * 999)
""",
    "__del__": """
class Slow:
    def __del__(self):
        ready(); time.sleep(60)
def work():
    Slow(); time.sleep(60)
""",
    "another error while unwinding": """
def work():
    try:
        ready(); time.sleep(60)
    finally:
        raise ValueError("a consequence")
""",
}
STUBBORN = """
import time
while True:
    try: time.sleep(60)
    except BaseException: pass
"""


@dataclass(frozen=True)
class End:
    """How a process ended: its code, s after the signal, its output, and what it left behind."""

    code: int
    seconds: float
    out: str
    err: str
    left: list[str]


def start(text, *arguments, **options):
    """A process in a session of its own, by which what it leaves behind is found."""
    line = [sys.executable, "-c", text, *arguments]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, bufsize=0, start_new_session=True, **options)


def until_ready(process):
    assert process.stdout.readline() == b"ready\n", process.communicate()


def session(number):
    """Command lines of the living processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == number and state not in "ZX":
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def left(number):
    """Those that still live after a second, which the helper of joblib needs to tidy up."""
    until = time.monotonic() + 1.5
    while (found := session(number)) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def end(process, *numbers, group=False, pause=0.0):
    """Send signals and wait for the end."""
    sent = time.monotonic()
    for number in numbers:
        (os.killpg if group else os.kill)(process.pid, number)
        time.sleep(pause)
    process.wait(timeout=30)
    seconds = time.monotonic() - sent
    out, err = process.communicate(timeout=10)
    return End(process.returncode, seconds, out.decode(), err.decode(), left(process.pid))


def run(body, *numbers, arguments=("run",), folder=Path(), group=False, pause=0.0):
    process = start(COMMAND.format(body=body), *arguments, env=os.environ | {"FOLDER": str(folder)})
    until_ready(process)
    return end(process, *numbers, group=group, pause=pause)


def message(number, saved="What is finished is saved.", command="mmmos run"):
    return f"{WORDS[number]}\n{saved} The same command goes on from there:\n    {command}\n"


def ends(body, numbers=tuple(WORDS), *, folder=Path(), group=False):
    """How a command ends by each of some signals."""
    with ThreadPoolExecutor(3) as pool:
        started = {number: pool.submit(run, body, number, folder=folder, group=group) for number in numbers}
    return {number: each.result() for number, each in started.items()}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_signal_ends_a_command_in_time_whatever_it_does(situation, tmp_path):
    (tmp_path / "slow.py").write_text("import time\nwhile True: time.sleep(0.01)\n")
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    for number, got in ends(SITUATIONS[situation], folder=tmp_path).items():
        assert (got.code, got.err, got.left) == (128 + number, message(number), [])
        assert got.seconds < LIMIT


@pytest.mark.parametrize("situation", [name for name in SITUATIONS if "process" in name])
def test_a_signal_of_the_terminal_to_all_processes_is_answered_by_one(situation):
    for number, got in ends(SITUATIONS[situation], (INT, HUP), group=True).items():
        assert (got.code, got.err, got.left) == (128 + number, message(number), [])
        assert got.seconds < LIMIT


def test_what_is_saved_and_the_command_are_shown_as_typed():
    body = 'def work():\n    progress.saved("128 of 400 clips are stored.")\n    ready(); time.sleep(60)\n'
    typed = ["features", "extract", "a b.csv", "--quiet", "--store", "it's"]
    command = "mmmos features extract 'a b.csv' --quiet --store 'it'\"'\"'s'"
    got = run(body, TERM, arguments=typed)
    assert got.err == message(TERM, "128 of 400 clips are stored.", command)


def test_finished_work_is_stored_on_the_way_out(tmp_path):
    body = """
def work():
    try:
        ready(); time.sleep(60)
    finally:
        time.sleep(0.3)
        progress.saved("All is stored.")
        print("stored")
"""
    got = run(body, TERM)
    assert got.out == "stored\n" and got.err == message(TERM, "All is stored.") and got.seconds < 1.2


def test_a_second_signal_ends_at_once():
    body = SITUATIONS["threads that are waited for"]
    got = run(body, INT, INT, pause=0.5)
    assert got.code == 130 and got.err == message(INT) and got.seconds < 1.4


def test_signals_at_the_same_time_are_one():
    body = 'def work():\n    try: ready(); time.sleep(60)\n    finally: time.sleep(0.5); print("stored")\n'
    got = run(body, TERM, INT, TERM, HUP)
    assert got.code in {143, 130} and got.out == "stored\n" and got.err.count("The same command") == 1


def test_a_traceback_comes_with_debug():
    got = run(SITUATIONS["sleeping"], INT, arguments=["run", "--debug"])
    assert got.code == 130 and "Traceback" in got.err and message(INT, command="mmmos run --debug")[-40:] in got.err


@pytest.mark.parametrize("number", [INT, HUP])
def test_an_ignored_signal_stays_ignored(number):
    body = f"signal.signal({number:d}, signal.SIG_IGN)\ndef work():\n    ready(); time.sleep(0.5); print('done')\n"
    got = run(body, number)
    assert (got.code, got.out, got.err) == (0, "done\n", "")


def test_after_the_command_a_signal_ends_the_interpreter_silently():
    body = "def work():\n    threading.Thread(target=lambda: (time.sleep(0.4), ready(), time.sleep(60))).start()\n"
    got = run(body, INT)
    assert got.code == -INT and got.err == "" and got.seconds < 1


@pytest.mark.parametrize("thread", [False, True])
def test_a_forked_process_does_not_speak_for_its_parent(thread):
    body = f"""
def fork():
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.2); os.kill(child, signal.SIGTERM)
    code = os.waitpid(child, 0)[1]
    time.sleep(0.3); ready(); print(code)
def work():
    if {thread}:
        forking = threading.Thread(target=fork); forking.start(); forking.join()
    else:
        fork()
"""
    got = run(body, 0)
    assert (got.code, got.out, got.err) == (0, f"{int(TERM)}\n", "")


def test_the_terminal_is_left_clean():
    body = """
progress._DELAY = 0.0
def work():
    for number in progress.track(range(9), 9, "working"):
        if number == 3: ready()
        time.sleep(0.1 if number < 4 else 60)
"""
    terminal, other = pty.openpty()
    process = start(COMMAND.format(body=body), "run", stderr=other, env=os.environ | {"TERM": "xterm"})
    os.close(other)
    until_ready(process)
    time.sleep(0.3)
    process.send_signal(INT)
    shown = b""
    while select.select([terminal], [], [], 5)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:
            break
    assert process.wait(10) == 130
    process.stdout.close()
    os.close(terminal)
    before, word, after = shown.partition(b"Interrupted.")
    erased = before.rpartition(b"working")[2]
    assert b"\x1b[2K" in erased and b"\x1b[?25h" in erased and before.count(b"\x1b[?25l") == 1
    assert word and b"working" not in after and b"\x1b[?25l" not in after


LIBRARY = """
import contextlib, os, signal, sys, threading, time
from mmmos import parallel
signal.signal(signal.SIGINT, signal.default_int_handler)
{body}
"""


def test_the_library_installs_no_handlers():
    body = "import mmmos.cli\nprint(signal.getsignal(15) is signal.SIG_DFL, signal.set_wakeup_fd(-1))"
    line = [sys.executable, "-c", LIBRARY.format(body=body)]
    assert subprocess.run(line, capture_output=True, text=True).stdout == "True -1\n"


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("jobs", [1, 2])
def test_in_the_library_ctrl_c_is_a_keyboard_interrupt(jobs, group):
    body = f"""
with contextlib.closing(parallel.map(time.sleep, [0.0, *[60.0] * 5], jobs={jobs})) as results:
    next(results); os.write(1, b"ready\\n"); next(results)
"""
    process = start(LIBRARY.format(body=body))
    until_ready(process)
    got = end(process, INT, group=group)
    assert got.code == -INT and got.err.rstrip().endswith("KeyboardInterrupt") and got.err.count("Traceback") == 1
    assert got.left == [] and got.seconds < LIMIT


def test_threads_ahead_do_not_keep_the_interpreter_alive():
    body = """
def slow(item):
    yield item
    time.sleep(60)
for _, results in parallel.ahead(slow, range(3), threads=2):
    next(results); os.write(1, b"ready\\n"); next(results)
"""
    process = start(LIBRARY.format(body=body))
    until_ready(process)
    got = end(process, INT)
    assert got.code == -INT and got.seconds < LIMIT


@pytest.mark.parametrize("situation", ["worker processes", "worker processes in a C function"])
def test_workers_end_with_a_parent_that_is_killed(situation):
    got = run(SITUATIONS[situation], signal.SIGKILL)
    assert got.code == -signal.SIGKILL and got.left == [] and got.err == ""


def test_a_reader_that_goes_away_is_no_error():
    body = "def work():\n    ready()\n    while True: print('x' * 999)\n"
    process = start(COMMAND.format(body=body), "run")
    until_ready(process)
    process.stdout.close()
    assert process.wait(10) == 0 and process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_ends_a_real_run(tmp_path, number):
    text = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from mmmos.cli import main; main()"
    process = start(text, "demo", "work", "--jobs", "1", cwd=tmp_path)
    while not (tmp_path / "work" / "corpus.json").exists() and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    got = end(process, number)
    assert got.code == 128 + number and got.err.endswith("    mmmos demo work --jobs 1\n") and got.seconds < LIMIT
    assert "Traceback" not in got.err and got.left == []


def test_grace_leaves_time_for_last_words():
    assert signals.GRACE + 2 * signals.LAST_WORDS < 2


def test_without_a_thread_to_spare_the_process_still_ends():
    body = """
def refuse(*_): raise RuntimeError("can't start new thread")
def work():
    threading.Thread.start = refuse
    ready(); time.sleep(60)
"""
    got = run(body, TERM)
    assert got.code == 143 and got.seconds < LIMIT
