"""``run``: the stages of a ``challenge.toml`` in order, each skipped where its result is already there.

Stages: read manifests → extract features → train heads → select an ensemble → write and check the submission →
leaderboard and report. The scores of the evaluation set, where its manifests hold any, are read after the submission
is written and serve the leaderboard and the report alone.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mmmos import challenge
from mmmos.challenge import Inputs
from mmmos.ensembles import runs, tuning
from mmmos.ensembles.ensemble import Ensemble, select, select_recipe
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.selectors import METRIC
from mmmos.ensembles.training.data import gather
from mmmos.ensembles.training.train import train, trained
from mmmos.ensembles.training.wanted import keyed_specs
from mmmos.ensembles.tuning import Tuned
from mmmos.errors import UsageError
from mmmos.features.extraction import extract as extraction
from mmmos.features.extraction.clips import find
from mmmos.features.extraction.extract import extract
from mmmos.features.table import Features
from mmmos.parallel import Jobs
from mmmos.pipeline.answer import clear, is_current, is_of, provenance, submit, unusable
from mmmos.pipeline.boards import ENSEMBLE, boards_of, write_files
from mmmos.submissions.write import PROVENANCE


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


def run(path: str | Path = "challenge.toml", *, jobs: Jobs = 0, device: str = "auto", intervals: int = 1000) -> Outcome:
    """Carry out a challenge file; the folder it lies in is the workspace.

    ``jobs``: processes that encode and train (0: one for each core when it takes long), or ``parallel.Workers`` of a
    cluster. ``device``: where encoders run and heads are trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU).
    ``intervals``: bootstrap resamples of the leaderboards. What is done already is skipped.

    Raises ``RecipeError`` and ``InputError`` for what is wrong in the file and its manifests, before anything is
    computed; ``InputError`` when clips of the evaluation set are unusable and ``missing`` is "error", when features and
    heads are done.

    >>> outcome = mmmos.run("challenge.toml", intervals=100)
    >>> sorted(outcome.boards)
    ['dev', 'eval', 'oof', 'pam']
    """
    inputs = challenge.read(path)
    challenge.check_selection(inputs, inputs.ensembles.select)
    features, pool = _pool(inputs, jobs, device)
    ensemble = select(pool, inputs.ensembles.select)
    record = ensemble.write(inputs.runs / f"{inputs.challenge.submission.name}.json")
    absent, answer = unusable(inputs, features), None
    if "eval" in set(inputs.clips["set"]):
        answer = submit(inputs, features, ensemble, absent)
    elif not is_of(inputs.submission, ensemble):
        clear(inputs)
    boards = boards_of(inputs, ensemble, intervals)
    write_files(inputs, ensemble, boards, features, absent)
    return Outcome(inputs.submission, answer, ensemble, record, boards, features.rejected())


def report(path: str | Path = "challenge.toml", *, intervals: int = 1000) -> Outcome:
    """Write the leaderboards and the report of a submission again; nothing is extracted, trained or answered.

    Raises ``UsageError`` when there is no answer, or one of another ensemble than the recipe's rule now chooses.
    """
    inputs = challenge.read(path)
    features, pool = finished(inputs)
    ensemble = select(pool, inputs.ensembles.select)
    answer = inputs.submission / inputs.format.file
    if not answer.is_file() or not is_of(inputs.submission, ensemble):
        raise UsageError(f"{inputs.submission} holds no answer of the ensemble that is chosen now; type mmmos run.")
    boards = boards_of(inputs, ensemble, intervals)
    write_files(inputs, ensemble, boards, features, unusable(inputs, features))
    record = inputs.runs / f"{inputs.challenge.submission.name}.json"
    return Outcome(inputs.submission, answer, ensemble, record, boards, features.rejected())


def train_pool(
    path: str | Path, *, recipe: str | None = None, jobs: Jobs = 0, device: str = "auto", exact: bool = False
) -> Pool:
    """The heads of a challenge, under its own ensemble recipe or another one, trained where they are not yet.

    ``exact``: every head alone, see ``train``. Raises as ``run``.
    """
    return _pool(challenge.read(path, ensembles=recipe), jobs, device, exact)[1]


def tune(
    path: str | Path,
    *,
    recipe: str | None = None,
    trials: int = 40,
    on: str = "pam",
    metric: str = METRIC,
    keep: int = 10,
    seed: int = 0,
    jobs: Jobs = 0,
    device: str = "auto",
) -> Tuned:
    """Try heads of a challenge's ensemble recipe, or of another one, and write the best as a recipe; see ``tuning``."""
    inputs = challenge.read(path, ensembles=recipe)
    challenge.check_selection(inputs, select_recipe("best", on=on, metric=metric))
    features = extract(inputs.clips, inputs.features, store=inputs.store, device=device, jobs=jobs)
    return tuning.tune(
        inputs.ensembles,
        features,
        inputs.clips,
        trials=trials,
        on=on,
        metric=metric,
        keep=keep,
        seed=seed,
        folder=inputs.runs,
        name=inputs.recipe_name,
        jobs=jobs,
        device=device,
    )


def finished_pool(path: str | Path, *, recipe: str | None = None) -> tuple[Pool, int]:
    """The heads of a challenge that are trained already, and how many the recipe asks for.

    Raises ``UsageError`` when clips lack features or no head is trained.
    """
    inputs = challenge.read(path, ensembles=recipe)
    features, pool = finished(inputs)
    layers = {name: array.layer_names for name, array in features.sets.items()}
    return pool, len(inputs.ensembles.specs(layers))


def choose(
    path: str | Path, *, name: str | None = None, recipe: str | None = None, rule: str | None = None, **parameters: Any
) -> tuple[Ensemble, Path]:
    """Choose from the heads of a challenge by a rule (the recipe's own by default); the ensemble and its record.

    Heads that are not trained yet are trained first, so that the choice is from all of them.
    ``parameters``: the rule's own, as in ``select``. Raises ``UsageError`` for a name that is none, ``RecipeError`` for
    a rule that does not fit the challenge.
    """
    inputs = challenge.read(path, ensembles=recipe)
    chosen = select_recipe(rule or inputs.ensembles.select, **parameters)
    name = name or inputs.challenge.submission.name
    if not re.fullmatch(challenge.NAME, name):
        raise UsageError(f"An ensemble's name is letters, digits, _, - and . and begins with no dot; got {name!r}.")
    challenge.check_selection(inputs, chosen)
    ensemble = select(_pool(inputs, 0, "auto")[1], chosen)
    return ensemble, ensemble.write(inputs.runs / f"{name}.json")


def plan(path: str | Path) -> pd.DataFrame:
    """What ``run`` would do: a row for each stage and part of it, nothing computed.

    Columns stage, name, wanted (how many clips, heads or answers), there (how many are done), to_do (the rest).
    Before all clips have features, ``layers = "each"`` counts as one head for a feature set.
    """
    inputs = challenge.read(path)
    challenge.check_selection(inputs, inputs.ensembles.select)
    found = inputs.clips.index.isin(find(inputs.clips, inputs.store)[0])
    counts = inputs.clips.assign(found=found).groupby("set", sort=False)["found"].agg(["size", "sum"])
    rows = [("manifest", *row) for row in counts.itertuples(name=None)]
    stored = extraction.plan(inputs.clips, inputs.features, store=inputs.store)
    rows += [("features", *row) for row in stored.itertuples(index=False, name=None)]
    heads = len(inputs.ensembles.specs(list(stored["feature_set"])))
    trained_heads, current = 0, False
    if stored["clips"].all() and (stored["clips"] == stored["stored"]).all():
        heads, trained_heads, current = _progress(inputs)
    rows.append(("ensembles", inputs.recipe_name, heads, trained_heads))
    rows.append(("submissions", inputs.submission.name, int("eval" in counts.index), int(current)))
    table = pd.DataFrame(rows, columns=["stage", "name", "wanted", "there"], dtype=object)
    table = table.astype({"wanted": int, "there": int})
    return table.assign(to_do=table["wanted"] - table["there"])


def _progress(inputs: Inputs) -> tuple[int, int, bool]:
    """How many heads there are to be and how many are trained; whether the answer is of the ensemble that they make."""
    features = extract(inputs.clips, inputs.features, store=inputs.store, device="cpu")
    keys = keyed_specs(inputs.ensembles, gather(inputs.ensembles, features, inputs.clips), inputs.recipe_name)
    done = sum(runs.is_done(inputs.runs / inputs.recipe_name, key) for key in keys)
    if not done or not (inputs.submission / PROVENANCE).is_file():
        return len(keys), done, False
    ensemble = select(_trained(inputs, features), inputs.ensembles.select)
    return len(keys), done, is_current(inputs, provenance(inputs, features, ensemble))


def _pool(inputs: Inputs, jobs: Jobs, device: str, exact: bool = False) -> tuple[Features, Pool]:
    """The first stages: features of all clips, and the trained heads."""
    features = extract(inputs.clips, inputs.features, store=inputs.store, device=device, jobs=jobs)
    pool = train(
        inputs.ensembles,
        features,
        inputs.clips,
        folder=inputs.runs,
        name=inputs.recipe_name,
        jobs=jobs,
        device=device,
        exact=exact,
    )
    return features, pool


def finished(inputs: Inputs) -> tuple[Features, Pool]:
    """Features and heads that are there. Raises ``UsageError`` where something is missing."""
    features = stored_features(inputs, "type mmmos run, or mmmos ensembles train")
    return features, _trained(inputs, features)


def stored_features(inputs: Inputs, advice: str) -> Features:
    """Features of all clips. Raises ``UsageError`` with the advice where they are still to be computed."""
    stored = extraction.plan(inputs.clips, inputs.features, store=inputs.store)
    for name, clips, there in stored.itertuples(index=False, name=None):
        if there < clips:
            raise UsageError(f"{clips - there} of {clips} clips have no {name} features yet; {advice}.")
    return extract(inputs.clips, inputs.features, store=inputs.store, device="cpu")


def _trained(inputs: Inputs, features: Features) -> Pool:
    return trained(inputs.ensembles, features, inputs.clips, folder=inputs.runs, name=inputs.recipe_name)
