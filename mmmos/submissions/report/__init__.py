"""The report of a submission: one HTML file that says how good it is, how sure that is, and what it is made of.

Conventions
    The page needs no network and no other file; figures are inline SVG that follow the page's colours, light, dark or
    printed; excerpts of audio lie inside it. Equal arguments give equal bytes: no dates, no random ids. Every text is
    escaped. A section without data is left out.

Modules
    ``tables`` the numbers, ``plots`` the figures, ``svg`` what draws them, ``excerpts`` spectrograms and sound,
    ``summary`` the sentences on top.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from mmmos.files import write_atomic
from mmmos.metrics import srcc
from mmmos.submissions.board import board
from mmmos.submissions.pages import render
from mmmos.submissions.report import plots, tables
from mmmos.submissions.report.excerpts import SECONDS, Excerpt
from mmmos.submissions.report.summary import summary
from mmmos.submissions.report.tables import ALL, Comparison

WORST = 20  # clips that are shown
LISTED = 50  # rows of a list of clips
SOUND = 1_500_000  # bytes of all players together


def write_report(
    path: str | Path,
    *,
    title: str,
    data: pd.DataFrame,
    leaderboards: Mapping[str, pd.DataFrame],
    predictions: pd.DataFrame,
    truth: pd.DataFrame | None,
    members: pd.DataFrame,
    rejects: pd.DataFrame,
    flags: pd.DataFrame,
    notes: Sequence[str] = (),
    shown: str | None = None,
    ceilings: pd.DataFrame | None = None,
    stability: pd.DataFrame | None = None,
    contributions: pd.DataFrame | None = None,
    excerpts: Mapping[str, Excerpt] | None = None,
) -> Path:
    """Write the report to ``path`` and return it.

    ``data``: counts per set or domain (clips, usable, rejected, …). ``leaderboards``: set name -> table from
    ``leaderboard``. ``predictions``: scores indexed by clip id. ``truth``: as in ``mmmos.evaluate``, for figures and
    summary, with columns ``system``, ``domain`` and ``PQ_ratings`` … where known; None shows each axis' distribution
    instead. ``members``: a row per run of the ensemble, with ``weight_PQ`` … drawn as bars. ``rejects``: a row per
    clip that is not used, with its reason. ``flags``: a row per oddity of audio that is used. ``notes``: sentences
    below the summary. ``shown``: the name of the set that is predicted.

    ``ceilings``: as ``tables.ceilings_of``, which is called on the truth where it is None. ``stability``: as
    ``mmmos.ensembles.stability.stability``. ``contributions``: as ``mmmos.ensembles.ablation.contributions``.
    ``excerpts``: by clip id, of the clips that ``tables.worst`` names. A named index is shown as a column.
    Raises ``InputError`` when predictions and truth do not hold the same clips.
    """
    boards = {name: board(table) for name, table in leaderboards.items()}
    compared = None if truth is None else tables.compared(predictions, truth)
    if ceilings is None:
        ceilings = tables.ceilings_of(truth) if truth is not None else pd.DataFrame()
    agreement = None if compared is None else tables.correlations(compared, ceilings)
    page = render(
        "report.html",
        title=title,
        summary=summary(agreement, shown, boards.get(shown or next(iter(boards), ""))),
        glance=None if agreement is None else _glance(agreement),
        notes=list(notes),
        data=tables.view(data),
        predicted=len(predictions),
        spread=tables.view(tables.spread(predictions)),
        figures=None if compared is None else _figures(compared),
        ranks=None if compared is None else _ranks(compared, ceilings),
        within=None if agreement is None else _within(agreement),
        bias=None if compared is None else _bias(compared),
        boards=boards,
        members=_members(members),
        stability=None if stability is None or stability.empty else tables.records(stability),
        contributions=_contributions(contributions),
        worst=None if compared is None else _worst(compared, excerpts or {}),
        seconds=SECONDS,
        ceilings=not ceilings.empty,
        rejects=tables.view(rejects, LISTED),
        flags=tables.view(flags),
    )
    return write_atomic(path, page)


def _glance(agreement: pd.DataFrame) -> dict[str, Any]:
    """The correlations of all clips: a row for the mean and each axis, a block for each level, and the bars' scale."""
    pooled = agreement[agreement["group"] == ALL]
    levels = [level for level in ("sys", "utt") if (pooled["level"] == level).any()]
    cells = {(row["level"], row["axis"]): row for row in tables.records(pooled)}
    axes = list(pooled["axis"].unique())
    rows = [{"axis": axis, "cells": [cells[level, axis] for level in levels]} for axis in axes]
    counts = {level: cells[level, axes[0]]["n"] for level in levels}
    return {"rows": rows, "levels": levels, "counts": counts, "scale": _scale(pooled)}


def _scale(agreement: pd.DataFrame) -> tuple[float, float]:
    """What bars of correlations span: from 0, or below where one is, to 1."""
    low = np.nanmin([0.0, *agreement["SRCC"], *agreement["SRCC_low"]])
    return (-1.0 if low < 0 else 0.0), 1.0


def _figures(compared: Comparison) -> list[dict[str, Any]]:
    """Scatter and ranking of systems of each axis with truth."""
    found = []
    for axis in compared.axes:
        systems = tables.systems(compared, axis)
        true, predicted = (side[axis].to_numpy() for side in (compared.aligned.true, compared.aligned.predicted))
        means = None
        if len(systems):
            means = plots.Means(tuple(systems.index), systems["true"].to_numpy(), systems["predicted"].to_numpy())
        found.append(
            {
                "axis": axis,
                "name": plots.title(axis),
                "scatter": plots.scatter(axis, true, predicted, means),
                "srcc": srcc(predicted, true),
                "sys_srcc": None if means is None else srcc(means.predicted, means.true),
                "systems": plots.ranking(axis, _ends(systems)) if len(systems) > 1 else None,
                "left_out": max(0, len(systems) - plots.SYSTEMS),
            }
        )
    return found


def _ends(systems: pd.DataFrame) -> pd.DataFrame:
    """The best and the worst systems, where there are too many to show."""
    half = plots.SYSTEMS // 2
    return systems if len(systems) <= plots.SYSTEMS else systems.iloc[[*range(half), *range(-half, 0)]]


def _ranks(compared: Comparison, ceilings: pd.DataFrame) -> list[dict[str, Any]]:
    """Rank plots of every axis within each domain, or of all clips where there are no domains."""
    blocks = []
    for group in [group for group in compared.groups if group != ALL] or [ALL]:
        part, figures = compared.of(group), []
        for axis in compared.axes:
            true, predicted = part.true[axis].to_numpy(), part.predicted[axis].to_numpy()
            value, limit = srcc(predicted, true), tables.ceiling(ceilings, axis, group, "utt_SRCC")
            svg = plots.ranks(axis, group, true, predicted, value, limit)
            figures.append({"svg": svg, "name": plots.title(axis), "srcc": value, "ceiling": limit})
        blocks.append({"group": group, "n": len(part.true), "figures": figures})
    return blocks


def _within(agreement: pd.DataFrame) -> dict[str, Any] | None:
    """Correlations of all clips beside those within each domain, None where there are no domains."""
    if agreement["group"].nunique() < 2:
        return None
    axes = list(agreement["axis"].unique())
    levels = [level for level in ("sys", "utt") if (agreement["level"] == level).any()]
    blocks = []
    for level in levels:
        part = agreement[agreement["level"] == level]
        rows = [
            {"group": group, "n": int(cells["n"].iloc[0]), "cells": tables.records(cells)}
            for group, cells in part.groupby("group", sort=False)
        ]
        blocks.append({"level": level, "rows": rows})
    return {"axes": axes, "blocks": blocks, "scale": _scale(agreement)}


def _bias(compared: Comparison) -> dict[str, Any]:
    """Mean residuals by true score, drawn, and by group."""
    bins = {
        axis: tables.bias_by_score(compared.aligned.true[axis].to_numpy(), compared.aligned.predicted[axis].to_numpy())
        for axis in compared.axes
    }
    svgs = {axis: plots.bias(axis, frame) for axis, frame in bins.items()}
    return {"svgs": svgs, "axes": compared.axes, "groups": tables.records(tables.bias_by_group(compared))}


def _members(members: pd.DataFrame) -> dict[str, Any]:
    """The table of members without its weights, and these as shares of the largest, for bars."""
    weights = [name for name in members.columns if str(name).startswith("weight_")]
    largest = float(np.nanmax(members[weights].to_numpy(np.float64), initial=0)) if weights else 0.0
    rows = members[weights].to_dict("records")
    axes = [str(name).removeprefix("weight_") for name in weights]
    drawn = [[{"value": row[name], "share": row[name] / (largest or 1.0)} for name in weights] for row in rows]
    return {"table": tables.view(members.drop(columns=weights)), "axes": axes, "weights": drawn}


def _contributions(table: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Ablation: a block for each set, domain and metric, with a row for each level of each factor, a cell an axis."""
    if table is None or table.empty:
        return []
    reach = float(np.nanmax(table[["effect", "low", "high"]].abs().to_numpy(np.float64), initial=0)) or 1.0
    blocks = []
    for (name, domain, metric), part in table.groupby(["set", "domain", "metric"], sort=False, dropna=False):
        axes = list(part["axis"].unique())
        rows = []
        for (factor, level), cells in part.groupby(["factor", "level"], sort=False, dropna=False):
            by_axis = {row["axis"]: row for row in tables.records(cells)}
            rows.append({"factor": factor, "level": level, "cells": [by_axis.get(axis) for axis in axes]})
        blocks.append({"set": name, "domain": domain, "metric": metric, "axes": axes, "rows": rows, "reach": reach})
    return blocks


def _worst(compared: Comparison, excerpts: Mapping[str, Excerpt]) -> list[dict[str, Any]]:
    """The clips farthest from their truth, with what they look and sound like as far as the page's size allows."""
    found, sound = [], 0
    true, predicted, systems = compared.aligned.true, compared.aligned.predicted, compared.aligned.systems
    domains = {true.index[row]: group for group, rows in compared.groups.items() if group != ALL for row in rows}
    for name, error in tables.worst(compared, WORST).items():
        clip = str(name)
        card: dict[str, Any] = {
            "id": clip,
            "error": float(error),
            "about": [text for text in (domains.get(clip), None if systems is None else systems[clip]) if text],
            "scores": plots.scores(compared.axes, true.loc[clip].to_numpy(), predicted.loc[clip].to_numpy()),
            "picture": None,
            "sound": None,
        }
        excerpt = excerpts.get(clip)
        if excerpt is not None:
            card["picture"] = plots.spectrogram(excerpt, _uri("image/png", excerpt.picture))
            card["seconds"] = excerpt.seconds
            if excerpt.sound and sound + len(excerpt.sound) <= SOUND:
                sound += len(excerpt.sound)
                card["sound"] = _uri("audio/mpeg", excerpt.sound)
        found.append(card)
    return found


def _uri(kind: str, content: bytes) -> Markup:
    return Markup(f"data:{kind};base64,{base64.b64encode(content).decode()}")  # noqa: S704 - letters and digits
