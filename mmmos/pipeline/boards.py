"""Leaderboards and the report: how good an ensemble is on every set whose scores may be shown."""

import logging
from pathlib import Path

import pandas as pd

from mmmos import manifest
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles.ensemble import Ensemble, looks_at, select
from mmmos.errors import InputError
from mmmos.features.table import Features
from mmmos.pipeline import evidence
from mmmos.submissions.board import write_leaderboard
from mmmos.submissions.leaderboard import leaderboard
from mmmos.submissions.report import WORST, tables, write_report

# What stands for the chosen ensemble and for the mean of its whole pool among models.
ENSEMBLE, WHOLE_POOL = "ensemble", "mean of all heads"

# Resamples for the intervals of the members' quality in a report.
INTERVALS = 200

# Sets in the order in which they tell how good an ensemble is on clips that it has not seen.
_TELLING = ("eval", "pam", "dev", "oof")

# Members that a leaderboard ranks; the report's table of members has them all.
SHOWN = 8

log = logging.getLogger("mmmos")


def boards_of(inputs: Inputs, ensemble: Ensemble, intervals: int) -> dict[str, pd.DataFrame]:
    """Leaderboards by set, the most telling one first, for every set whose truth may be shown.

    Each ranks the ensemble, the mean of the whole pool and the first members.
    """
    boards = {}
    truths = {name: inputs.clips.loc[ensemble.pool.index(name)] for name in ensemble.pool.labelled()}
    evaluation = evaluation_truth(inputs)
    if evaluation is not None and "eval" in ensemble.pool.ids:
        truths["eval"] = evaluation.loc[ensemble.pool.index("eval")]
    for name in sorted(truths, key=_TELLING.index):
        truth = truths[name]
        truth = truth[truth[list(ensemble.pool.axes)].notna().all(axis=1)]
        if len(truth) > 1:
            systems = truth["system"] if truth["system"].notna().all() else None
            entries = {model: scores.loc[truth.index] for model, scores in _entries(ensemble, name).items()}
            columns = list(ensemble.pool.axes)
            boards[name] = _board(
                _folder(inputs) / f"{name}.json",
                entries,
                truth[columns],
                systems,
                intervals,
            )
    return boards


def _folder(inputs: Inputs) -> Path:
    """Where the tables of a recipe's reports are kept."""
    return inputs.runs / inputs.recipe_name / "boards"


def _board(
    path: Path, entries: dict[str, pd.DataFrame], truth: pd.DataFrame, systems: pd.Series | None, intervals: int
) -> pd.DataFrame:
    """A leaderboard, read from ``path`` when that was made of the same numbers: many intervals take long."""
    parts = [*entries.values(), truth, *([] if systems is None else [systems.to_frame()])]
    made_of = {"models": list(entries), "tables": list(map(evidence.digest, parts)), "intervals": intervals, "code": 2}
    return evidence.kept_table(path, made_of, lambda: leaderboard(entries, truth, systems=systems, intervals=intervals))


def _entries(ensemble: Ensemble, name: str) -> dict[str, pd.DataFrame]:
    """Predictions on a set by model: the ensemble, the mean of the whole pool, the members best on open sets."""
    entries = {ENSEMBLE: ensemble.predict(name)}
    if len(ensemble) < len(ensemble.pool):
        entries[WHOLE_POOL] = select(ensemble.pool, "average").predict(name)
    for member in ensemble.members_by_quality()[:SHOWN]:
        single = ensemble.pool.only([member])
        entries[f"{single.specs[0].name} [{single.keys[0][:6]}]"] = select(single, "average").predict(name)
    return entries


def evaluation_truth(inputs: Inputs) -> pd.DataFrame | None:
    """The evaluation manifests with their scores, None where they hold none."""
    sources = inputs.challenge.data.sources(inputs.workspace).get("eval")
    if not sources:
        return None
    try:
        truth = manifest.read_manifest(sources, root=inputs.challenge.data.roots(inputs.workspace))
    except InputError as error:
        log.warning("The scores of the evaluation set cannot be read, so there is no leaderboard on it: %s", error)
        return None
    return truth if truth[list(AXES)].notna().any(axis=None) else None


def write_files(
    inputs: Inputs, ensemble: Ensemble, boards: dict[str, pd.DataFrame], features: Features, absent: list[str]
) -> None:
    """Leaderboard files of the most telling set, and the report on all of them."""
    folder, name, rejected = inputs.submission, inputs.challenge.submission.name, features.rejected()
    shown = next(iter(boards), None)
    if shown is None:
        return
    write_leaderboard(boards[shown], folder, f"{name}: leaderboard on {shown}")
    usable = ~inputs.clips.index.isin(rejected.index)
    counts = inputs.clips.assign(domain=inputs.clips["domain"].fillna("unknown"), usable=usable, rejected=~usable)
    data = counts.groupby(["set", "domain"], sort=False).agg(
        clips=("path", "size"), usable=("usable", "sum"), rejected=("rejected", "sum")
    )
    truth = evaluation_truth(inputs) if shown == "eval" else inputs.clips
    assert truth is not None, "the first leaderboard was made of it"
    drawn, kept = ensemble.predict(shown), _folder(inputs)
    truth = truth.loc[drawn.index]
    truth = truth[truth[list(ensemble.pool.axes)].notna().all(axis=1)]
    truth = truth.drop(columns=[axis for axis in AXES if axis not in ensemble.pool.axes])
    drawn = drawn.loc[truth.index]
    worst = tables.worst(tables.compared(drawn, truth), WORST).index
    write_report(
        folder / "report.html",
        title=name,
        data=data.reset_index(),
        leaderboards=boards,
        predictions=drawn,
        truth=truth,
        members=ensemble.members(INTERVALS),
        rejects=rejected,
        flags=features.flagged(),
        notes=_notes(ensemble, boards, absent),
        shown=shown,
        ceilings=evidence.ceilings(kept, shown, truth),
        stability=evidence.chosen_again(kept, ensemble),
        contributions=evidence.contributed(kept, ensemble),
        excerpts=evidence.excerpts(kept, inputs.clips.loc[list(worst)], features),
    )


def _notes(ensemble: Ensemble, boards: dict[str, pd.DataFrame], absent: list[str]) -> list[str]:
    """What a reader has to know before believing the numbers."""
    rule = ensemble.rule
    seen = list(looks_at(rule))
    where = f", by {rule.rule} on {' and '.join(seen)}" if seen else f", by {rule.rule}"
    notes = [f"{len(ensemble)} of {len(ensemble.pool)} heads are averaged{where}."]
    if set(seen) & set(boards):
        notes.append(f"Scores on {' and '.join(seen)} flatter the ensemble, which was chosen there.")
    if rule.calibrate is not None:
        notes.append(
            f"Predictions are on the scale of {rule.calibrate}: a line for each axis was fitted to its scores."
        )
    if "eval" in boards:
        notes.append("Nothing was trained or chosen on the scores of eval; they were read for this page.")
    if absent:
        notes.append(f"{len(absent)} unusable clips are answered with the training mean and stand in no leaderboard.")
    return notes
