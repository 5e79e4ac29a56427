"""``mmmos submissions leaderboard --challenge``: all runs of a pool, its ensembles and answer files on one set."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmos import challenge, pipeline
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles.ensemble import Ensemble, select, usable
from mmmos.ensembles.pool import Pool, system_means
from mmmos.ensembles.recipe import SEALED, SelectRecipe
from mmmos.ensembles.runs import times
from mmmos.ensembles.selectors.selection import Selection, equal
from mmmos.errors import UnknownName, UsageError
from mmmos.pipeline.boards import ENSEMBLE, WHOLE_POOL, evaluation_truth
from mmmos.statistics import measure
from mmmos.submissions.leaderboard import leaderboard, read_answers

log = logging.getLogger("mmmos")


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

    Rows: the ``top`` runs of the trained pool (of the evaluation set those that are best on the labelled sets, whatever
    its truth says), the ensemble that the recipe's rule chooses, the mean of the pool, the ensembles recorded beside
    the recipes that are of these runs, and the answer files that answer the clips of the set.
    ``recipe``: another ensemble recipe than the challenge's. Raises ``UsageError`` where nothing is trained or the set
    has no truth, ``UnknownName`` for an unknown set.
    """
    if top < 1:
        raise UsageError(f"top is how many runs are shown, 1 at least; got {top}.")
    inputs = challenge.read(path, ensembles=recipe)
    pool, _ = pipeline.finished_pool(path, recipe=recipe)
    pool = pool.only([int(run) for run in usable(pool)])
    truth = _truth(inputs, pool, on)
    sealed = on in SEALED
    best = (_mean(pool, range(len(pool))).members_by_quality() if sealed else best_runs(pool, on, truth))[:top]
    ensembles = _chosen(inputs, pool)
    ensembles |= {f"{pool.specs[run].name} [{pool.keys[run][:6]}]": _mean(pool, [run]) for run in best}
    entries = {name: ensemble.predict(on).loc[truth.index] for name, ensemble in ensembles.items()}
    about = _about(pool, ensembles, len(truth))
    entries |= _matching(answers, truth, entries)
    table = leaderboard(entries, truth, intervals=intervals, about=about)
    why = (
        f"by the labelled sets: nothing is chosen on {on}" if sealed else f"ranked on {on} itself, which flatters them"
    )
    note = f"The best {len(best)} of {len(pool)} runs are shown, {why}."
    return table, [note] if len(pool) > 1 else []


def best_runs(pool: Pool, on: str, truth: pd.DataFrame) -> list[int]:
    """All runs by the mean over axes of the SRCC that ranks a leaderboard, best first; undefined ones last."""
    rows = pool.index(on).get_indexer(truth.index)
    scores = pool.scores[on][:, rows].astype(np.float64).swapaxes(1, 2)
    true = truth[list(pool.axes)].to_numpy(np.float64).T
    if truth["system"].notna().all():
        scores, true = (system_means(values, truth["system"].to_numpy(object)) for values in (scores, true))
    found = np.mean([measure("SRCC", scores[:, axis], true[axis]) for axis in range(len(pool.axes))], axis=0)
    return [int(run) for run in np.argsort(-np.nan_to_num(found, nan=-2.0), kind="stable")]


def _truth(inputs: Inputs, pool: Pool, on: str) -> pd.DataFrame:
    """Clips of a set with all scores: the pool's axes and ``system``, which is empty unless every clip has one."""
    if on not in pool.ids:
        raise UnknownName("set", on, list(pool.ids))
    clips = evaluation_truth(inputs) if on == "eval" else inputs.clips
    if clips is None or (on != "eval" and on not in pool.truth):
        raise UsageError(f"The set {on!r} has no scores to compare with; use {' or '.join(pool.labelled())}.")
    clips = clips.loc[pool.index(on)]
    clips = clips[clips[list(pool.axes)].notna().all(axis=1)]
    if len(clips) < 2:
        raise UsageError(f"The set {on!r} has {len(clips)} clips with scores; at least 2 are needed.")
    systems = clips["system"] if clips["system"].notna().all() else None
    return clips[list(pool.axes)].assign(system=systems)


def _chosen(inputs: Inputs, pool: Pool) -> dict[str, Ensemble]:
    """The ensemble that the recipe's rule chooses, the recorded ones, and the mean of the pool where it has several."""
    chosen = select(pool, inputs.ensembles.select)
    found = {ENSEMBLE: chosen} | _recorded(inputs, chosen)
    return found | ({WHOLE_POOL: _mean(pool, range(len(pool)))} if len(pool) > 1 else {})


def _mean(pool: Pool, runs: Sequence[int]) -> Ensemble:
    return Ensemble(pool, equal(pool, runs), SelectRecipe())


def _recorded(inputs: Inputs, chosen: Ensemble) -> dict[str, Ensemble]:
    """The ensembles in ``ensembles/*.json`` that are of the pool's runs, by file name; not the chosen one again."""
    pool, found = chosen.pool, {}
    position = {key: run for run, key in enumerate(pool.keys)}
    for path in sorted(inputs.runs.glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            rule = SelectRecipe.model_validate(record["rule"])
            runs = np.array([position[each["key"]] for each in record["members"]], dtype=np.int64)
            weights = np.array([[float(each["weights"][axis]) for axis in pool.axes] for each in record["members"]])
        except (OSError, ValueError, KeyError, TypeError):
            log.info("%s is no ensemble of the runs at hand.", path)
            continue
        ensemble = Ensemble(pool, Selection(runs, weights), rule)
        known = rule.calibrate is None or rule.calibrate in pool.truth
        if len(runs) and known and not _equal(ensemble, chosen):
            found[f"{path.stem} (recorded)" if path.stem in (ENSEMBLE, WHOLE_POOL) else path.stem] = ensemble
    return found


def _equal(first: Ensemble, second: Ensemble) -> bool:
    """Whether two ensembles predict alike."""
    one, other = first.selection, second.selection
    same = np.array_equal(one.members, other.members) and np.allclose(one.weights, other.weights)
    scales = [(rule.calibrate, rule.calibrate_by) for rule in (first.rule, second.rule)]
    return same and scales[0] == scales[1]


def _about(pool: Pool, ensembles: Mapping[str, Ensemble], clips: int) -> pd.DataFrame:
    """Members of each entry, and their times together where all are known; ``pred_time_test`` for so many clips."""
    members = {name: [int(run) for run in ensemble.selection.members] for name, ensemble in ensembles.items()}
    taken = {run: times(pool.folder, pool.keys[run]) for runs in members.values() for run in runs}
    fit = {run: each.get("fit", np.nan) for run, each in taken.items()}
    predict = {
        run: each["predict"] / each["clips"] * clips if each.get("clips") and "predict" in each else np.nan
        for run, each in taken.items()
    }
    rows: dict[str, dict[str, Any]] = {
        name: {"members": len(runs)}
        | {"fit_time": sum(fit[run] for run in runs), "pred_time_test": sum(predict[run] for run in runs)}
        for name, runs in members.items()
    }
    return pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), dtype=object))


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
