"""A selector under test, and pools of simulated predictions."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import weights_of
from mmmos.ensembles.selectors import Selection
from mmmos.ensembles.spec import HeadSpec

AXES = ("PQ", "PC")
SETS = ("dev", "pam", "eval")
CLIPS = 24

Array = NDArray[np.float64]
Selector = Callable[..., Selection]


class Subject:
    """The selector under test, and pools of simulated predictions."""

    def __init__(self, selector: Selector, parameters: Mapping[str, Any]) -> None:
        self.selector, self.parameters = selector, dict(parameters)
        self.known = inspect.signature(selector).parameters

    def choose(self, pool: Pool, **parameters: Any) -> Selection:
        """What is chosen, checked to be a Selection."""
        found = self.selector(pool, **(self.parameters | parameters))
        assert isinstance(found, Selection), f"a selector gives a Selection; got {type(found).__name__}"
        return found

    def weights(self, pool: Pool, **parameters: Any) -> Array:
        """The weights (runs, axes) of all runs, 0 for those that are not chosen."""
        found = self.choose(pool, **parameters)
        every = np.zeros((len(pool), len(pool.axes)))
        every[found.members] = found.weights
        return every

    @property
    def looks_at(self) -> tuple[str, ...]:
        """The sets whose truth it looks at by itself."""
        return tuple(weights_of(self.known["on"].default)) if "on" in self.known else ()

    @property
    def draws(self) -> bool:
        """True for a selector with a seed, which may draw runs by their positions."""
        return "seed" in self.known


def pool(runs: int = 12, seed: int = 0, axes: tuple[str, ...] = AXES, decimals: int | None = None) -> Pool:
    """Runs that are the truth and noise of their own, on each set of another size; ``decimals`` makes ties."""
    rng = np.random.default_rng(seed)
    truth = {name: rng.normal(5, 1, (CLIPS, len(axes))) for name in SETS}
    noise = {name: rng.permutation(np.linspace(0.2, 3, runs))[:, None, None] for name in SETS}
    scores = {name: truth[name] + noise[name] * rng.normal(size=(runs, CLIPS, len(axes))) for name in SETS}
    if decimals is not None:
        truth = {name: values.round(decimals) for name, values in truth.items()}
        scores = {name: values.round(decimals) for name, values in scores.items()}
    return Pool(
        name="check",
        folder=Path(),
        data="",
        axes=axes,
        specs=tuple(HeadSpec(head="ridge", features=("a",), axes=axes, seed=number) for number in range(runs)),
        keys=tuple(f"run{number}" for number in range(runs)),
        ids={name: tuple(f"{name}{clip}" for clip in range(CLIPS)) for name in SETS},
        scores={name: values.astype(np.float32) for name, values in scores.items()},
        truth={name: truth[name] for name in SETS if name != "eval"},
        systems={name: np.array([f"s{clip % 6}" for clip in range(CLIPS)], object) for name in SETS},
    )


def with_truth(some: Pool, name: str, change: Callable[[Array], Array]) -> Pool:
    """A pool with other truth of a set."""
    return replace(some, truth=some.truth | {name: change(some.truth[name].copy())})


def with_scores(some: Pool, name: str, seed: int = 9) -> Pool:
    """A pool that predicts something else on a set, for its clips in another order."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(5, 1, some.scores[name].shape).astype(np.float32)
    return replace(some, scores=some.scores | {name: scores}, ids=some.ids | {name: some.ids[name][::-1]})


def without(some: Pool, name: str) -> Pool:
    """A pool that lacks a set."""

    def others(parts: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in parts.items() if key != name}

    return replace(
        some, ids=others(some.ids), scores=others(some.scores), truth=others(some.truth), systems=others(some.systems)
    )


def some_unknown(truth: Array) -> Array:
    """Truth with NaN for every fourth clip, and on the last axis for half of the clips."""
    truth[::4] = np.nan
    truth[: len(truth) // 2, -1] = np.nan
    return truth


def an_axis_unknown(truth: Array) -> Array:
    """Truth with NaN on the last axis."""
    truth[:, -1] = np.nan
    return truth
