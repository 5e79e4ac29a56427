"""How results are printed: tables for people, JSON and CSV for programs."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmos import progress

if TYPE_CHECKING:
    import pandas as pd

    from mmmos.pipeline import Outcome


def say(text: str) -> None:
    """A line on stderr, or an object where progress is: what was done and what to do next."""
    sys.stderr.write(progress.as_line(text) + "\n")


def put(text: str) -> None:
    """A line on stdout: data."""
    sys.stdout.write(text + "\n")


def put_table(table: "pd.DataFrame", *, as_json: bool = False, decimals: int = 3) -> None:
    """A table on stdout: one JSON object a row, or aligned columns; undefined numbers are null or –."""
    if as_json:
        put(_as_json(table))
        return
    table = table.map(lambda value: printable(value) if isinstance(value, str) else value)
    if table.empty:
        say("Nothing to show.")
    elif sys.stdout.isatty():
        _put_rich(table, decimals)
    else:
        put(table.to_string(index=False, na_rep="–", float_format=lambda value: f"{value:.{decimals}f}"))


def _as_json(table: "pd.DataFrame") -> str:
    """Rows as JSON; half characters, which names of files may hold and UTF-8 does not, are escaped."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    text = json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)


def _put_rich(table: "pd.DataFrame", decimals: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in table.columns:
        number = table[name].dtype.kind in "fiu"
        shown.add_column(str(name), justify="right" if number else "left", overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(Text(_cell(value, decimals)) for value in row))
    Console().print(shown)


def _cell(value: Any, decimals: int) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.{decimals}f}"
    return "" if value is None else str(value)


def shown_path(path: str | Path) -> str:
    """A path as the user would type it: relative to the current folder where it lies below it."""
    path = Path(path)
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def printable(text: str) -> str:
    """A text on one line, with escapes for what would move a terminal's cursor or cannot be encoded."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def say_unusable(clips: "pd.DataFrame", limit: int = 10) -> int:
    """Name clips that were rejected and that failed (columns reason, detail) on stderr; exit code 3 for any, else 0."""
    if clips.empty:
        return 0
    from mmmos.audio import FAILED

    failed = clips["reason"].isin(FAILED)
    _say_clips(clips[~failed], f"{agreeing((~failed).sum(), 'were')} rejected ({{counts}}):", limit)
    _say_clips(clips[failed], "failed ({counts}); the same command tries them again:", limit)
    return 3


def counted(count: int, noun: str) -> str:
    """A number of things: "1 clip", "1,024 clips"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def agreeing(count: int, plural: str) -> str:
    """The form of "are" or "were" that goes with a number of things."""
    return {"are": "is", "were": "was"}[plural] if count == 1 else plural


def _say_clips(clips: "pd.DataFrame", what: str, limit: int) -> None:
    if clips.empty:
        return
    counts = ", ".join(f"{count} {reason}" for reason, count in clips["reason"].value_counts().items())
    say(f"{counted(len(clips), 'clip')} {what.format(counts=counts)}")
    for clip, detail in clips["detail"].head(limit).items():
        say(f"  {printable(str(clip))}: {printable(detail)}")
    if len(clips) > limit:
        say(f"  … and {len(clips) - limit} more")


def show_outcome(outcome: "Outcome") -> int:
    """Say what a run left: rejected clips, what was chosen, how good it is, where the files are. The exit code."""
    code = say_unusable(outcome.rejected)
    from mmmos.ensembles.ensemble import looks_at

    rule = outcome.ensemble.rule
    on = f" on {' and '.join(looks_at(rule))}" if looks_at(rule) else ""
    chosen = f"{len(outcome.ensemble)} of {len(outcome.ensemble.pool)} heads chosen by {rule.rule}{on}"
    say(f"{chosen}: {shown_path(outcome.record)}")
    if not outcome.scores.empty:
        say("SRCC of the ensemble, mean over axes, with its 95 % interval:")
        put_table(_for_people(outcome.scores))
    if outcome.answer is None:
        say("No answer is written: [data] names no eval.")
    for label, path in outcome.files().items():
        say(f"{label:<12} {shown_path(path)}")
    return code


def _for_people(scores: "pd.DataFrame") -> "pd.DataFrame":
    """An outcome's scores with one text for each correlation and its interval."""
    shown = with_intervals(scores).rename(columns={"utt_SRCC": "over clips", "sys_SRCC": "over systems"})
    return shown[[name for name in ("set", "clips", "systems", "over clips", "over systems") if name in shown]]


def with_intervals(table: "pd.DataFrame") -> "pd.DataFrame":
    """A table for people: columns x, x_low and x_high become one of texts, "0.812 (0.750 to 0.861)"."""
    for name in [name for name in table if {f"{name}_low", f"{name}_high"} <= set(table)]:
        ends = [f"{name}_low", f"{name}_high"]
        texts = [number_with_interval(*row) for row in table[[name, *ends]].itertuples(index=False)]
        table = table.assign(**{str(name): texts}).drop(columns=ends)
    return table


def number_with_interval(value: float, low: float, high: float) -> str:
    """A number to three decimals and, where it is defined, its interval."""
    if value != value:
        return "–"
    text, *ends = (f"{round(number, 3) + 0.0:.3f}" for number in (value, low, high))
    return text if low != low else f"{text} ({ends[0]} to {ends[1]})"
