"""Threads that encode on a CPU, in each of which torch computes with one thread of its own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock, Thread


@dataclass(frozen=True)
class Pool:
    """Threads that encode, and how many there are."""

    threads: ThreadPoolExecutor
    count: int


_lock = Lock()
_inside = 0
_before = 0


@contextmanager
def one_thread() -> Iterator[None]:
    """On a CPU, torch computes with one thread in every thread that begins to use it inside: sums in another order are
    other numbers.

    Threads may be inside at once and again; what the process allows is restored by the last. Another thread that used
    torch before, such as the caller, keeps its own number.
    """
    global _inside, _before
    import torch

    with _lock:
        _inside += 1
        if _inside == 1:
            # The caller's own number is decided when it is first asked for.
            torch.get_num_threads()
            _before = _in_fresh_thread(1)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _in_fresh_thread(_before)


def _in_fresh_thread(count: int) -> int:
    """Set the number of torch's threads for threads to come. Returns what it was.

    torch keeps a number for the process and one for each thread that has used it; setting it changes both.
    """
    import torch

    found: list[int] = []

    def change() -> None:
        found.append(torch.get_num_threads())
        torch.set_num_threads(count)

    thread = Thread(target=change, name="mmmos-torch")
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def threads(device: str, count: int = 1) -> Iterator[Pool | None]:
    """A pool of threads for a CPU, in each of which torch uses one thread, and so does the caller.

    None where one thread will do. A caller who leaves while others are inside stays with one.
    """
    import torch

    if device != "cpu":
        yield None
        return
    with one_thread():
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if count <= 1:
                yield None
                return
            pool = ThreadPoolExecutor(count, thread_name_prefix="mmmos-encode")
            try:
                yield Pool(pool, count)
            except BaseException:
                # What runs is not waited for: a window of a large encoder takes seconds.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            pool.shutdown()
        finally:
            with _lock:
                if _inside == 1:
                    torch.set_num_threads(before)
