"""Holding a plug-in to its promises."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from inspect import getdoc
from typing import TypeVar

Subject = TypeVar("Subject")


def hold(subject: Subject, promises: Iterable[Callable[[Subject], None]]) -> None:
    """Call each promise with the subject; raise one ``AssertionError`` that names all broken ones and says how."""
    faults = []
    for promise in promises:
        try:
            promise(subject)
        except AssertionError as fault:
            faults.append(f"{promise.__name__}: {fault}")
        except Exception as error:
            faults.append(f"{promise.__name__}: {type(error).__name__}: {error} ({getdoc(promise)})")
    if faults:
        raise AssertionError("\n".join(faults))


@contextmanager
def unchanged_process(what: str) -> Iterator[None]:
    """Raise ``AssertionError`` when ``what`` is done inside and changes random states or settings of the process."""
    import numpy as np
    import torch

    def state() -> dict[str, object]:
        legacy = np.random.get_state()  # noqa: NPY002
        return {
            "the random state": torch.get_rng_state().tolist(),
            "the random state of numpy": [str(np.asarray(part).tolist()) for part in legacy],
            "the random state of Python": random.getstate(),
            "the default dtype": torch.get_default_dtype(),
            "the number of threads": torch.get_num_threads(),
            "the gradient mode": torch.is_grad_enabled(),
        }

    # A seed of our own: one that the plug-in sets is another.
    with random_states(20_250_601):
        before = state()
        yield
        changed = [name for name, value in state().items() if value != before[name]]
    assert not changed, f"{what} changed {', '.join(changed)}"


@contextmanager
def random_states(seed: int) -> Iterator[None]:
    """Inside, the random states of torch, numpy and Python are those of a seed."""
    import numpy as np
    import torch

    of_python, of_numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002
