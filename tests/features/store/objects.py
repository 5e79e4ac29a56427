"""Object stores made for tests: one in memory whose calls are counted and fail on purpose, and one that speaks S3."""

from contextlib import contextmanager
from unittest import mock

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class Faulty(MemoryFileSystem):
    """Objects in the memory of this process, apart from those of ``memory://``.

    ``fault(name, call, path)`` is run instead of the ``at``-th call, and of all later ones where it is ``lasting``.
    ``old``: listings, by path, that are given instead of those of now.
    """

    protocol = "faulty"
    cachable = False
    store, pseudo_dirs = {}, [""]
    at, fault, lasting, count, names, old = 0, None, False, 0, [], {}

    @classmethod
    def reset(cls, at=0, fault=None, lasting=False):
        cls.at, cls.fault, cls.lasting, cls.count, cls.names, cls.old = at, fault, lasting, 0, [], {}

    @classmethod
    def empty(cls):
        cls.reset()
        cls.store.clear()
        cls.pseudo_dirs[:] = [""]

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("faulty://", "memory://", 1))

    def _meet(self, name, call, path):
        cls = type(self)
        cls.count += 1
        cls.names.append(name)
        if cls.at and (cls.count == cls.at or (cls.lasting and cls.count > cls.at)):
            return cls.fault(name, call, self._strip_protocol(path))
        return call()

    def ls(self, path, detail=True, **options):
        def look():
            now = super(Faulty, self).ls(path, detail=detail, **options)
            return type(self).old.get(self._strip_protocol(path), now)

        return self._meet("ls", look, path)

    def cat_file(self, path, start=None, end=None, **options):
        return self._meet("cat_file", lambda: super(Faulty, self).cat_file(path, start=start, end=end), path)

    def get_file(self, rpath, lpath, **options):
        return self._meet("get_file", lambda: super(Faulty, self).get_file(rpath, lpath), rpath)

    def put_file(self, lpath, rpath, **options):
        return self._meet("put_file", lambda: super(Faulty, self).put_file(lpath, rpath), rpath)

    def rm_file(self, path):
        return self._meet("rm_file", lambda: super(Faulty, self).rm_file(path), path)


fsspec.register_implementation("faulty", Faulty, clobber=True)


def refuse(name, call, path):
    """The call fails and does nothing."""
    raise ConnectionError("the line is dead")


def lose_the_answer(name, call, path):
    """The call does all that it should, and nobody hears of it."""
    call()
    raise TimeoutError("no answer")


def tear(name, call, path):
    """A put leaves half an object under its final name, as no object store would; another call fails."""
    if name == "put_file":
        call()
        data = Faulty.store[path].getvalue()
        Faulty.store[path].seek(0)
        Faulty.store[path].truncate(len(data) // 2)
    raise ConnectionResetError("the line went dead")


@contextmanager
def s3(bucket):
    """A server that speaks S3 on this machine, its address and credentials in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    about = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        with mock.patch.dict("os.environ", about):
            fsspec.filesystem("s3").mkdir(bucket)
            yield f"s3://{bucket}"
    finally:
        server.stop()
