"""The files of a leaderboard: CSV with every number, Markdown and HTML with the main ones.

Model names are escaped for where they are read: HTML, Markdown, and spreadsheets that would run a formula.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mmmos.axes import AXES
from mmmos.files import write_atomic
from mmmos.submissions.pages import format_fact, format_number, format_p, markdown_text, render, visible

NAMES = {"sys": "systems", "utt": "clips"}
FORMULA = ("=", "+", "-", "@", "\t", "\r")

# Adjusted p-values from which a model is not told apart from the first.
TOLD_APART = 0.05

# Columns of what is known of a model beside its predictions, as people call them.
FACTS = {"members": "runs", "fit_time": "training, s", "pred_time_test": "prediction, s"}


def write_leaderboard(
    table: pd.DataFrame, folder: str | Path, title: str = "Leaderboard", notes: Sequence[str] = ()
) -> list[Path]:
    """Write ``leaderboard.csv`` (every column), ``.md`` (the main ones) and ``.html`` (self-contained) into a folder.

    ``table``: as ``leaderboard`` returns it. ``notes``: sentences for the readers of the last two. Returns the three
    paths. Equal arguments give equal bytes.
    """
    html = render("leaderboard.html", title=title, board=board(table), notes=list(notes))
    texts = {"csv": _csv(table), "md": _markdown(table, title, notes), "html": html}
    return [write_atomic(Path(folder) / f"leaderboard.{kind}", text) for kind, text in texts.items()]


def board(table: pd.DataFrame) -> dict[str, Any]:
    """What the templates show of a leaderboard: columns, rows, the per-axis table, and the scale of its interval bars.

    ``ranking`` is "sys" or "utt"; bars span the lowest to the highest end of all intervals, as fractions in [0, 1];
    ``verdict`` says in words what ``p`` does, in the first row nothing.
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
    rows = table.to_dict("records")
    verdicts = ["", *(verdict(row.get("p", math.nan)) for row in rows[1:])]
    return {
        "ranking": NAMES[ranking],
        "n_clips": int(table["n_clips"].iloc[0]),
        "n_systems": int(table["n_systems"].iloc[0]),
        "levels": levels,
        "level_names": NAMES,
        "axes": [axis for axis in AXES if f"{axis}_utt_SRCC" in table],
        "metrics": ["SRCC", "LCC", "KTAU", "MSE"],
        "facts": {name: label for name, label in FACTS.items() if name in table and table[name].notna().any()},
        "scale": scale,
        "rows": [{"bar": bar, "verdict": words, **row} for bar, words, row in zip(bars, verdicts, rows, strict=True)],
    }


def for_people(table: pd.DataFrame) -> pd.DataFrame:
    """The columns that a person compares models by: SRCC and MSE at each level and how far behind, with the ends of
    their intervals, what ``p`` says in words, and what is known beside.
    """
    view = board(table)
    numbers = [*(f"{level}_SRCC" for level in view["levels"]), "behind", *(f"{level}_MSE" for level in view["levels"])]
    columns = [f"{name}{end}" for name in numbers for end in ("", "_low", "_high")]
    shown = table[["model", *(column for column in columns if column in table)]].copy()
    if "p" in table:
        shown["p"] = [row["verdict"] or "–" for row in view["rows"]]
    for name, label in view["facts"].items():
        shown[label] = [format_fact(row[name], name) for row in view["rows"]]
    return shown


def verdict(p: float) -> str:
    """What an adjusted p-value says of a model and the first, in words; nothing where it is unknown."""
    if math.isnan(p):
        return ""
    return f"not told apart, {format_p(p)}" if p >= TOLD_APART else f"worse, {format_p(p)}"


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
        return visible(f"'{value}" if value.startswith(FORMULA) else value)
    return "" if isinstance(value, float) and math.isnan(value) else value


def _markdown(table: pd.DataFrame, title: str, notes: Sequence[str]) -> str:
    view = board(table)
    columns = [(f"{level}_{metric}", f"{level} {metric}") for level in view["levels"] for metric in view["metrics"]]
    lines = [f"# {markdown_text(title)}", "", _caption(view), *(markdown_text(note) for note in notes), ""]
    columns.insert(1, ("behind", "behind the first"))
    heads = [*(label for _, label in columns), *view["facts"].values()]
    lines += ["| model | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    for row in view["rows"]:
        cells = [_with_interval(row, column) for column, _ in columns]
        cells[1] += f" {row['verdict']}" if row["verdict"] else ""
        cells += [format_fact(row[name], name) for name in view["facts"]]
        lines.append(f"| {markdown_text(str(row['model']))} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _caption(view: Mapping[str, Any]) -> str:
    systems = f", {view['n_systems']} systems" if view["n_systems"] else ""
    note = "; in brackets the 95 % interval" if view["scale"] else ""
    means = f"Means over {', '.join(view['axes'])}, ranked by SRCC of {view['ranking']}{note}."
    return f"{view['n_clips']} clips{systems}. {means}"


def _with_interval(row: Mapping[str, Any], column: str) -> str:
    ends: Sequence[float] = [row.get(f"{column}_{end}", math.nan) for end in ("low", "high")]
    value = format_number(row[column])
    return value if math.isnan(ends[0]) else f"{value} [{format_number(ends[0], 2)}, {format_number(ends[1], 2)}]"
