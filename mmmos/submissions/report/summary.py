"""The sentences on top of a report: how good, on what, how sure, and what is out of reach."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from mmmos.submissions.board import NAMES, TOLD_APART
from mmmos.submissions.pages import format_number
from mmmos.submissions.report.plots import title
from mmmos.submissions.report.tables import ALL, records

Cells = dict[str, Mapping[str, Any]]  # axis or "mean" -> row of ``tables.correlations``


def summary(agreement: pd.DataFrame | None, shown: str | None, board: Mapping[str, Any] | None) -> list[str]:
    """Sentences from the correlations of all clips (``tables.correlations``) and the leaderboard of the set shown.

    ``board``: as ``board.board`` gives it. No sentences where ``agreement`` is None, as it is without truth.
    """
    if agreement is None:
        return []
    levels: dict[str, Cells] = {}
    for row in records(agreement[agreement["group"] == ALL]):
        levels.setdefault(row["level"], {})[row["axis"]] = row
    level = "sys" if "sys" in levels else "utt"
    sentences = [_how_good(levels, shown), _ceiling(levels["utt"]["mean"]), _axes(levels[level], level)]
    return [sentence for sentence in [*sentences, _told_apart(board)] if sentence]


def _how_good(levels: Mapping[str, Cells], shown: str | None) -> str:
    known = [level for level in ("sys", "utt") if level in levels]
    sizes = " of ".join(f"{levels[level]['mean']['n']} {NAMES[level]}" for level in reversed(known))
    scores = " and ".join(f"{NAMES[level]} with an SRCC of {_with_interval(levels[level]['mean'])}" for level in known)
    return f"On {f'{shown}, ' if shown else ''}{sizes}, the predictions rank {scores}, as means over the axes."


def _ceiling(row: Mapping[str, Any]) -> str:
    limit, value = row["SRCC_ceiling"], row["SRCC"]
    if not (math.isfinite(limit) and math.isfinite(value)):
        return ""
    side = "below" if value <= limit else "above"
    return (
        f"Against ratings as noisy as these, a perfect model would rank clips with {format_number(limit)};"
        f" the predictions are {format_number(abs(limit - value))} {side} that."
    )


def _axes(cells: Cells, level: str) -> str:
    values = {axis: row["SRCC"] for axis, row in cells.items() if axis != "mean" and math.isfinite(row["SRCC"])}
    if len(values) < 2:
        return ""
    best, least = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
    return (
        f"Among the axes, {title(best)} is ranked best ({format_number(values[best])}) and"
        f" {title(least)} least ({format_number(values[least])}) over {NAMES[level]}."
    )


def _told_apart(board: Mapping[str, Any] | None) -> str:
    rows = [] if board is None else board["rows"]
    known = [row["p"] for row in rows[1:] if math.isfinite(row.get("p", math.nan))]
    if not known:
        return ""
    close = sum(p >= TOLD_APART for p in known)
    count = {0: "every other row is worse", len(known): "no other row can be told apart from it"}
    words = count.get(close, f"{close} of {len(known)} other rows cannot be told apart from it")
    return f"On the leaderboard, {rows[0]['model']} comes first; {words}."


def _with_interval(row: Mapping[str, Any]) -> str:
    value = format_number(row["SRCC"])
    if not math.isfinite(row["SRCC_low"]):
        return value
    return f"{value} (95 % interval {format_number(row['SRCC_low'])} to {format_number(row['SRCC_high'])})"
