"""``run``: the stages of a ``challenge.toml`` in order, each skipped where its result is already there.

Stages: read manifests → extract features → train heads → select an ensemble → write and check the submission →
leaderboard and report. The scores of the evaluation set, where its manifests hold any, are read after the submission
is written and serve the leaderboard and the report alone.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import mmmos
from mmmos import challenge, manifest
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles import runs
from mmmos.ensembles.data import gather
from mmmos.ensembles.ensemble import Ensemble, select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.training import keyed_specs, train
from mmmos.errors import InputError
from mmmos.features import extract as extraction
from mmmos.features.extract import extract
from mmmos.features.table import Features
from mmmos.submissions.check import check_submission
from mmmos.submissions.leaderboard import leaderboard, write_leaderboard
from mmmos.submissions.report import write_report
from mmmos.submissions.write import write_submission

ENSEMBLE = "ensemble"


@dataclass(frozen=True)
class Outcome:
    """What a run left: the chosen ensemble and its record, the submission's folder and answer (None without clips to
    predict), leaderboards by set, rejected clips.
    """

    folder: Path
    answer: Path | None
    ensemble: Ensemble
    record: Path
    boards: dict[str, pd.DataFrame] = field(repr=False)
    rejected: pd.DataFrame = field(repr=False)

    @property
    def scores(self) -> pd.DataFrame:
        """The ensemble's row of each leaderboard: set, clips, systems, SRCC with its interval at both levels."""
        rows = []
        for name, board in self.boards.items():
            own = board[board["model"] == ENSEMBLE].iloc[0]
            columns = [f"{level}_SRCC{end}" for level in ("sys", "utt") for end in ("", "_low", "_high")]
            known = {column: own[column] for column in columns if column in board}
            rows.append({"set": name, "clips": own["n_clips"], "systems": own["n_systems"]} | known)
        return pd.DataFrame(rows)

    def files(self) -> dict[str, Path]:
        """The files for people, by what they are."""
        named = {
            "answer": self.answer,
            "leaderboard": self.folder / "leaderboard.html",
            "report": self.folder / "report.html",
        }
        return {label: path for label, path in named.items() if path is not None and path.is_file()}


def run(path: str | Path = "challenge.toml", *, jobs: int = 0, device: str = "auto", intervals: int = 1000) -> Outcome:
    """Carry out a challenge file; the folder it lies in is the workspace.

    ``jobs``: processes for training (0: one for each core). ``intervals``: bootstrap resamples of the leaderboards.
    Raises ``InputError`` when clips of the evaluation set are unusable and ``missing`` is "error"; everything but the
    submission is done by then.
    """
    inputs = challenge.read(path)
    name = inputs.challenge.submission.name
    features, pool = _pool(inputs, jobs, device)
    ensemble = select(pool, inputs.ensembles.select)
    record = ensemble.write(inputs.runs / f"{name}.json")
    folder = inputs.workspace / "submissions" / name
    answer = _submit(inputs, features, ensemble, folder) if "eval" in set(inputs.clips["set"]) else None
    boards = _boards(inputs, ensemble, intervals)
    _report(inputs, ensemble, boards, features.rejected(), folder)
    return Outcome(folder, answer, ensemble, record, boards, features.rejected())


def train_pool(path: str | Path, *, recipe: str | None = None, jobs: int = 0, device: str = "auto") -> Pool:
    """The trained heads of a challenge, under its own ensemble recipe or another one."""
    return _pool(challenge.read(path, ensembles=recipe), jobs, device)[1]


def choose(
    path: str | Path, *, name: str | None = None, recipe: str | None = None, rule: str | None = None, **parameters: Any
) -> tuple[Ensemble, Path]:
    """Choose from the heads of a challenge by a rule (the recipe's own by default); the ensemble and its record."""
    inputs = challenge.read(path, ensembles=recipe)
    if rule is None and parameters:
        rule = inputs.ensembles.select.rule
        parameters = inputs.ensembles.select.parameters() | parameters
    ensemble = select(_pool(inputs, 0, "auto")[1], rule or inputs.ensembles.select, **parameters)
    return ensemble, ensemble.write(inputs.runs / f"{name or inputs.challenge.submission.name}.json")


def plan(path: str | Path) -> pd.DataFrame:
    """What ``run`` would do: a row for each stage with what there is, what is done already and what remains."""
    inputs = challenge.read(path)
    sets = inputs.clips.groupby("set", sort=False)
    found = manifest.locate(inputs.clips)["how"] != "missing"
    rows = [("manifest", str(name), len(part), int(found[part.index].sum())) for name, part in sets]
    stored = extraction.plan(inputs.clips, inputs.features, store=inputs.store)
    rows += [("features", row.feature_set, row.clips, row.stored) for row in stored.itertuples()]
    heads = len(inputs.ensembles.specs(list(stored["feature_set"])))
    trained = 0
    if (stored["clips"] == stored["stored"]).all():
        features = extract(inputs.clips, inputs.features, store=inputs.store)
        keys = keyed_specs(inputs.ensembles, gather(inputs.ensembles, features, inputs.clips), inputs.recipe_name)
        trained = sum(runs.is_done(inputs.runs / inputs.recipe_name, key) for key in keys)
    rows.append(("ensembles", inputs.recipe_name, heads, trained))
    name = inputs.challenge.submission.name
    rows.append(("submissions", name, 1, int((inputs.workspace / "submissions" / name / inputs.format.file).is_file())))
    table = pd.DataFrame(rows, columns=["stage", "name", "wanted", "there"])
    return table.assign(to_do=table["wanted"] - table["there"])


def _pool(inputs: Inputs, jobs: int, device: str) -> tuple[Features, Pool]:
    """The first stages: features of all clips, and the trained heads."""
    features = extract(inputs.clips, inputs.features, store=inputs.store, device=device)
    pool = train(inputs.ensembles, features, inputs.clips, folder=inputs.runs, name=inputs.recipe_name, jobs=jobs)
    return features, pool


def _submit(inputs: Inputs, features: Features, ensemble: Ensemble, folder: Path) -> Path:
    """Write the answer for every clip of the evaluation set, and check what was written."""
    settings = inputs.challenge.submission
    clips = inputs.clips[inputs.clips["set"] == "eval"]
    absent = [clip for clip in clips.index if features.status.at[clip, "status"] != "done"]
    if absent and settings.missing == "error":
        listed = [f"{clip}: {features.status.at[clip, 'detail']}" for clip in absent[:20]]
        advice = (
            f"No submission is written: {len(absent)} of {len(clips)} clips to predict are unusable."
            ' Mend them, or answer them with the training mean: [submission] missing = "mean".'
        )
        raise InputError([advice, *listed], more=max(len(absent) - 20, 0))
    scores = ensemble.predict(clips.index.difference(absent, sort=False))
    if absent:
        mean = gather(inputs.ensembles, features, inputs.clips).targets.mean(axis=0)
        filler = pd.DataFrame([mean] * len(absent), index=pd.Index(absent, name="id"), columns=list(ensemble.pool.axes))
        scores = pd.concat([scores, filler]).loc[clips.index]
    made_of = provenance(inputs, features, ensemble) | {"answered_with_training_mean": absent}
    answer = write_submission(
        scores,
        clips,
        format=inputs.format,
        to=folder,
        header=settings.header,
        provenance=made_of,
    )
    problems = check_submission(folder, format=inputs.format, clips=clips)
    if problems:
        raise InputError(problems)
    return answer


def provenance(inputs: Inputs, features: Features, ensemble: Ensemble) -> dict[str, Any]:
    """What an answer is made of: recipes, feature sets, ensemble, digests of the manifests; no paths, no times."""
    clips = inputs.clips
    digests = {
        str(name): manifest.digest(part, list(AXES) if name != "eval" else []) for name, part in clips.groupby("set")
    }
    return {
        "mmmos": mmmos.__version__,
        "recipes": {
            "features": inputs.features.model_dump(mode="json"),
            "ensembles": inputs.ensembles.model_dump(mode="json"),
        },
        "feature_sets": {name: array.fingerprint for name, array in features.sets.items()},
        "audio": features.digest([]),
        "ensemble": ensemble.record(),
        "manifests": digests,
    }


def _boards(inputs: Inputs, ensemble: Ensemble, intervals: int) -> dict[str, pd.DataFrame]:
    """Leaderboards of the ensemble, its members and the whole pool's mean, for every set whose truth may be shown."""
    boards = {}
    truths = {name: inputs.clips.loc[list(ensemble.pool.ids[name])] for name in ensemble.pool.labelled()}
    evaluation = _evaluation_truth(inputs)
    if evaluation is not None and "eval" in ensemble.pool.ids:
        truths["eval"] = evaluation.loc[list(ensemble.pool.ids["eval"])]
    for name, truth in truths.items():
        truth = truth[truth[list(ensemble.pool.axes)].notna().all(axis=1)]
        if len(truth) > 1:
            systems = truth["system"] if truth["system"].notna().all() else None
            entries = {model: scores.loc[truth.index] for model, scores in _entries(ensemble, name).items()}
            columns = list(ensemble.pool.axes)
            boards[name] = leaderboard(entries, truth[columns], systems=systems, intervals=intervals)
    return boards


def _entries(ensemble: Ensemble, name: str) -> dict[str, pd.DataFrame]:
    """Predictions on a set by model: the ensemble, the mean of the whole pool, each member."""
    entries = {ENSEMBLE: ensemble.predict(name)}
    if len(ensemble) < len(ensemble.pool):
        entries["mean of all heads"] = select(ensemble.pool, "average").predict(name)
    for member in ensemble.selection.members:
        single = ensemble.pool.only([int(member)])
        entries[f"{single.specs[0].name} [{single.keys[0][:6]}]"] = select(single, "average").predict(name)
    return entries


def _evaluation_truth(inputs: Inputs) -> pd.DataFrame | None:
    """The evaluation manifests with their scores, None where they hold none."""
    sources = inputs.challenge.data.sources(inputs.workspace).get("eval")
    if not sources:
        return None
    truth = manifest.read_manifest(sources, root=inputs.challenge.data.root or None)
    return truth if truth[list(AXES)].notna().any(axis=None) else None


def _report(
    inputs: Inputs, ensemble: Ensemble, boards: dict[str, pd.DataFrame], rejected: pd.DataFrame, folder: Path
) -> None:
    """Leaderboard files of the most telling set, and the report on all of them."""
    name = inputs.challenge.submission.name
    shown = next((each for each in ("eval", "pam", "dev", "oof") if each in boards), None)
    if shown:
        write_leaderboard(boards[shown], folder, f"{name}: leaderboard on {shown}")
    usable = ~inputs.clips.index.isin(rejected.index)
    counts = inputs.clips.assign(domain=inputs.clips["domain"].fillna("unknown"), usable=usable, rejected=~usable)
    data = counts.groupby(["set", "domain"], sort=False).agg(
        clips=("path", "size"), usable=("usable", "sum"), rejected=("rejected", "sum")
    )
    truth = _evaluation_truth(inputs) if shown == "eval" else inputs.clips
    drawn = ensemble.predict(shown) if shown else None
    write_report(
        folder / "report.html",
        title=name,
        data=data.reset_index(),
        leaderboards=boards,
        predictions=drawn,
        truth=None if truth is None or drawn is None else truth.loc[drawn.index],
        members=ensemble.members(),
        rejects=rejected,
        notes=[],
    )
