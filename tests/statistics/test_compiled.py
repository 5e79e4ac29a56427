"""Loops compile wherever numba may or may not keep them."""

import numba
import pytest

from mmmos.statistics import compiled


def test_a_machine_without_a_place_for_a_cache_compiles_without(monkeypatch):
    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return numba.njit(**options)

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled.compiled(_twice)(21) == 42


@pytest.mark.parametrize("number", [1, 2.5])
def test_a_compiled_function_computes_as_in_python(number):
    assert compiled.compiled(_twice)(number) == _twice(number)


def _twice(number):
    return 2 * number
