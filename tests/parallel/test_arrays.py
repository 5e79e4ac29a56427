"""Large arrays: written once, looked at by all."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mmmos import parallel
from mmmos.parallel.arrays import LARGE, SharedArrays


def rebuilt(reduced):
    function, arguments = reduced[0], reduced[1]
    return function(*arguments)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int64", "S16"])
def test_a_large_array_is_mapped_from_one_file(dtype, order):
    shared = SharedArrays()
    array = np.asarray((np.arange(LARGE) % 99).reshape(1024, -1), dtype, order=order)
    found, again = rebuilt(shared(array)), rebuilt(shared(array))
    np.testing.assert_array_equal(found, array)
    assert (found.dtype, found.flags.writeable) == (array.dtype, False)
    assert found.filename == again.filename
    shared.clear()
    assert not Path(found.filename).parent.exists()


@pytest.mark.parametrize("array", [np.arange(3.0), np.array(["a", None] * LARGE, object)], ids=["small", "objects"])
def test_small_arrays_and_objects_are_sent(array):
    shared = SharedArrays()
    assert shared(array)[0] is array.__reduce__()[0]
    shared.clear()


def test_an_array_in_the_place_of_another_one_is_another_file():
    shared = SharedArrays()
    names = set()
    for value in range(5):
        array = np.full(LARGE, value, np.uint8)
        names.add(rebuilt(shared(array)).filename)
        del array
    assert len(names) == 5
    shared.clear()


def test_processes_map_the_large_arguments_of_a_partial(worker_tasks):
    task = partial(worker_tasks.kind_and_sum, np.ones(LARGE, np.uint8))
    found = sorted(parallel.map(task, [0, 1], jobs=2))
    assert found == [("memmap", LARGE), ("memmap", LARGE + 1)]
