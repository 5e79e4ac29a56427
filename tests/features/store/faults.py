"""What can go wrong between a store and its disk, on purpose: a call that kills, fails or does half, a power cut.

The calls of ``os``, ``io.open`` and ``mmap`` that reach into one folder are counted; the n-th is met by a fault. The
recorder notes those that change something and rebuilds the folder as a power cut may leave it.
"""

import errno
import io
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from mmmos import files
from mmmos.features.store import reading

SOAK = int(os.environ.get("MMMOS_SOAK", "1"))
KILLED = 137
ERRNOS = [getattr(errno, name) for name in ["ENOSPC", "EIO", "EACCES", "EMFILE", "ESTALE", "EINTR", "EROFS", "EDQUOT"]]

_PATHS = ("open", "replace", "rename", "unlink", "mkdir", "rmdir", "scandir", "stat")
_DESCRIPTORS = ("write", "fsync", "close", "fstat")
_real = {name: getattr(os, name) for name in (*_PATHS, *_DESCRIPTORS)}
_open, _mmap = io.open, reading.mmap


class Interrupted(BaseException):
    """A kill, in a test that goes on."""


class _File(io.FileIO):
    """A file whose reads are counted."""

    calls: "Calls"

    def read(self, size=-1, /):
        some = size // 2 or size
        return self.calls.meet("read", lambda: super(_File, self).read(size), (lambda: super(_File, self).read(some),))

    def readinto(self, buffer, /):
        some = memoryview(buffer)[: len(buffer) // 2 or len(buffer)]
        less = (lambda: super(_File, self).readinto(some),)
        return self.calls.meet("readinto", lambda: super(_File, self).readinto(buffer), less)

    def readall(self):
        return self.calls.meet("readall", super().readall)


class Calls:
    """Counts the calls that reach into a folder, or those of the names ``only``.

    ``fault(name, call, arguments)`` is run instead of the ``at``-th.
    """

    def __init__(self, root, at=0, fault=None, only=()):
        self.root, self.at, self.fault, self.only = os.fspath(root), at, fault, only
        self.count, self.names = 0, []
        self.descriptors = {}

    def meet(self, name, call, arguments=()):
        if self.only and name not in self.only:
            return call()
        self.count += 1
        self.names.append(name)
        if self.count == self.at:
            return self.fault(name, call, arguments)
        return call()

    def _about(self, path):
        return isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)

    def _by_path(self, name):
        def call(path, *more, **options):
            if not self._about(path):
                return _real[name](path, *more, **options)
            found = self.meet(name, lambda: _real[name](path, *more, **options), (path, *more))
            if name == "open":
                self.descriptors[found] = os.fspath(path)
            return found

        return call

    def _by_descriptor(self, name):
        def call(descriptor, *more):
            if descriptor not in self.descriptors:
                return _real[name](descriptor, *more)
            if name == "close":
                path = self.descriptors.pop(descriptor)
                return self.meet(name, lambda: _real[name](descriptor), (descriptor, path))
            return self.meet(name, lambda: _real[name](descriptor, *more), (descriptor, *more))

        return call

    def open(self, path, mode="r", buffering=-1, *more, **options):
        if not self._about(path) or mode != "rb":
            return _open(path, mode, buffering, *more, **options)
        file = self.meet("io.open", lambda: _File(path))
        file.calls = self
        return file if buffering == 0 else io.BufferedReader(file)

    def mmap(self, *arguments, **options):
        return self.meet("mmap", lambda: _mmap(*arguments, **options))

    @contextmanager
    def watched(self):
        """Count from here to the end; the process begins without memory of which folders are durable."""
        patches = [mock.patch.object(os, name, self._by_path(name)) for name in _PATHS]
        patches += [mock.patch.object(os, name, self._by_descriptor(name)) for name in _DESCRIPTORS]
        patches += [mock.patch.object(io, "open", self.open), mock.patch.object(reading, "mmap", self.mmap)]
        patches += [mock.patch.object(files, "_kept", {Path(self.root).parent.absolute()})]
        for patch in patches:
            patch.start()
        try:
            yield self
        finally:
            for patch in reversed(patches):
                patch.stop()


def count_calls(root, job):
    """The calls of a job that goes well."""
    with Calls(root).watched() as calls:
        job()
    return calls.count


def kill(name, call, arguments):
    """The process ends before the call."""
    os._exit(KILLED)


def tear(name, call, arguments):
    """The process ends in the middle of a write."""
    halve(name, call, arguments)
    os._exit(KILLED)


def failing(number):
    """A call that fails with an error of the system; a file is closed all the same."""

    def fail(name, call, arguments):
        if name == "close":
            call()
        raise OSError(number, os.strerror(number))

    return fail


def halve(name, call, arguments):
    """A write or a read that does less than it was asked to."""
    if name == "write":
        return _real["write"](arguments[0], memoryview(arguments[1])[: max(1, len(arguments[1]) // 2)])
    return arguments[0]() if name in ("read", "readinto") else call()


def interrupt(name, call, arguments):
    """As a kill, in a process that goes on: nothing of what follows is done."""
    raise Interrupted


def killed(job, root, at, fault=kill, only=()):
    """Run ``job(acknowledge)`` in a forked process and meet its ``at``-th call.

    Returns what it had acknowledged, and whether it came to its end. Raises ``AssertionError`` when it failed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with Calls(root, at, fault, only).watched():
                job(lambda number: _real["write"](writing, b"%d\n" % number))
            code = 0
        except BaseException as error:
            _real["write"](writing, f"{error!r}\n".encode())
        finally:
            os._exit(code)
    os.close(writing)
    with _open(reading) as pipe:
        lines = pipe.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED), lines
    return [int(line) for line in lines], code == 0


@dataclass
class _Content:
    """A file's bytes: durable ones, and writes (offset, data) that are not yet."""

    durable: bytes = b""
    pending: list = field(default_factory=list)

    def all(self):
        return _written(self.durable, self.pending)


def _written(content, writes):
    content = bytearray(content)
    for offset, data in writes:
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
    return bytes(content)


class Recorder(Calls):
    """Notes what changes a folder, and what a job acknowledges between."""

    def __init__(self, root, at=0, fault=None):
        super().__init__(root, at, fault)
        self.log = []
        self.dead = False

    def acknowledge(self, number):
        """To be called by the job."""
        self.log.append(("acknowledge", number))

    def meet(self, name, call, arguments=()):
        if self.dead:
            raise Interrupted
        try:
            found = super().meet(name, call, arguments)
        except Interrupted:
            self.dead = True
            raise
        if name == "open" and arguments[1] & os.O_CREAT:
            self.log.append(("create", self._name(arguments[0])))
        elif name == "write":
            self.log.append(("write", self._name(self.descriptors[arguments[0]]), bytes(arguments[1][:found])))
        elif name == "fsync":
            self.log.append(("fsync", self._name(self.descriptors[arguments[0]])))
        elif name in ("replace", "rename"):
            self.log.append(("rename", self._name(arguments[0]), self._name(arguments[1])))
        elif name in ("unlink", "mkdir"):
            self.log.append((name, self._name(arguments[0])))
        return found

    def _name(self, path):
        return os.path.relpath(path, self.root)


class Disk:
    """A folder as the log of a recorder leaves it: what is durable, and what may be after a power cut."""

    def __init__(self, log, before=None):
        """``before``: content of the files that were durable at first, by name."""
        self.files = {name: _Content(data) for name, data in (before or {}).items()}
        self.names, self.created = dict(self.files), {}
        self.durable = dict(self.files)
        self.folders = {str(folder) for name in [*self.files, "."] for folder in [Path(), *Path(name).parents]}
        self.durable |= dict.fromkeys(self.folders - {"."}, "folder")
        self.pending = []
        self.acknowledged = []
        for operation in log:
            self.apply(*operation)

    def apply(self, kind, name, more=None):
        if kind == "acknowledge":
            self.acknowledged.append(name)
        elif kind == "create":
            # A descriptor is known by the name that it was opened by, also when the file has another one now.
            self.names[name] = self.created[name] = _Content()
            self.pending.append({name: self.names[name]})
        elif kind == "write":
            content = self.created[name]
            content.pending.append((len(content.all()), more))
        elif kind == "rename":
            self.names[more] = self.names.pop(name)
            self.pending.append({name: None, more: self.names[more]})
        elif kind == "unlink":
            del self.names[name]
            self.pending.append({name: None})
        elif kind == "mkdir":
            self.folders.add(name)
            self.pending.append({name: "folder"})
        elif name in self.folders:
            kept = []
            for change in self.pending:
                if all(str(Path(each).parent) == name for each in change):
                    self._change(self.durable, change)
                else:
                    kept.append(change)
            self.pending = kept
        elif name in self.created:
            content = self.created[name]
            content.durable, content.pending = content.all(), []

    @staticmethod
    def _change(names, change):
        for name, content in change.items():
            if content is None:
                names.pop(name, None)
            else:
                names[name] = content

    def states(self, random, count):
        """Folders that a power cut may leave, as content of the files by name: the least, the most, and some between.

        Changes of names that were not synced happen or not, each by itself; so do writes, which may also be torn.
        """
        seen = set()
        for number in range(count):
            names = dict(self.durable)
            for change in self.pending:
                if number == 1 or (number > 1 and random.random() < 0.5):
                    self._change(names, change)
            state = {}
            for name, content in names.items():
                if content == "folder" or not self._reachable(name, names):
                    continue
                writes = content.pending if number == 1 else []
                if number > 1:
                    writes = [(at, self._torn(random, data)) for at, data in content.pending if random.random() < 0.7]
                state[name] = _written(content.durable, writes)
            print_of = tuple(sorted((name, hash(data)) for name, data in state.items()))
            if print_of not in seen:
                seen.add(print_of)
                yield state

    @staticmethod
    def _torn(random, data):
        return data if random.random() < 0.6 else data[: random.randrange(len(data) + 1)]

    @staticmethod
    def _reachable(name, names):
        return all(names.get(str(folder)) == "folder" for folder in Path(name).parents if str(folder) != ".")


def content_of(root):
    """The files below a folder, by name."""
    return {str(path.relative_to(root)): path.read_bytes() for path in Path(root).rglob("*") if path.is_file()}


def build(root, state):
    """Make a folder of files by name."""
    for name, data in state.items():
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
