"""``mmmos submissions leaderboard --challenge``: all runs of a pool, its ensembles and answer files on one set."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import challenge, pipeline
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles.ensemble import Ensemble, select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.runs import times
from mmmos.errors import UnknownName, UsageError
from mmmos.pipeline.boards import ENSEMBLE, evaluation_truth
from mmmos.statistics import measure
from mmmos.submissions.leaderboard import leaderboard, read_answers

MEAN = "mean of all heads"

log = logging.getLogger("mmmos")

Weights = dict[int, NDArray[np.float64]]  # position of a run -> its weight on each axis


def rank(
    path: str | Path,
    *,
    on: str = "pam",
    recipe: str | None = None,
    top: int = 20,
    answers: Sequence[str | Path] = (),
    intervals: int = 1000,
) -> tuple[pd.DataFrame, list[str]]:
    """Leaderboard on one set of a challenge, and sentences about what it shows.

    Rows: the ``top`` runs of the trained pool, the ensemble that the recipe's rule chooses, the mean of the pool, the
    ensembles recorded beside the recipes that are of these runs, and the answer files that answer the clips of the set.
    ``recipe``: another ensemble recipe than the challenge's. Raises ``UsageError`` where nothing is trained or the set
    has no truth, ``UnknownName`` for an unknown set.
    """
    if top < 1:
        raise UsageError(f"top is how many runs are shown, 1 at least; got {top}.")
    inputs = challenge.read(path, ensembles=recipe)
    pool, _ = pipeline.finished_pool(path, recipe=recipe)
    truth = _truth(inputs, pool, on)
    best = best_runs(pool, on, truth)[:top]
    chosen: dict[str, Weights] = {ENSEMBLE: _weights(select(pool, inputs.ensembles.select))}
    chosen |= _recorded(inputs, pool, chosen[ENSEMBLE])
    if len(pool) > 1:
        chosen[MEAN] = {run: np.full(len(pool.axes), 1 / len(pool)) for run in range(len(pool))}
    chosen |= {f"{pool.specs[run].name} [{pool.keys[run][:6]}]": {run: np.ones(len(pool.axes))} for run in best}
    entries = {
        name: pool.mean(on, np.array(list(weights)), np.array(list(weights.values()))).loc[truth.index]
        for name, weights in chosen.items()
    }
    about = _about(pool, chosen, len(truth))
    entries |= _matching(answers, truth, entries)
    table = leaderboard(entries, truth, intervals=intervals, about=about)
    notes = [f"The best {len(best)} of {len(pool)} runs are shown, ranked on {on} itself: their scores flatter them."]
    return table, notes if len(pool) > 1 else []


def best_runs(pool: Pool, on: str, truth: pd.DataFrame) -> list[int]:
    """All runs by the mean over axes of the SRCC that ranks a leaderboard, best first; undefined ones last."""
    rows = pd.Index(pool.ids[on]).get_indexer(truth.index)
    scores, true = pool.scores[on][:, rows].astype(np.float64), truth[list(pool.axes)].to_numpy(np.float64)
    if truth["system"].notna().all():
        unit = np.unique(truth["system"].to_numpy(str), return_inverse=True)[1]
        scores = np.stack([scores[:, unit == each].mean(axis=1) for each in range(unit.max() + 1)], axis=1)
        true = np.stack([true[unit == each].mean(axis=0) for each in range(unit.max() + 1)])
    found = np.mean([measure("SRCC", scores[..., axis], true[:, axis]) for axis in range(len(pool.axes))], axis=0)
    return [int(run) for run in np.argsort(-np.nan_to_num(found, nan=-2.0), kind="stable")]


def _truth(inputs: Inputs, pool: Pool, on: str) -> pd.DataFrame:
    """Clips of a set with all scores: the pool's axes and ``system``, which is empty unless every clip has one."""
    if on not in pool.ids:
        raise UnknownName("set", on, list(pool.ids))
    clips = evaluation_truth(inputs) if on == "eval" else inputs.clips
    if clips is None or (on != "eval" and on not in pool.truth):
        raise UsageError(f"The set {on!r} has no scores to compare with; use {' or '.join(pool.labelled())}.")
    clips = clips.loc[list(pool.ids[on])]
    clips = clips[clips[list(pool.axes)].notna().all(axis=1)]
    if len(clips) < 2:
        raise UsageError(f"The set {on!r} has {len(clips)} clips with scores; at least 2 are needed.")
    systems = clips["system"] if clips["system"].notna().all() else None
    return clips[list(pool.axes)].assign(system=systems)


def _weights(ensemble: Ensemble) -> Weights:
    return {int(run): row for run, row in zip(ensemble.selection.members, ensemble.selection.weights, strict=True)}


def _recorded(inputs: Inputs, pool: Pool, ensemble: Weights) -> dict[str, Weights]:
    """The ensembles in ``ensembles/*.json`` that are of this pool's runs, by file name; not the ensemble again."""
    position = {key: run for run, key in enumerate(pool.keys)}
    found = {}
    for path in sorted(inputs.runs.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            members = {position[each["key"]]: each["weights"] for each in record["members"]}
            weights = {run: np.array([float(row[axis]) for axis in pool.axes]) for run, row in members.items()}
        except (OSError, ValueError, KeyError, TypeError):
            log.info("%s is no ensemble of the runs at hand.", path)
            continue
        if weights and not _equal(weights, ensemble):
            found[f"{path.stem} (recorded)" if path.stem in (ENSEMBLE, MEAN) else path.stem] = weights
    return found


def _equal(first: Weights, second: Weights) -> bool:
    return first.keys() == second.keys() and all(np.allclose(first[run], second[run]) for run in first)


def _about(pool: Pool, chosen: Mapping[str, Weights], clips: int) -> pd.DataFrame:
    """Members of each entry, and their times together where all are known; ``pred_time_test`` for so many clips."""
    runs = {run for weights in chosen.values() for run in weights}
    taken = {run: times(pool.folder, pool.keys[run]) for run in runs}
    fit = {run: each.get("fit", np.nan) for run, each in taken.items()}
    predict = {
        run: each["predict"] / each["clips"] * clips if each.get("clips") and "predict" in each else np.nan
        for run, each in taken.items()
    }
    rows: dict[str, dict[str, Any]] = {
        name: {"members": len(weights)}
        | {"fit_time": sum(fit[run] for run in weights), "pred_time_test": sum(predict[run] for run in weights)}
        for name, weights in chosen.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def _matching(
    answers: Sequence[str | Path], truth: pd.DataFrame, entries: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """The answers that have every clip of the truth, cut down to those; the others are named in a warning."""
    found = {}
    for name, scores in read_answers(answers).items():
        absent = truth.index.difference(scores.index)
        if len(absent):
            log.warning("%s is left out: it has no scores of %d clips, among them %r.", name, len(absent), absent[0])
            continue
        named = f"{name} (answer)" if name in entries else name
        found[named] = scores.loc[truth.index, [axis for axis in AXES if axis in scores]]
    return found
