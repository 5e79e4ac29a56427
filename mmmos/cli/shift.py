"""``mmmos ensembles shift``: how other sets differ from the training clips."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from mmmos.cli.options import ChallengeFile, EnsembleRecipe, Jobs, Json, TrainingDevice
from mmmos.cli.output import put_table, say, shown_path, with_intervals

Table = Literal["summary", "features", "predictions", "runs", "rankings"]


def shift(
    recipe: EnsembleRecipe = None,
    /,
    *,
    table: Table = "summary",
    metric: Literal["SRCC", "LCC", "KTAU", "MSE"] = "SRCC",
    source: Annotated[str | None, Parameter(name="--from")] = None,
    on: str = "pam",
    k: int = 10,
    intervals: int = 200,
    seed: int = 0,
    to: Path | None = None,
    challenge: ChallengeFile = Path("challenge.toml"),
    jobs: Jobs = 0,
    device: TrainingDevice = "auto",
    json: Json = False,
) -> int:
    """How dev, pam and eval differ from the training clips, without the scores of eval.

    Example: mmmos ensembles shift quick --table features

    Parameters
    ----------
    table
        Features: distances of vectors; predictions: where they lie; runs: which heads lose most; rankings: how alike
        sets rank the heads.
    metric
        Over clips.
    source
        The set that heads lose from: oof, dev; by default the first that is there.
    on
        The set that heads lose on.
    k
        How many of the best heads are compared.
    intervals
        Bootstrap resamples of the intervals, 1 or more.
    seed
        Of the resamples.
    to
        A folder for all tables as csv, and as one shift.md.
    """
    from mmmos.pipeline.shift import shift as look

    found = look(
        challenge,
        recipe=recipe,
        metric=metric,
        source=source,
        target=on,
        k=k,
        intervals=intervals,
        seed=seed,
        jobs=jobs,
        device=device,
    )
    shown = found.table(table)
    put_table(shown if json else with_intervals(shown), as_json=json)
    if to is not None:
        say(", ".join(shown_path(path) for path in found.write(to)))
    return 0
