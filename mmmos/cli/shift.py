"""``mmmos ensembles shift``: how other sets differ from the training clips."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from mmmos.cli.output import put_table, say, shown_path, with_intervals


def shift(
    recipe: str | None = None,
    /,
    *,
    table: str = "summary",
    metric: str = "SRCC",
    source: Annotated[str | None, Parameter(name="--from")] = None,
    on: str = "pam",
    k: int = 10,
    intervals: int = 200,
    seed: int = 0,
    to: Path | None = None,
    challenge: Path = Path("challenge.toml"),
    jobs: int = 0,
    device: str = "auto",
    json: bool = False,
) -> int:
    """How dev, pam and eval differ from the training clips, without the scores of eval.

    Example: mmmos ensembles shift quick --table features

    Parameters
    ----------
    recipe
        An ensemble recipe (name or .toml); by default the challenge's own.
    table
        summary, features (distances of vectors), predictions (where they lie), runs (which heads lose most) or rankings
        (how alike sets rank the heads).
    metric
        SRCC, LCC, KTAU or MSE, over clips.
    source
        The set that heads lose from: oof, dev; by default the first that is there.
    on
        The set that heads lose on.
    k
        How many of the best heads are compared.
    intervals
        Bootstrap resamples.
    seed
        Of the resamples.
    to
        A folder for all tables as csv, and as one shift.md.
    challenge
        The challenge file that names the clips and the features.
    jobs
        Processes; 0: one for each core when it takes long.
    device
        Where clips are encoded and heads trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU).
    """
    from mmmos.errors import UnknownName
    from mmmos.pipeline.shift import TABLES
    from mmmos.pipeline.shift import shift as look

    if table not in TABLES:
        raise UnknownName("table", table, TABLES)
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
