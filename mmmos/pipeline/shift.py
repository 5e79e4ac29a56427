"""``shift``: how a challenge's other sets differ from its training clips, in features, predictions and rankings."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from mmmos import challenge, pipeline
from mmmos.challenge import Inputs
from mmmos.ensembles.ensemble import Ensemble, select
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.shift.features import feature_shift
from mmmos.ensembles.shift.predictions import prediction_shift
from mmmos.ensembles.shift.runs import ranking_agreement, run_shift
from mmmos.ensembles.training.data import OUT_OF_FOLD
from mmmos.errors import UnknownName, UsageError
from mmmos.features.extraction.extract import extract
from mmmos.files import write_atomic
from mmmos.parallel import Jobs
from mmmos.pipeline.ablation import markdown
from mmmos.pipeline.boards import ENSEMBLE, WHOLE_POOL

# What each table says.
TABLES = {
    "summary": "Each set against the training clips",
    "features": "How far the vectors of each set are from those of the training clips",
    "predictions": "Where predictions lie, against the scores of the training clips",
    "runs": "What each head loses between two sets with scores",
    "rankings": "How alike sets with scores rank the heads",
}


@dataclass(frozen=True)
class Shift:
    """What tables are made of. ``metric``: SRCC, LCC, KTAU or MSE, over clips; ``source`` and ``target``: the sets
    that runs are compared on (None: oof or dev, and pam); ``k``: so many of the best; ``intervals``: bootstrap
    resamples. The scores of the evaluation set are not in it.
    """

    path: Path
    inputs: Inputs
    metric: str = "SRCC"
    source: str | None = None
    target: str = "pam"
    k: int = 10
    intervals: int = 200
    seed: int = 0
    jobs: Jobs = 0
    device: str = "auto"

    @cached_property
    def pool(self) -> Pool:
        """The heads of the recipe, trained where they are not yet."""
        recipe = self.inputs.challenge.ensembles.recipe
        return pipeline.train_pool(self.path, recipe=recipe, jobs=self.jobs, device=self.device)

    @cached_property
    def ensemble(self) -> Ensemble:
        """What the recipe chooses."""
        challenge.check_selection(self.inputs, self.inputs.ensembles.select)
        return select(self.pool, self.inputs.ensembles.select)

    @cached_property
    def labelled(self) -> list[str]:
        """Sets that runs can be compared on; the training clips as they are predicted out of fold."""
        own = self.inputs.ensembles.train[0]
        return [OUT_OF_FOLD] * (OUT_OF_FOLD in self.pool.truth) + [
            name for name in self.pool.truth if name not in (own, OUT_OF_FOLD)
        ]

    @cached_property
    def features(self) -> pd.DataFrame:
        """See ``feature_shift``."""
        inputs = self.inputs
        found = extract(inputs.clips, inputs.features, store=inputs.store, device=self.device, jobs=self.jobs)
        return feature_shift(
            found, inputs.clips, train=inputs.ensembles.train, resamples=self.intervals, seed=self.seed
        )

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """See ``prediction_shift``: of the chosen ensemble, and of the whole pool's mean."""
        own = self.inputs.ensembles.train
        reference = OUT_OF_FOLD if OUT_OF_FOLD in self.pool.ids else own[0]
        sets = [reference, *(name for name in self.pool.ids if name not in (reference, own[0]))]
        models = {ENSEMBLE: self.ensemble, WHOLE_POOL: select(self.pool, "average")}
        clips = self.inputs.clips
        return prediction_shift(
            {model: {name: ensemble.predict(name) for name in sets} for model, ensemble in models.items()},
            clips.loc[clips["set"].isin(own), list(self.pool.axes)],
            reference=reference,
            resamples=self.intervals,
            seed=self.seed,
        )

    @cached_property
    def runs(self) -> pd.DataFrame:
        """See ``run_shift``. Raises ``UsageError`` without two sets with scores."""
        source = self.source or next((name for name in self.labelled if name != self.target), None)
        if source is None or self.target not in self.labelled:
            raise UsageError(
                f"Heads are compared between two sets with scores; there are {_words(self.labelled)}, which may be"
                f" looked at, and {self.target!r} is asked for. Name others with --from and --on."
            )
        return run_shift(self.pool, source, self.target, metric=self.metric, resamples=self.intervals, seed=self.seed)

    @cached_property
    def rankings(self) -> pd.DataFrame:
        """See ``ranking_agreement``. Raises ``UsageError`` without two sets with scores or two heads."""
        if len(self.labelled) < 2 or len(self.pool) < 2:
            raise UsageError(
                f"Rankings take two sets with scores and two heads; there are {_words(self.labelled)}, which may be"
                f" looked at, and {len(self.pool)} heads."
            )
        common = {"resamples": self.intervals, "seed": self.seed}
        return ranking_agreement(self.pool, self.labelled, metric=self.metric, k=self.k, **common)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row for each other set: the feature set that tells it apart best, with ``auc`` and what equal distributions
        would stay under; ``PQ_change`` …, the mean of the ensemble's predictions minus that of the training scores; and
        ``tau``, how alike it ranks the heads as ``ranked_by`` does. With 95 % intervals.
        """
        worst = self.features.sort_values("auc", ascending=False).drop_duplicates("set")
        table = worst[["set", "clips", "feature_set", "auc", "auc_low", "auc_high", "auc_equal", "moved"]]
        found = self.predictions[self.predictions["model"] == ENSEMBLE].set_index("set")
        for axis in self.pool.axes:
            own = found[found["axis"] == axis][["change", "change_low", "change_high"]]
            table = table.join(own.add_prefix(f"{axis}_"), on="set")
        if len(self.labelled) > 1 and len(self.pool) > 1:
            ranked = self.rankings
            first = ranked[(ranked["first"] == self.labelled[0]) & (ranked["axis"] == "mean")].set_index("second")
            table = table.join(first[["tau", "tau_low", "tau_high"]], on="set").assign(ranked_by=self.labelled[0])
        return table.sort_index().reset_index(drop=True)

    def table(self, name: str = "summary") -> pd.DataFrame:
        """One of ``TABLES``. Raises ``UnknownName`` for another, ``UsageError`` for what the challenge lacks."""
        if name not in TABLES:
            raise UnknownName("table", name, TABLES)
        found: pd.DataFrame = getattr(self, name)
        return found

    def write(self, folder: str | Path) -> list[Path]:
        """Write every table as ``shift-<table>.csv``, and all of them as ``shift.md``."""
        folder, name = Path(folder), self.inputs.recipe_name
        lines, written = [f"# Domain shift under {name}", ""], []
        for each, title in TABLES.items():
            lines += [f"## {title}", ""]
            try:
                table = self.table(each)
            except UsageError as error:
                lines += [str(error), ""]
                continue
            lines += [*markdown(table), ""]
            written.append(write_atomic(folder / f"shift-{each}.csv", table.to_csv(index=False, lineterminator="\n")))
        return [*written, write_atomic(folder / "shift.md", "\n".join(lines))]


def shift(
    path: str | Path = "challenge.toml",
    *,
    recipe: str | None = None,
    metric: str = "SRCC",
    source: str | None = None,
    target: str = "pam",
    k: int = 10,
    intervals: int = 200,
    seed: int = 0,
    jobs: Jobs = 0,
    device: str = "auto",
) -> Shift:
    """The domain shift of a challenge under its ensemble recipe, or another one; tables are made when asked for.

    Arguments as in ``Shift``; ``intervals`` is 1 or more. Raises ``UsageError`` as ``challenge.read`` does.
    """
    if intervals < 1:
        raise UsageError(f"intervals is a number of resamples, 1 or more; got {intervals}.")
    inputs = challenge.read(path, ensembles=recipe)
    return Shift(Path(path), inputs, metric, source, target, k, intervals, seed, jobs, device)


def _words(names: list[str]) -> str:
    return " and ".join(names) or "none"
