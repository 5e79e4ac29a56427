"""Leaderboards: models ranked by the mean over axes of system-level SRCC, each with its bootstrap interval.

Conventions
    One row a model, best first. ``sys_SRCC`` is the mean over axes, ``PQ_sys_SRCC`` one axis; "utt" is the level of
    clips. ``_low`` and ``_high`` are the ends of the 95 % percentile interval. All models and axes share one set of
    resamples, so the interval of a mean over axes is a joint one and models are compared on equal resamples.
    Files escape model names for where they are read: HTML, Markdown, and spreadsheets that would run a formula.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from mmmos.axes import AXES
from mmmos.errors import InputError
from mmmos.files import write_atomic
from mmmos.manifest import read_manifest
from mmmos.metrics import LEVELS, METRICS, Aligned, Systems, align, read_predictions
from mmmos.statistics import bootstrap, interval, resample_counts

NAMES = {"sys": "systems", "utt": "clips"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def leaderboard(
    predictions: Mapping[str, pd.DataFrame],
    truth: pd.DataFrame,
    *,
    systems: Systems | None = None,
    intervals: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row a model, sorted by ``sys_SRCC``, or by ``utt_SRCC`` where no systems are known.

    ``predictions``: model name -> scores indexed by clip id. ``truth``, ``systems``: as in ``mmmos.evaluate``.
    ``intervals``: bootstrap resamples, 0 for none.

    Returns columns ``model``, ``sys_SRCC``, ``sys_SRCC_low``, ``sys_SRCC_high``, the same for ``utt_SRCC``,
    ``behind``, ``behind_low``, ``behind_high`` (how far the ranking SRCC is below the first row's, with the interval
    of that difference over paired resamples: where it holds 0 the data do not tell the two apart), ``sys_LCC`` …
    ``utt_MSE`` (means over axes), ``PQ_sys_SRCC`` … (every axis, level and metric), ``n_clips``, ``n_systems``;
    without systems there are no ``sys_`` columns and ``n_systems`` is 0.
    Raises ``InputError`` for no models, or naming the model whose predictions do not match the truth.
    """
    if not predictions:
        raise InputError(["A leaderboard needs the predictions of at least one model."])
    counts: dict[int, np.ndarray] = {}
    rows, samples = [], []
    for name, frame in predictions.items():
        try:
            aligned = align(frame, truth, systems)
        except InputError as error:
            raise InputError([f"Model {name!r}: {problem}" for problem in error.problems]) from None
        scores, resampled = _row(aligned, counts, intervals, seed)
        rows.append({"model": name, **scores})
        samples.append(resampled)
    table = pd.DataFrame(rows)
    ranking = "sys_SRCC" if "sys_SRCC" in table else "utt_SRCC"
    table = table.sort_values(ranking, ascending=False, kind="stable", na_position="last")
    first = table.index[0]
    table["behind"] = table[ranking].loc[first] - table[ranking]
    if intervals:
        ends = [interval(samples[first][ranking] - samples[row][ranking]) for row in table.index]
        table["behind_low"], table["behind_high"] = zip(*ends, strict=True)
    return table[[column for column in _order() if column in table]].reset_index(drop=True)


def compare(
    answers: Sequence[str | Path], truth: str | Path | pd.DataFrame, *, intervals: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Leaderboard of answer files against a manifest with scores, each named by its folder or file.

    ``first/answer.txt`` is called "first", ``mine.csv`` is called "mine"; files whose names would be equal go by
    their paths. Raises ``InputError`` as ``leaderboard`` and ``read_predictions`` do.
    """
    clips = truth if isinstance(truth, pd.DataFrame) else read_manifest(str(truth))
    paths = [Path(answer) for answer in answers]
    names = [path.resolve().parent.name if path.stem == "answer" else path.stem for path in paths]
    names = [name if names.count(name) == 1 else str(path) for name, path in zip(names, paths, strict=True)]
    predictions = {name: read_predictions(path) for name, path in zip(names, paths, strict=True)}
    return leaderboard(predictions, clips, intervals=intervals, seed=seed)


def write_leaderboard(table: pd.DataFrame, folder: str | Path, title: str = "Leaderboard") -> list[Path]:
    """Write ``leaderboard.csv`` (every column), ``.md`` (the main ones) and ``.html`` (self-contained) into a folder.

    ``table``: as ``leaderboard`` returns it. Returns the three paths. Equal tables give equal bytes.
    """
    html = render("leaderboard.html", title=title, board=board(table))
    texts = {"csv": _csv(table), "md": _markdown(table, title), "html": html}
    return [write_atomic(Path(folder) / f"leaderboard.{kind}", text) for kind, text in texts.items()]


def board(table: pd.DataFrame) -> dict[str, Any]:
    """What the templates show of a leaderboard: columns, rows, the per-axis table, and the scale of its interval bars.

    ``ranking`` is "sys" or "utt"; bars span the lowest to the highest end of all intervals, as fractions in [0, 1].
    """
    ranking = "sys" if "sys_SRCC" in table else "utt"
    levels = [level for level in ("sys", "utt") if f"{level}_SRCC" in table]
    low, high, value = (f"{ranking}_SRCC{end}" for end in ("_low", "_high", ""))
    bars: list[dict[str, float] | None] = [None] * len(table)
    scale = None
    if low in table and table[low].notna().any():
        scale = (float(min(table[low].min(), table[value].min())), float(max(table[high].max(), table[value].max())))
        width = (scale[1] - scale[0]) or 1.0
        bars = [
            None if math.isnan(a) else {k: (v - scale[0]) / width for k, v in (("low", a), ("high", b), ("value", c))}
            for a, b, c in table[[low, high, value]].astype(float).itertuples(index=False)
        ]
    return {
        "ranking": NAMES[ranking],
        "n_clips": int(table["n_clips"].iloc[0]),
        "n_systems": int(table["n_systems"].iloc[0]),
        "levels": levels,
        "level_names": NAMES,
        "axes": [axis for axis in AXES if f"{axis}_utt_SRCC" in table],
        "metrics": ["SRCC", "LCC", "KTAU", "MSE"],
        "scale": scale,
        "rows": [{"bar": bar, **row} for bar, row in zip(bars, table.to_dict("records"), strict=True)],
    }


def render(template: str, **values: Any) -> str:
    """A template of this package as text; every value is escaped, and a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmmos.submissions"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format_number
    return environment.get_template(template).render(**values)


def format_number(value: Any, decimals: int = 3) -> str:
    """A number for reading: fixed decimals, a true minus, "–" where it is undefined; integers and texts as they are."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return "–"
        text = f"{value:.{decimals}f}"
        return f"\u2212{text[1:]}" if text.startswith("-") else text
    return "–" if value is None else str(value)


def _row(
    aligned: Aligned, counts: dict[int, np.ndarray], intervals: int, seed: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Scores of one model, and its mean SRCC in every resample by level; ``counts`` keeps what all models share."""
    row: dict[str, Any] = {"n_clips": len(aligned.true), "n_systems": 0}
    samples = {}
    for level, (predicted, true) in aligned.levels().items():
        short, n = LEVELS[level], len(true)
        for metric, function in METRICS.items():
            values = {axis: function(predicted[axis], true[axis]) for axis in true.columns}
            row |= {f"{axis}_{short}_{metric}": value for axis, value in values.items()}
            row[f"{short}_{metric}"] = float(np.mean(list(values.values())))
        if level == "system":
            row["n_systems"] = n
        if intervals:
            if n not in counts:
                counts[n] = resample_counts(n, intervals, seed)
            key = f"{short}_SRCC"
            samples[key] = np.mean([bootstrap("SRCC", predicted[a], true[a], counts[n]) for a in true.columns], axis=0)
            row[f"{key}_low"], row[f"{key}_high"] = interval(samples[key])
    return row, samples


def _order() -> list[str]:
    """Every column that a leaderboard may have, in its order."""
    ends, levels, metrics = ("", "_low", "_high"), ("sys", "utt"), ("SRCC", "LCC", "KTAU", "MSE")
    columns = ["model", *(f"{level}_SRCC{end}" for level in levels for end in ends), *(f"behind{end}" for end in ends)]
    columns += [f"{level}_{metric}" for level in levels for metric in metrics[1:]]
    columns += [f"{axis}_{level}_{metric}" for level in levels for metric in metrics for axis in AXES]
    return [*columns, "n_clips", "n_systems"]


def _csv(table: pd.DataFrame) -> str:
    """Every column at full precision; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.columns)
    for row in table.itertuples(index=False):
        writer.writerow([_cell(value) for value in row])
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) else value
    return "" if isinstance(value, float) and math.isnan(value) else value


def _markdown(table: pd.DataFrame, title: str) -> str:
    view = board(table)
    columns = [(f"{level}_{metric}", f"{level} {metric}") for level in view["levels"] for metric in view["metrics"]]
    lines = [f"# {_escaped(title)}", "", _caption(view), ""]
    columns.insert(1, ("behind", "behind the first"))
    lines += ["| model | " + " | ".join(label for _, label in columns) + " |", "|---|" + "---:|" * len(columns)]
    for row in view["rows"]:
        cells = [_with_interval(row, column) for column, _ in columns]
        lines.append(f"| {_escaped(str(row['model']))} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _caption(view: Mapping[str, Any]) -> str:
    systems = f", {view['n_systems']} systems" if view["n_systems"] else ""
    note = "; in brackets the 95 % bootstrap interval" if view["scale"] else ""
    means = f"Means over {', '.join(view['axes'])}, ranked by SRCC of {view['ranking']}{note}."
    return f"{view['n_clips']} clips{systems}. {means}"


def _with_interval(row: Mapping[str, Any], column: str) -> str:
    ends: Sequence[float] = [row.get(f"{column}_{end}", math.nan) for end in ("low", "high")]
    value = format_number(row[column])
    return value if math.isnan(ends[0]) else f"{value} [{format_number(ends[0])}, {format_number(ends[1])}]"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#!" else letter for letter in line)
