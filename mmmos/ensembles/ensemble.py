"""``select``: the chosen ensemble, its predictions, and its record, a small JSON file beside the recipes."""

import inspect
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError

from mmmos import recipe, registry
from mmmos.ensembles.heads import own_loss
from mmmos.ensembles.losses import loss
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import SelectRecipe, weights_of
from mmmos.ensembles.selectors import Selection
from mmmos.ensembles.shift.anchoring import anchored
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import UnknownName, UsageError
from mmmos.files import pretty_json, write_atomic

log = logging.getLogger("mmmos")

_CALIBRATE = ("calibrate", "calibrate_by")


@dataclass(frozen=True)
class Ensemble:
    """Runs chosen from a pool, with their weights and the rule that chose them."""

    pool: Pool
    selection: Selection
    rule: SelectRecipe

    def __len__(self) -> int:
        return len(self.selection.members)

    def predict(self, clips: str | pd.DataFrame | Sequence[str]) -> pd.DataFrame:
        """Scores indexed by clip id, a column for each axis, of a set by name or of clips of the pool's sets.

        Raises ``UnknownName`` for an unknown set, ``UsageError`` for a clip that the pool has no predictions of.
        """
        if isinstance(clips, str):
            if clips not in self.pool.ids:
                raise UnknownName("set", clips, list(self.pool.ids))
            chosen = self.selection.members, self.selection.weights
            if self.rule.calibrate is not None:
                by_domain = self.rule.calibrate_by == "domain"
                return anchored(self.pool, *chosen, clips, self.rule.calibrate, by_domain=by_domain)
            return self.pool.mean(clips, *chosen)
        ids = pd.Index(list(clips.index if isinstance(clips, pd.DataFrame) else clips), name="id", dtype=object)
        sets = [name for name in self.pool.ids if name != "oof"]
        index = pd.Index([clip for name in sets for clip in self.pool.ids[name]], name="id", dtype=object)
        scores = np.concatenate([self.predict(name).to_numpy() for name in sets])
        known = pd.DataFrame(scores, index, list(self.pool.axes))
        absent = [clip for clip in ids if clip not in known.index]
        if absent:
            raise UsageError(
                f"{len(absent)} clips have no prediction, among them {absent[0]!r}: extract and train first."
            )
        return known.loc[ids]

    def members(self, intervals: int = 0) -> pd.DataFrame:
        """A row for each member: key, name, the weight of each axis, and its quality on each labelled set.

        ``intervals``: bootstrap resamples for the 95 % interval of that, columns ``pam_utt_SRCC_low`` and ``…_high``.
        """
        chosen = [int(member) for member in self.selection.members]
        table = pd.DataFrame(self.selection.weights, columns=[f"weight_{axis}" for axis in self.pool.axes])
        table.insert(0, "name", [self.pool.specs[member].name for member in chosen])
        table.insert(0, "key", [self.pool.keys[member] for member in chosen])
        part = self.pool.only(chosen)
        for name in self.pool.labelled():
            table[f"{name}_utt_SRCC"] = pd.DataFrame(part.measure(name)).mean(axis=1)
            if intervals:
                ends = part.confidence(name, intervals)
                table[f"{name}_utt_SRCC_low"], table[f"{name}_utt_SRCC_high"] = ends.T
        return table

    def members_by_quality(self) -> list[int]:
        """Positions of the members in the pool, best first by utterance SRCC on pam, else on dev, else out of fold."""
        chosen = [int(member) for member in self.selection.members]
        name = next((each for each in ("pam", "dev", "oof") if each in self.pool.truth), None)
        if name is None:
            return chosen
        qualities = pd.DataFrame(self.pool.only(chosen).measure(name), index=chosen).mean(axis=1)
        return [int(member) for member in qualities.sort_values(ascending=False, kind="stable").index]

    def record(self) -> dict[str, Any]:
        """What was chosen, from what and how, as JSON values; the same choice gives the same record."""
        members = [
            {
                "key": self.pool.keys[member],
                "spec": self.pool.specs[member].model_dump(mode="json"),
                "weights": dict(zip(self.pool.axes, map(float, weights), strict=True)),
            }
            for member, weights in zip(self.selection.members, self.selection.weights, strict=True)
        ]
        return {
            "recipe": self.pool.name,
            "rule": self.rule.model_dump(mode="json"),
            "training_data": self.pool.data,
            "pool": len(self.pool),
            "members": members,
        }

    def write(self, path: str | Path) -> Path:
        """Write the record."""
        return write_atomic(path, pretty_json(self.record()))


def select(pool: Pool, rule: str | SelectRecipe = "average", **parameters: Any) -> Ensemble:
    """Choose and weigh runs of a pool.

    ``rule``: a registered name, or a recipe's ``[select]``; ``parameters`` (``on``, ``k``, ``metric``, …) are the
    rule's and go before the recipe's. A run that predicts anything but finite numbers is not chosen, which is logged.
    Raises ``UnknownName`` for an unknown rule, set, metric or parameter of the rule, ``UsageError`` when no run is
    usable, and when the rule averages heads of which one has no scale.

    >>> ensemble = mmmos.select(pool, "top_k", k=4, on="pam")
    >>> ensemble.predict("eval").shape
    (18, 4)
    """
    chosen = select_recipe(rule, **parameters)
    selector, runs = check_rule(chosen), usable(pool)
    if len(runs) == len(pool):
        selection = selector(pool, **chosen.parameters())
    else:
        found = selector(pool.only([int(run) for run in runs]), **chosen.parameters())
        selection = Selection(runs[found.members], found.weights)
    check_scales([pool.specs[member] for member in selection.members])
    return Ensemble(pool, selection, chosen)


def usable(pool: Pool) -> NDArray[np.int64]:
    """Positions of the runs whose predictions are finite on every set; logs which are not.

    Raises ``UsageError`` when there is none.
    """
    finite = np.logical_and.reduce([np.isfinite(scores).all(axis=(1, 2)) for scores in pool.scores.values()])
    broken = np.flatnonzero(~finite)
    if len(broken) == len(pool):
        raise UsageError("No head of the pool predicts finite numbers for all clips, so that none can be chosen.")
    if len(broken):
        more = f" and {len(broken) - 1} more do" if len(broken) > 1 else " does"
        first = pool.specs[broken[0]].name
        log.warning("The head %r%s not predict finite numbers for all clips and cannot be chosen.", first, more)
    return np.flatnonzero(finite)


def check_scales(members: Sequence[HeadSpec]) -> None:
    """Raise ``UsageError`` when several heads are averaged and one has neither an anchored loss nor a calibration."""
    loose = [
        spec
        for spec in members
        if spec.calibration == "none" and not own_loss(spec.head) and not loss(spec.loss, spec.loss_options).anchored
    ]
    if len(members) > 1 and loose:
        first, more = loose[0], f" (and {len(loose) - 1} more)" if len(loose) > 1 else ""
        raise UsageError(
            f"The head {first.name!r}{more} cannot be averaged with others: its loss {first.loss!r} leaves the scale of"
            ' its predictions open, and calibration = "none". Train it with calibration = "affine" or "isotonic".'
        )


def select_recipe(rule: str | SelectRecipe, **parameters: Any) -> SelectRecipe:
    """A ``[select]`` table with some parameters replaced. Raises ``UsageError`` for values of the wrong kind."""
    if isinstance(rule, SelectRecipe):
        parameters = rule.parameters() | {name: getattr(rule, name) for name in _CALIBRATE} | parameters
        rule = rule.rule
    own = {name: value for name, value in parameters.items() if name in {"on", "k", "metric", *_CALIBRATE}}
    table = {"rule": rule, **own, "options": {name: value for name, value in parameters.items() if name not in own}}
    try:
        return SelectRecipe.model_validate(table)
    except ValidationError as error:
        raise UsageError(" ".join(recipe.sentences(error, SelectRecipe, f"select({rule!r})"))) from None


def check_rule(chosen: SelectRecipe, labelled: Collection[str] | None = None) -> Callable[..., Selection]:
    """The selector of a ``[select]`` table, after a look at its parameters and, with ``labelled``, at its sets.

    Raises ``UnknownName`` for an unknown rule, parameter, or set without scores.
    """
    selector: Callable[..., Selection] = registry.load("selectors", chosen.rule)
    allowed = [name for name in inspect.signature(selector).parameters if name != "pool"]
    for name in chosen.parameters():
        if name not in allowed:
            raise UnknownName(f"parameter of the rule {chosen.rule!r}", name, allowed)
    for name in [*looks_at(chosen), *([] if chosen.calibrate is None else [chosen.calibrate])]:
        if labelled is not None and name not in labelled:
            raise UnknownName("labelled set", name, labelled)
    return selector


def looks_at(chosen: SelectRecipe) -> dict[str, float]:
    """Weights of the sets that a rule looks at, the rule's own where the recipe names none; {} for ``average``."""
    known = inspect.signature(registry.load("selectors", chosen.rule)).parameters
    on = chosen.on if chosen.on is not None or "on" not in known else known["on"].default
    return {} if on is None else weights_of(on)
