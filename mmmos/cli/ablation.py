"""``mmmos ensembles ablate``: what each encoder, layer, loss and head contributes."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmmos.cli.options import ChallengeFile, EnsembleRecipe, Intervals, Jobs, Json, Metric, TrainingDevice
from mmmos.cli.output import put_table, say, shown_path, with_intervals

if TYPE_CHECKING:
    import pandas as pd

Table = Literal["contributions", "axes", "curve", "generalisation", "sizes"]


def ablate(
    recipe: EnsembleRecipe = None,
    /,
    *,
    table: Table = "contributions",
    on: list[str] | None = None,
    metric: Metric = "utt_SRCC",
    factor: list[str] | None = None,
    intervals: Intervals = 200,
    to: Path | None = None,
    challenge: ChallengeFile = Path("challenge.toml"),
    jobs: Jobs = 0,
    device: TrainingDevice = "auto",
    json: Json = False,
) -> int:
    """What each encoder, layer, loss and head contributes, with intervals; heads that are missing are trained.

    Example: mmmos ensembles ablate ablation --on pam

    Parameters
    ----------
    table
        Axes: their correlations; curve: by share of the training groups; generalisation: from natural to synthetic
        audio; sizes: the mean of the k best.
    on
        Sets that quality is measured on: pam, dev, oof; repeatable. By default all with scores.
    factor
        encoder, features, layers, loss, head, seed, share, options.lr, …; repeatable. By default all that vary. Named,
        they are shown by domain and axis too, as --json and --to always have them.
    to
        A folder for ablation.csv (contributions) and ablation.md (all tables).
    """
    from mmmos.pipeline.ablation import ablate as look

    options = {"recipe": recipe, "on": on, "factors": factor, "jobs": jobs, "device": device}
    found = look(challenge, metric=metric, intervals=intervals, **options)  # type: ignore[arg-type]
    shown = found.table(table)
    if not json:
        _say_notes(shown)
        shown = _for_people(shown, details=factor is not None)
    put_table(shown, as_json=json)
    if to is not None:
        say(", ".join(shown_path(path) for path in found.write(to)))
    return 0


def _say_notes(table: "pd.DataFrame") -> None:
    """What cannot be told, each reason once."""
    if "note" not in table:
        return
    what = "level" if "level" in table else "share"
    for note, rows in table[table["note"] != ""].groupby("note", sort=False):
        names = list(dict.fromkeys(rows[what].astype(str)))
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        say(f"{', '.join(names[:3])}{more}: {note}.")


def _for_people(table: "pd.DataFrame", *, details: bool) -> "pd.DataFrame":
    """A table with one text for a number with its interval, and a column for each axis where it has one number a row.

    Without ``details`` it is of all domains, and of the mean over axes where it has several numbers a row.
    """
    if "domain" in table and not details:
        table = table[table["domain"] == "all"]
    table = table.drop(columns=[name for name in ("metric", "note") if name in table])
    values = [name for name in ("effect", "value", "natural", "synthetic", "drop", "gain") if name in table]
    table = with_intervals(table.rename(columns={"low": f"{values[0]}_low", "high": f"{values[0]}_high"}))
    if "axis" not in table or "other" in table:
        return table
    if len(values) > 1:
        return table if details else table[table["axis"] == "mean"]
    axes = [axis for axis in dict.fromkeys(table["axis"]) if axis != "mean"]
    keys = [name for name in table if name not in ("axis", values[0])]
    wide = table.pivot(index=keys, columns="axis", values=values[0])
    order = table[keys].drop_duplicates()
    return wide.loc[list(order.itertuples(index=False, name=None)), ["mean", *axes]].reset_index()
