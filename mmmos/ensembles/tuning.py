"""``tune``: Optuna proposes heads out of what a recipe leaves open; they are trained, and the best become a recipe.

The study is kept by the runs alone: what is proposed follows from the seed and from the quality of what was proposed
before, so that the same call makes the same proposals, finds their runs, and goes on where it was interrupted.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmmos import progress
from mmmos.ensembles import runs
from mmmos.ensembles.ensemble import check_rule, select_recipe
from mmmos.ensembles.grid import GridEntry, options_of, space_of
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import EnsembleRecipe, read_recipe
from mmmos.ensembles.search import Choices, Range, Space
from mmmos.ensembles.selectors import METRIC, quality
from mmmos.ensembles.training.data import OUT_OF_FOLD, sets_of
from mmmos.ensembles.training.train import train
from mmmos.errors import SetupError, StoreError, UsageError
from mmmos.features.table import Features
from mmmos.files import write_atomic
from mmmos.parallel import Jobs

# Proposals that are made and trained at a time, whatever the number of processes; tries for each that is new.
BATCH, TRIES = 8, 20


@dataclass(frozen=True)
class Trial:
    """A proposed head as a table of its own, with the seeds of the table it is from.

    ``quality``: mean over seeds and axes, an MSE negated, NaN where a seed could not be trained; ``runs``: keys.
    """

    table: GridEntry
    name: str
    quality: float
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tuned:
    """What was tried, best first, and the recipe that was written of the first ``kept``; ``measure`` names quality."""

    recipe: Path
    trials: list[Trial] = field(repr=False)
    kept: int
    measure: str

    def table(self) -> pd.DataFrame:
        """A row for each trial: its name and what was measured."""
        rows = [(each.name, _measured(each, self.measure)) for each in self.trials]
        return pd.DataFrame(rows, columns=["name", self.measure])


def tune(
    recipe: str | EnsembleRecipe,
    features: Features,
    clips: pd.DataFrame,
    *,
    trials: int = 40,
    on: str = "pam",
    metric: str = METRIC,
    keep: int = 10,
    seed: int = 0,
    folder: str | Path = "ensembles",
    name: str | None = None,
    jobs: Jobs = 0,
    device: str = "cpu",
    workspace: str | Path = ".",
) -> Tuned:
    """Try up to so many different heads of a recipe and write the best as ``<folder>/<name>-tuned.toml``.

    A head is proposed without its seed, trained with every seed of its table by ``train``, which keeps its runs in the
    recipe's folder, and judged by the mean over seeds and axes of ``metric`` on the set ``on``: pam, dev or oof.
    Ranges are searched whole; ``draw`` has no part. ``keep``: heads that are written, with the recipe's ``[select]``;
    their runs are copied to the new recipe's folder. ``seed`` is of the proposals.
    Raises ``SetupError`` without Optuna, ``UsageError`` for a set without scores, and what ``train`` raises.
    """
    name = name or (Path(recipe).stem if isinstance(recipe, str) else "recipe")
    recipe = read_recipe(recipe, str(workspace)) if isinstance(recipe, str) else recipe
    folder = Path(folder)
    if min(trials, keep) < 1 or seed < 0:
        raise UsageError(f"trials and keep are 1 at least, seed 0; got {trials}, {keep} and {seed}.")
    _check(recipe, clips, on, metric)
    sets = {name: array.layer_names for name, array in features.sets.items()}
    study = _Study(recipe, sets, seed)
    trained = partial(train, features=features, clips=clips, folder=folder, name=name, jobs=jobs, device=device)
    judged = partial(quality, name=on, metric=metric)
    found: list[Trial] = []
    with closing(progress.track(range(0, trials, BATCH), -(-trials // BATCH), f"{BATCH} proposals each")) as batches:
        for _ in batches:
            tables = study.propose(min(BATCH, trials - len(found)))
            if not tables:
                break
            found += study.learn(_tried(recipe, tables, sets, trained, judged, first=not found))
    found.sort(key=lambda trial: -np.nan_to_num(trial.quality, nan=-np.inf))
    kept = [trial for trial in found[:keep] if np.isfinite(trial.quality)]
    if not kept:
        raise UsageError("No head could be trained; the warnings above say why.")
    tuned, measure = folder / f"{name}-tuned", f"{on}_{metric}"
    _share([key for trial in kept for key in trial.runs], folder / name, tuned)
    head = f"The {len(kept)} best of {len(found)} heads that mmmos ensembles tune tried of {name}, by {measure}."
    return Tuned(write_atomic(f"{tuned}.toml", _text(recipe, kept, measure, head)), found, len(kept), measure)


def _check(recipe: EnsembleRecipe, clips: pd.DataFrame, on: str, metric: str) -> None:
    """Raise ``UsageError`` for an unknown metric, or a set whose scores may not be looked at or are not there."""
    known = clips[[axis for axis in recipe.axes if axis in clips]].notna().any(axis=1)
    open_sets = recipe.open_sets(map(str, sets_of(clips)[known].unique()))
    open_sets += [OUT_OF_FOLD] if recipe.kept_out_of_folds() else []
    check_rule(select_recipe("best", on=on, metric=metric), open_sets)


def _tried(
    recipe: EnsembleRecipe,
    tables: Sequence[GridEntry],
    sets: Mapping[str, Sequence[str]],
    trained: Callable[[EnsembleRecipe], Pool],
    judged: Callable[[Pool], Iterable[float]],
    *,
    first: bool,
) -> list[Trial]:
    """Train tables together and judge each. Only of the first tables may all fail."""
    alone = [recipe.model_copy(update={"grid": [table]}).specs(sets) for table in tables]
    found: dict[Any, tuple[str, float]] = {}
    try:
        pool = trained(recipe.model_copy(update={"grid": list(tables)}))
        found = dict(zip(pool.specs, zip(pool.keys, judged(pool), strict=True), strict=True))
    except UsageError:
        if first:
            raise
    trials = []
    for table, specs in zip(tables, alone, strict=True):
        own = [found[spec] for spec in specs if spec in found]
        mean = float(np.mean([value for _, value in own])) if len(own) == len(specs) else np.nan
        keys = tuple(key for key, _ in own)
        trials.append(Trial(table, specs[0].name, mean if np.isfinite(mean) else np.nan, keys))
    return trials


def _share(keys: Iterable[str], source: Path, target: Path) -> None:
    """Copy runs to another recipe's folder; what is damaged is trained there when it is needed."""
    for key in keys:
        if not runs.is_done(target, key):
            with suppress(StoreError):
                runs.save_run(runs.load_run(source, key), target)


class _Study:
    """Proposals of one head each out of the tables of a recipe, better ones as qualities become known."""

    def __init__(self, recipe: EnsembleRecipe, sets: Mapping[str, Sequence[str]], seed: int) -> None:
        """Raises ``SetupError`` without Optuna, ``RecipeError`` for a mistake in the recipe."""
        try:
            optuna = import_module("optuna")
        except ImportError:
            raise SetupError("Tuning needs Optuna, which is not installed; type: pip install 'mmmos[tune]'") from None
        recipe.specs(sets)
        self._entries, self._spaces = recipe.grid, [space_of(entry, sets) for entry in recipe.grid]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        self._failed = optuna.trial.TrialState.FAIL
        self._asked: dict[str, list[Any]] = {}
        self._known: dict[str, float] = {}

    def propose(self, count: int) -> list[GridEntry]:
        """Different tables that were not proposed before; fewer where nothing new is found."""
        tables: dict[str, GridEntry] = {}
        for _ in range(TRIES * count):
            trial = self._study.ask()
            table = self._table(trial)
            key = table.model_dump_json()
            if key in self._known:
                self._tell(trial, self._known[key])
                continue
            self._asked.setdefault(key, []).append(trial)
            tables[key] = table
            if len(tables) == count:
                break
        return list(tables.values())

    def learn(self, trials: list[Trial]) -> list[Trial]:
        """Take note of what became of proposals, and give them back."""
        for each in trials:
            key = each.table.model_dump_json()
            self._known[key] = each.quality
            for trial in self._asked.pop(key):
                self._tell(trial, each.quality)
        return trials

    def _tell(self, trial: Any, value: float) -> None:
        if np.isfinite(value):
            self._study.tell(trial, value)
        else:
            self._study.tell(trial, state=self._failed)

    def _table(self, trial: Any) -> GridEntry:
        """The table of one head that Optuna chooses."""
        number = _chosen(trial, "table", range(len(self._entries)))
        entry, space = self._entries[number], self._spaces[number]
        names = [name for name in space if name not in ("inputs", "seed")]
        point = {name: _chosen(trial, f"{number}.{name}", space[name]) for name in names}
        features, layers = self._inputs(trial, number, space)
        plain = ("head", "normalise", "samples", "loss", "share", "importance", "leave_out")
        looks = point["importance"] or point["leave_out"]
        return entry.model_copy(
            update={name: point[name] for name in plain}
            | {"target": point["target"] if looks else None}
            | {kind: options_of(point, kind) for kind in ("loss_options", "options")}
            | {"features": [list(features)], "layers": layers if isinstance(layers, str) else [list(layers)]}
            | {"draw": None, "draw_seed": 0}
        )

    def _inputs(self, trial: Any, number: int, space: Space) -> tuple[Any, Any]:
        """Feature sets and layers, chosen one after the other."""
        layers: dict[Any, list[Any]] = {}
        for features, choice in space["inputs"]:
            layers.setdefault(features, []).append(choice)
        features = _chosen(trial, f"{number}.features", list(layers))
        alike = all(choices == layers[features] for choices in layers.values())
        place = "layers" if alike else f"layers of {'+'.join(features)}"
        return features, _chosen(trial, f"{number}.{place}", layers[features])


def _chosen(trial: Any, name: str, choices: Choices) -> Any:
    """What Optuna suggests of alternatives or of a range; what leaves no choice is not asked."""
    if isinstance(choices, Range) and choices.whole:
        return trial.suggest_int(name, choices.low, choices.high, log=choices.log)
    if isinstance(choices, Range):
        return choices.near(trial.suggest_float(name, choices.low, choices.high, log=choices.log))
    return choices[trial.suggest_categorical(name, range(len(choices))) if len(choices) > 1 else 0]


def _measured(trial: Trial, measure: str) -> float:
    return -trial.quality if measure.endswith("_MSE") else trial.quality


def _text(recipe: EnsembleRecipe, kept: Sequence[Trial], measure: str, head: str) -> str:
    """The recipe (TOML) of the heads that are kept."""
    rest = recipe.model_dump(exclude={"grid", "select", "description"}, exclude_defaults=True)
    parts = [[f"# {head}", *_lines({"description": head} | rest)]]
    for trial in kept:
        table = trial.table.model_dump(exclude_defaults=True)
        parts.append([f"[[grid]]  # {_measured(trial, measure):.4f}", *_lines(table)])
    parts.append(["[select]", *_lines(recipe.select.model_dump(exclude_none=True, exclude_defaults=True))])
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_toml(value)}" for name, value in table.items()]


def _toml(value: Any) -> str:
    """A value as TOML spells it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_lines(value)) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # What JSON makes of texts, numbers and truth values is TOML too, but for the character 127.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[\w-]+", name, re.ASCII) else _toml(name)
