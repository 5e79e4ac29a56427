"""An ensemble's predictions on the scale of a labelled set, such as the synthetic proxy: a line for each axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.ensembles.calibration import Calibration, fit, of_other_folds
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SEALED
from mmmos.ensembles.training.folds import grouped_folds
from mmmos.errors import UnknownName, UsageError

FOLDS = 5

# Labelled clips of a domain that a line of its own takes.
FEWEST = 10

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Anchoring:
    """Fitted lines: ``everything`` of all clips, ``domains`` of those domains that have lines of their own."""

    everything: Calibration
    domains: Mapping[str, Calibration] = field(default_factory=dict)

    def of(self, domain: str | None) -> Calibration:
        """The lines of a clip by its domain, those of all where it has none or is not known."""
        return self.domains.get(domain or "", self.everything)

    def __call__(self, scores: Array, domains: Sequence[str | None] | None = None) -> Array:
        """Scores (clips, axes) on the scale of the labelled set; ``domains`` (clips,)."""
        mapped = self.everything(scores)
        for name, lines in self.domains.items() if domains is not None else ():
            own = [row for row, domain in enumerate(domains or ()) if domain == name]
            mapped[own] = lines(scores[own])
        return mapped


def anchoring(pool: Pool, members: NDArray[np.int64], weights: Array, on: str, *, by_domain: bool = False) -> Anchoring:
    """The line for each axis that brings the predictions for a labelled set to its truth.

    Every rank is kept: an axis whose line does not rise is shifted alone. ``by_domain``: each domain of which ``on``
    holds 10 clips has lines of its own, so that ranks are kept within domains; other clips have those of all.
    Raises ``UsageError`` for the evaluation set as ``on``, ``UnknownName`` for a set without truth.
    """
    known, truth = _known(pool, members, weights, on), pool.truth[on]
    rows = _domain_rows(pool, on) if by_domain else {}
    return Anchoring(_lines(known, truth), {name: _lines(known[own], truth[own]) for name, own in rows.items()})


def anchored(
    pool: Pool, members: NDArray[np.int64], weights: Array, name: str, on: str, *, by_domain: bool = False
) -> pd.DataFrame:
    """``pool.mean`` of a set, mapped as by ``anchoring``; the clips of ``on`` by lines fitted to the other folds.

    Raises as ``anchoring``.
    """
    found = pool.mean(name, members, weights)
    if name != on:
        lines = anchoring(pool, members, weights, on, by_domain=by_domain)
        domains = list(pool.domains[name]) if name in pool.domains else None
        values = lines(found.to_numpy(), domains)
    else:
        known = _known(pool, members, weights, on)
        values = np.empty(known.shape)
        rows = _domain_rows(pool, on) if by_domain else {}
        # Later parts go before earlier ones.
        for own in (np.arange(len(known)), *rows.values()):
            values[own] = _of_other_folds(known[own], pool.truth[on][own], [pool.ids[on][row] for row in own])
    return pd.DataFrame(values, index=found.index, columns=found.columns)


def _known(pool: Pool, members: NDArray[np.int64], weights: Array, on: str) -> Array:
    """Predictions (clips, axes) for a labelled set that may be looked at."""
    if on in SEALED:
        raise UsageError(f"The set {on!r} is sealed: nothing is calibrated on it.")
    if on not in pool.truth:
        raise UnknownName("labelled set", on, pool.labelled())
    values: Array = pool.mean(on, members, weights).to_numpy()
    return values


def _domain_rows(pool: Pool, on: str) -> dict[str, NDArray[np.int64]]:
    """Positions of the clips of each domain that has lines of its own."""
    domains = pool.domains.get(on, np.array([], object))
    rows = {str(name): np.flatnonzero(domains == name) for name in sorted(set(domains) - {""})}
    return {name: own for name, own in rows.items() if len(own) >= FEWEST}


def _of_other_folds(known: Array, truth: Array, ids: list[str]) -> Array:
    fold = grouped_folds(ids, FOLDS) if len(truth) > 1 else np.zeros(len(truth), np.int64)
    return of_other_folds(_lines, known, truth, fold)


def _lines(prediction: Array, truth: Array) -> Calibration:
    """The least-squares line of each axis, of slope 1 where it would not rise."""
    found = fit("affine", prediction, truth)
    return replace(found, slope=np.where(found.slope > 0, found.slope, 1.0))
