"""Contrasts: weights over the runs of a pool whose weighted sum of qualities is an effect.

Runs match when they have the same level of every other factor. A factor may not apply to a run (a head with a criterion
of its own has no loss): then it does not keep two runs apart. Options belong to their head and loss, and do not keep
two heads or two losses apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.heads import own_loss
from mmmos.ensembles.spec import HeadSpec

Array = NDArray[np.float64]
Levels = Mapping[str, Sequence[str | None]]

# The factor whose levels are single feature sets, valued over all subsets.
ENCODER = "encoder"

# Factors that belong to a level of another, by how their names begin.
_NESTED = {"head": ("options.", "loss_options."), "loss": ("loss_options.",)}

UNMATCHED = "no head of another level is the same in all other factors"
UNBALANCED = "heads differ in other factors too"
INCOMPLETE = 'not every subset of the feature sets is there; write features = "subsets"'


@dataclass(frozen=True)
class Contrast:
    """``weights`` (runs + 1,), the last one of a constant prediction, NaN where nothing can be said; ``runs``: how many
    of the level have a part; ``note``: why nothing, or what to mind.
    """

    factor: str
    level: str
    weights: Array
    runs: int
    note: str = ""


def factors_of(specs: Sequence[HeadSpec]) -> dict[str, list[str | None]]:
    """The level (runs,) of each factor that varies: fields of specs and their options; None where it does not apply.

    An option is a factor where it varies among runs of one head, an option of a loss among those of one loss.
    """
    table = [_levels(spec) for spec in specs]
    names = dict.fromkeys(name for row in table for name in row)
    levels = {name: [row.get(name) for row in table] for name in names}
    return {name: values for name, values in levels.items() if _varies(name, values, levels)}


def _varies(name: str, values: Sequence[str | None], levels: Levels) -> bool:
    owner = {"options": "head", "loss_options": "loss"}.get(name.partition(".")[0])
    owners = levels[owner] if owner else [""] * len(values)
    pairs = {pair for pair in zip(owners, values, strict=True) if pair[1] is not None}
    return len(pairs) > len({own for own, _ in pairs})


def _levels(spec: HeadSpec) -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "features": "+".join(spec.features),
        "layers": spec.layers if isinstance(spec.layers, str) else "+".join(spec.layers),
        "normalise": spec.normalise,
        "samples": spec.samples,
        "head": spec.head,
        "loss": None if own_loss(spec.head) else spec.loss,
    }
    known = {"head", "features", "layers", "normalise", "samples", "loss", "axes", "options", "loss_options"}
    rest = spec.model_dump(mode="json", exclude=known)
    found |= {name: f"{value:g}" if isinstance(value, float) else str(value) for name, value in rest.items()}
    found |= {f"loss_options.{name}": str(value) for name, value in spec.loss_options.items()}
    return found | {f"options.{name}": str(value) for name, value in spec.options.items()}


def marginal(levels: Levels, factor: str) -> list[Contrast]:
    """For each level of a factor: the mean over its runs of their quality minus that of the runs they match, of every
    other level alike. Where no run has a match there is one contrast, of the level "any".
    """
    names = distinct(levels[factor])
    own = np.array([names.index(level) if level is not None else len(names) for level in levels[factor]])
    alike = _alike(levels, factor).astype(np.float32)
    counts = alike @ np.eye(len(names) + 1, dtype=np.float32)[own]
    counts[np.arange(len(own)), own] = 0
    counts[:, -1] = 0
    found = (counts > 0).sum(axis=1)
    if not found[own < len(names)].any():
        return [Contrast(factor, "any", np.full(len(own) + 1, np.nan), 0, UNMATCHED)]
    return [
        _against_others(factor, level, np.flatnonzero((own == number) & (found > 0)), own, alike, counts)
        for number, level in enumerate(names)
    ]


def _against_others(
    factor: str,
    level: str,
    rows: NDArray[np.int64],
    own: NDArray[np.int64],
    alike: NDArray[np.float32],
    counts: NDArray[np.float32],
) -> Contrast:
    """The contrast of a level whose runs ``rows`` have matches: ``counts`` (runs, levels + 1) of them."""
    if not len(rows):
        return Contrast(factor, level, np.full(len(own) + 1, np.nan), 0, UNMATCHED)
    counts = counts[rows].astype(np.float64)
    of_levels = counts * (counts > 0).sum(axis=1, keepdims=True)
    share = np.divide(1, of_levels, out=np.zeros(counts.shape), where=counts > 0)
    weights = np.zeros(len(own) + 1)
    weights[rows] = 1 / len(rows)
    weights[:-1] -= (alike[rows] * share[:, own]).mean(axis=0)
    return Contrast(factor, level, weights, len(rows))


def _alike(levels: Levels, factor: str) -> NDArray[np.bool_]:
    """True (runs, runs) for two runs whose other factors do not keep them apart."""
    runs = len(levels[factor])
    alike = np.ones((runs, runs), dtype=bool)
    for name in others(levels, factor):
        own = np.unique([str(value) for value in levels[name]], return_inverse=True)[1]
        free = np.array([value is None for value in levels[name]])
        alike &= (own[:, None] == own) | free[:, None] | free
    return alike


def others(levels: Levels, factor: str) -> list[str]:
    """The factors that two runs must share to differ in this one alone."""
    return [name for name in levels if name != factor and not name.startswith(_NESTED.get(factor, ("\0",)))]


def shapley(specs: Sequence[HeadSpec], levels: Levels) -> list[Contrast]:
    """The Shapley value of each feature set (Shapley, 1953) over all subsets, where the empty one is a constant
    prediction; averaged over those combinations of the other factors that have every subset.
    """
    names = list(dict.fromkeys(name for spec in specs for name in spec.features))
    runs = len(specs)
    contexts = _contexts(levels, others(levels, "features"), runs)
    full = 2 ** len(names) - 1
    tables = [{frozenset(specs[run].features): run for run in group} for group in contexts]
    complete = [table for table in tables if len(table) == full]
    if not complete:
        return [Contrast(ENCODER, name, np.full(runs + 1, np.nan), 0, INCOMPLETE) for name in names]
    weights = {name: np.zeros(runs + 1) for name in names}
    for table in complete:
        for name, size in ((name, size) for name in names for size in range(len(names))):
            part = 1 / (len(complete) * len(names) * comb(len(names) - 1, size))
            for without in combinations([other for other in names if other != name], size):
                weights[name][table[frozenset({*without, name})]] += part
                weights[name][table[frozenset(without)] if without else -1] -= part
    return [Contrast(ENCODER, name, own, full * len(complete)) for name, own in weights.items()]


def balanced(levels: Levels, factor: str) -> list[Contrast]:
    """The mean quality of each level's runs over those combinations of the other factors that have every level; over
    all of its runs, with a note, where no combination has.
    """
    own = levels[factor]
    names = [name for name in others(levels, factor) if not (factor == "head" and name == "loss")]
    wanted = distinct(own)
    grouped = [[run for run in group if own[run] is not None] for group in _contexts(levels, names, len(own))]
    complete = [group for group in grouped if {own[run] for run in group} == set(wanted)]
    note = "" if complete else UNBALANCED
    groups = complete or [[run for run, level in enumerate(own) if level is not None]]
    return [_mean_of(factor, level, own, groups, note) for level in wanted]


def _mean_of(
    factor: str, level: str, own: Sequence[str | None], groups: Sequence[Sequence[int]], note: str
) -> Contrast:
    weights = np.zeros(len(own) + 1)
    runs = 0
    for group in groups:
        some = [run for run in group if own[run] == level]
        weights[some] += 1 / (len(groups) * len(some))
        runs += len(some)
    return Contrast(factor, level, weights, runs, note)


def distinct(levels: Sequence[str | None]) -> list[str]:
    """The levels that occur, in the order of their first run."""
    return [level for level in dict.fromkeys(levels) if level is not None]


def _contexts(levels: Levels, names: Sequence[str], runs: int) -> list[list[int]]:
    """Runs that share the levels of some factors."""
    found: dict[tuple[str | None, ...], list[int]] = {}
    for run in range(runs):
        found.setdefault(tuple(levels[name][run] for name in names), []).append(run)
    return list(found.values())
