"""Loops compile wherever numba may or may not keep them."""

import numba
import numpy as np
import pytest

from mmmos.statistics import compiled, kernels


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


@pytest.mark.parametrize("tau", [False, True])
def test_rank_correlations_are_those_of_the_same_loops_in_python(tau, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 90).astype(float), rng.integers(0, 500, 90).astype(float)
    levels, group = np.unique(y, return_inverse=True)
    counts = rng.multinomial(90, np.full(90, 1 / 90), 4)
    counts[0] = (y == y[0]) * 5  # one level only
    counts[1] = (x == x[0]) * 5
    models = np.stack([x, y, np.zeros(90), rng.normal(size=90)])
    over_counts = tau, x, np.argsort(x, kind="stable"), levels, group, counts
    over_models = tau, models, np.argsort(models, axis=1, kind="stable"), levels, group
    fast = kernels.over_counts(*over_counts), kernels.over_models(*over_models)
    for name, function in list(vars(kernels).items()):
        if hasattr(function, "py_func"):
            monkeypatch.setattr(kernels, name, function.py_func)
    slow = kernels.over_counts(*over_counts), kernels.over_models(*over_models)
    np.testing.assert_array_equal(slow, fast)
    assert np.isnan(fast[0][:2]).all() and np.isfinite(fast[0][2:]).all()
    assert np.isnan(fast[1][2]) and fast[1][1] == pytest.approx(1)


def _twice(number):
    return 2 * number
