"""``ablate``: what the heads of a challenge's recipe say about encoders, layers, losses, heads and sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import pandas as pd

from mmmos import challenge, pipeline
from mmmos.ensembles import ablation
from mmmos.ensembles.ablation import METRIC
from mmmos.ensembles.ensemble import select_recipe
from mmmos.ensembles.pool import Pool
from mmmos.errors import UnknownName, UsageError
from mmmos.files import write_atomic
from mmmos.parallel import Jobs
from mmmos.submissions.pages import format_number, markdown_text

# What each table says.
TABLES = {
    "contributions": "What each level of each factor contributes to the quality of a head",
    "axes": "Correlations between axes",
    "curve": "Quality by the share of the training groups that is learned from",
    "generalisation": "Quality on natural and on synthetic audio, and the drop",
    "sizes": "Quality of the mean of the k best",
}


@dataclass(frozen=True)
class Ablation:
    """A pool and how it is looked at: ``on`` sets (None: all with truth), ``factors`` (None: all that vary);
    ``intervals``: bootstrap resamples.
    """

    pool: Pool
    on: list[str] | None = None
    metric: str = METRIC
    factors: list[str] | None = None
    intervals: int = 200

    def table(self, name: str = "contributions") -> pd.DataFrame:
        """One of ``TABLES``. Raises ``UnknownName`` for another, ``UsageError`` where the pool lacks what it needs."""
        pool = self.pool
        common: dict[str, Any] = {"metric": self.metric, "resamples": self.intervals}
        match name:
            case "contributions":
                return ablation.contributions(pool, on=self.on, factors=self.factors, **common)
            case "axes":
                metric = self.metric.replace("MSE", "SRCC")
                return ablation.axis_correlations(pool, on=self.on, **common | {"metric": metric})
            case "curve":
                return ablation.learning_curve(pool, on=self.on, **common)
            case "generalisation":
                natural = next((each for each in self.on or [] if each != "pam"), None)
                factors = [each for each in self.factors or ablation.factors_of(pool.specs) if each != "encoder"]
                if not factors:
                    raise UsageError(
                        "All heads are alike but for their features; a grid with several losses says more."
                    )
                found = [ablation.generalisation(pool, each, natural=natural, **common) for each in factors]
                return pd.concat(found, ignore_index=True)
            case "sizes":
                pairs = permutations(self.on or pool.labelled(), 2)
                found = [ablation.sizes(pool, chosen_on=one, on=other, **common) for one, other in pairs]
                if not found:
                    raise UsageError(
                        "Sizes are compared on another set than they are chosen on; there is one with truth."
                    )
                return pd.concat(found, ignore_index=True)
        raise UnknownName("table", name, TABLES)

    def write(self, folder: str | Path) -> list[Path]:
        """Write ``ablation.csv``, the contributions, and ``ablation.md``, all tables that there are heads for."""
        lines = [f"# Ablation of {_cell(self.pool.name)}", "", f"{len(self.pool)} heads, {self.metric}."]
        for name, title in TABLES.items():
            lines += ["", f"## {title}", ""]
            try:
                lines += markdown(self.table(name))
            except UsageError as error:
                lines.append(_cell(str(error)))
        csv = self.table().to_csv(index=False, lineterminator="\n")
        folder = Path(folder)
        return [
            write_atomic(folder / "ablation.csv", csv),
            write_atomic(folder / "ablation.md", "\n".join(lines) + "\n"),
        ]


def ablate(
    path: str | Path = "challenge.toml",
    *,
    recipe: str | None = None,
    on: Sequence[str] | None = None,
    metric: str = METRIC,
    factors: Sequence[str] | None = None,
    intervals: int = 200,
    jobs: Jobs = 0,
    device: str = "auto",
) -> Ablation:
    """The ablation of a challenge's ensemble recipe, or of another one; heads that are missing are trained first.

    Raises ``UsageError`` for a set, a metric, or fewer than 0 ``intervals``; see ``mmmos.ensembles.ablation``.
    """
    if intervals < 0:
        raise UsageError(f"intervals is a number of resamples, 0 for none; got {intervals}.")
    inputs = challenge.read(path, ensembles=recipe)
    challenge.check_selection(inputs, select_recipe("best", metric=metric, **({"on": list(on)} if on else {})))
    pool = pipeline.train_pool(path, recipe=recipe, jobs=jobs, device=device)
    return Ablation(pool, list(on) if on else None, metric, list(factors) if factors else None, intervals)


def markdown(table: pd.DataFrame) -> list[str]:
    """The lines of a table in Markdown; numbers have three decimals, NaN is a dash."""
    names = [str(name) for name in table.columns]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return lines + ["| " + " | ".join(map(_cell, row)) + " |" for row in table.itertuples(index=False, name=None)]


def _cell(value: object) -> str:
    return format_number(value) if isinstance(value, float) else markdown_text(str(value))
