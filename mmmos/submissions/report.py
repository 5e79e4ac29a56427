"""The report of a submission: one HTML file that says what went in, how good it is, and what it is made of.

Conventions
    The page needs no network and no other file; figures are inline SVG that follow the page's colours, light or dark.
    Equal arguments give equal bytes: no dates, no random ids. Every text is escaped.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmmos.axes import AXES, LONG_NAMES, SCALE
from mmmos.files import write_atomic
from mmmos.metrics import align, srcc
from mmmos.submissions.leaderboard import board, render

RASTER_ABOVE = 600  # points from which a figure holds pixels instead of one vector shape each
_STYLE: Any = {"svg.hashsalt": "mmmos", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}
_COLOURS = {"#010101": "var(--ink)", "#020202": "var(--soft)", "#030303": "var(--rule)", "#040404": "var(--mark)"}
_INK, _SOFT, _RULE, _MARK = _COLOURS
_POINT = "#4f93bd"  # readable on light and dark, since pixels cannot follow the page


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
) -> Path:
    """Write the report to ``path`` and return it.

    ``data``: counts per set or domain (clips, usable, rejected, …). ``leaderboards``: set name -> table from
    ``leaderboard``. ``predictions``: scores indexed by clip id. ``truth``: as in ``mmmos.evaluate``, for the figures;
    None shows each axis' distribution instead. ``members``: a row per run of the ensemble with its weight.
    ``rejects``: a row per clip that is not used, with its reason. ``flags``: a row per oddity of audio that is used.
    ``notes``: sentences shown at the top. A named index is shown as a column.
    Raises ``InputError`` when predictions and truth do not hold the same clips.
    """
    figures = _figures(predictions, truth) if truth is not None else {}
    page = render(
        "report.html",
        title=title,
        notes=list(notes),
        data=_table(data),
        boards={name: board(table) for name, table in leaderboards.items()},
        predicted=len(predictions),
        figures=figures,
        systems=any(figure["sys_srcc"] is not None for figure in figures.values()),
        spread=_table(_spread(predictions)),
        members=_table(members),
        rejects=_table(rejects),
        flags=_table(flags),
    )
    return write_atomic(path, page)


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    """Columns (name, numeric) and rows of a DataFrame for the template, with a named index as first column."""
    frame = frame.reset_index() if frame.index.name is not None or frame.index.nlevels > 1 else frame
    numeric = [pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind) for kind in frame.dtypes]
    columns = [
        {"name": str(name), "numeric": is_number} for name, is_number in zip(frame.columns, numeric, strict=True)
    ]
    return {"columns": columns, "rows": [list(row) for row in frame.itertuples(index=False, name=None)]}


def _spread(predictions: pd.DataFrame) -> pd.DataFrame:
    scores = predictions[[axis for axis in AXES if axis in predictions]]
    quantiles = scores.quantile([0.0, 0.25, 0.5, 0.75, 1.0]).T.set_axis(
        ["lowest", "25 %", "median", "75 %", "highest"], axis=1
    )
    return quantiles.assign(mean=scores.mean()).rename_axis("axis")


def _figures(predictions: pd.DataFrame, truth: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """One figure an axis with truth: {"svg", "name", "srcc", "sys_srcc" (None without systems)}."""
    levels = align(predictions, truth).levels()
    figures = {}
    for axis in levels["utterance"][1].columns:
        (x, y), *means = [(true[axis].to_numpy(), predicted[axis].to_numpy()) for predicted, true in levels.values()]
        figures[axis] = {
            "svg": Markup(_scatter(axis, x, y, means[0] if means else None)),  # noqa: S704 - made of numbers alone
            "name": LONG_NAMES[axis].replace("_", " "),
            "srcc": srcc(y, x),
            "sys_srcc": srcc(means[0][1], means[0][0]) if means else None,
        }
    return figures


def _scatter(axis: str, x: np.ndarray, y: np.ndarray, means: tuple[np.ndarray, np.ndarray] | None) -> str:
    """SVG of predictions (clips,) against truth (clips,), with system means as rings, on the raw scale."""
    low, high = min(SCALE[0], y.min()), max(SCALE[1], y.max())
    with rc_context(_STYLE):
        figure = Figure(figsize=(3.3, 3.1), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        plot = figure.add_subplot()
        figure.patch.set_alpha(0)
        plot.patch.set_alpha(0)
        plot.plot([low, high], [low, high], color=_RULE, linewidth=1, zorder=1)
        dense = len(x) > RASTER_ABOVE
        plot.plot(
            x,
            y,
            "o",
            markersize=2.2 if dense else 3,
            markeredgewidth=0,
            color=_POINT,
            alpha=0.35 if dense else 0.6,
            rasterized=dense,
            zorder=2,
        )
        if means is not None:
            plot.plot(
                *means, "o", markersize=7, markerfacecolor="none", markeredgecolor=_INK, markeredgewidth=1.1, zorder=3
            )
        plot.set(xlim=(low, high), ylim=(low, high), aspect="equal", xticks=range(0, 11, 2), yticks=range(0, 11, 2))
        plot.set_xlabel(f"true {axis}", color=_SOFT)
        plot.set_ylabel(f"predicted {axis}", color=_SOFT)
        plot.tick_params(color=_RULE, labelcolor=_SOFT)
        plot.spines[["top", "right"]].set_visible(False)
        plot.spines[["left", "bottom"]].set_color(_RULE)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(file.getvalue(), axis)


def _inline(svg: str, axis: str) -> str:
    """An SVG file as an element of a page: own ids, the page's colours and font, a label for screen readers."""
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{axis}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{axis}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font: \1 system-ui, sans-serif", svg)
    for sentinel, colour in _COLOURS.items():
        svg = svg.replace(sentinel, colour)
    return svg.replace("<svg", f'<svg role="img" aria-label="Predicted against true {axis}"', 1)
