"""Numbers that do not depend on the machine: one thread in torch and in BLAS, whose sums then have one order."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

_alone = RLock()


@contextmanager
def one_thread(pools: "ThreadpoolController | None" = None) -> Iterator[None]:
    """One thread in torch and in BLAS, for one caller at a time: what is limited is limited for the whole process.

    ``pools``: the libraries that are loaded, where they are known; looking for them takes milliseconds.
    """
    import torch
    from threadpoolctl import ThreadpoolController

    with _alone:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with (pools or ThreadpoolController()).limit(limits=1):
                yield
        finally:
            torch.set_num_threads(threads)
