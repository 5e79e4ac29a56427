"""Compiling loops with numba, whose machine code is kept on disk where a folder for it can be written."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(function: Callable[..., Any]) -> Any:
    """A function compiled at its first call, without the GIL; read from numba's cache when it was compiled before.

    Numba looks for a place beside the module, then in the user's cache folder. Where neither can be written, as in a
    container without a home, nothing is kept.
    """
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return njit(nogil=True)(function)
