"""Drawing: a plane with two axes as inline SVG that follows the page's colours, in light, dark and print.

Shapes name their style by a class of ``templates/base.html``; what a class looks like is written there alone.
Coordinates have one decimal, so equal numbers give equal bytes. Every text is escaped.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from mmmos.submissions.pages import format_number, visible

DENSE = 600  # points from which they are drawn small, in layers whose overlaps show
LAYERS = 6


class Plot:
    """A plane of ``width`` × ``height`` px that shows ``x`` and ``y`` (low, high) within margins.

    ``margins``: left, right, top, bottom in px.
    """

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: float = 280,
        height: float = 270,
        margins: tuple[float, float, float, float] = (34, 10, 8, 38),
    ) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height
        left, right, top, bottom = margins
        self._across = (left, width - right)
        self._up = (height - bottom, top)
        self._shapes: list[str] = []

    def at_x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Places across in px."""
        return _mapped(values, self.x, self._across)

    def at_y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Places down in px."""
        return _mapped(values, self.y, self._up)

    def ticks(self, x: Sequence[float] = (), y: Sequence[float] = (), *, digits: int = 0) -> None:
        """Numbers along the axes, with the axis itself from the first to the last of them."""
        bottom, left = self._up[0], self._across[0]
        for value, place in zip(map(float, x), self.at_x(x), strict=True):
            self.text(place, bottom + 16, format_number(value, digits), "middle")
        for value, place in zip(map(float, y), self.at_y(y), strict=True):
            self.text(left - 6, place + 4, format_number(value, digits), "end")
        if len(x):
            self._path(f"M{_pairs(self.at_x([x[0], x[-1]]), np.full(2, bottom + 2.0))}", "rule")
        if len(y):
            self._path(f"M{_pairs(np.full(2, left - 2.0), self.at_y([y[0], y[-1]]))}", "rule")

    def labels(self, x: str = "", y: str = "") -> None:
        """What the axes show: below in the middle, and on top of the left axis, unturned."""
        if x:
            self.text(sum(self._across) / 2, self.height - 5, x, "middle")
        if y:
            self.text(self._across[0] + 3, self._up[1] + 4, y)

    def line(self, x: ArrayLike, y: ArrayLike, kind: str) -> None:
        """A line through points; it is broken where one is not finite."""
        points = np.column_stack([self.at_x(x), self.at_y(y)])
        for part in np.split(points, np.flatnonzero(~np.isfinite(points).all(axis=1))):
            drawn = part[np.isfinite(part).all(axis=1)]
            if len(drawn) > 1:
                self._path(f"M{_pairs(*drawn.T)}", kind)

    def spans(self, low: ArrayLike, high: ArrayLike, at: ArrayLike, kind: str, *, upright: bool = False) -> None:
        """A bar from low to high at each place of the other axis; those that are not finite are left out."""
        a, b, place = (np.asarray(each, np.float64) for each in (low, high, at))
        known = np.isfinite(a) & np.isfinite(b)
        a, b, place = a[known], b[known], place[known]
        if upright:
            ends = zip(self.at_x(place), self.at_y(a), self.at_y(b), strict=True)
            drawn = "".join(f"M{x:.1f} {y:.1f}V{end:.1f}" for x, y, end in ends)
        else:
            ends = zip(self.at_x(a), self.at_y(place), self.at_x(b), strict=True)
            drawn = "".join(f"M{x:.1f} {y:.1f}H{end:.1f}" for x, y, end in ends)
        if drawn:
            self._path(drawn, kind)

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """What lies between two lines."""
        across = self.at_x(x)
        both = np.concatenate([across, across[::-1]]), np.concatenate([self.at_y(low), self.at_y(high)[::-1]])
        self._path(f"M{_pairs(*both)}Z", kind)

    def dots(self, x: ArrayLike, y: ArrayLike, kind: str = "dots") -> None:
        """A dot for each point: lines of no length with round ends, in as few elements as their overlaps need."""
        across, up = self.at_x(x), self.at_y(y)
        known = np.isfinite(across) & np.isfinite(up)
        across, up = across[known], up[known]
        dense = len(across) > DENSE
        for layer in range(LAYERS if dense else 1):
            step = slice(layer, None, LAYERS if dense else 1)
            marks = (f"M{a:.1f} {b:.1f}h0" for a, b in zip(across[step], up[step], strict=True))
            drawn = "".join(marks)
            if drawn:
                self._path(drawn, f"{kind} dense" if dense else kind)

    def rings(self, x: ArrayLike, y: ArrayLike, names: Iterable[str] = (), *, radius: float = 4.5) -> None:
        """A ring for each point; the names are shown to a pointer that rests on it."""
        places = list(zip(self.at_x(x), self.at_y(y), strict=True))
        titles = [f"<title>{escape(visible(name))}</title>" for name in names] or [""] * len(places)
        self._shapes += [
            f'<circle class="ring" cx="{a:.1f}" cy="{b:.1f}" r="{radius}">{title}</circle>'
            for (a, b), title in zip(places, titles, strict=True)
        ]

    def text(self, x: float, y: float, text: str, anchor: str = "start", *, full: str = "") -> None:
        """A text at a place in px; ``full`` is shown to a pointer that rests on it."""
        title = f"<title>{escape(visible(full))}</title>" if full else ""
        self._shapes.append(
            f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(visible(text))}{title}</text>'
        )

    def image(self, source: str, width: float, height: float) -> None:
        """A picture in the upper left corner of the plane; ``source``: a data URI."""
        x, y = self._across[0], self._up[1]
        self._shapes.append(
            f'<image class="spectrogram" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
            f' preserveAspectRatio="none" href="{escape(source)}"/>'
        )

    def svg(self, label: str) -> Markup:
        """The drawing as an element of a page; ``label`` is what a screen reader says."""
        size = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        shapes = "".join(self._shapes)
        return Markup(f'<svg role="img" aria-label="{escape(visible(label))}" {size}>{shapes}</svg>')  # noqa: S704 - escaped above

    def _path(self, drawn: str, kind: str) -> None:
        self._shapes.append(f'<path class="{kind}" d="{drawn}"/>')


def _mapped(values: ArrayLike, shown: tuple[float, float], places: tuple[float, float]) -> NDArray[np.float64]:
    width = (shown[1] - shown[0]) or 1.0
    return places[0] + (np.asarray(values, np.float64) - shown[0]) / width * (places[1] - places[0])


def _pairs(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that cover [low, high] in at most about ``most`` steps of 1, 2 or 5 times a power of ten."""
    rough = max(high - low, 1e-9) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = np.ceil(low / step - 1e-9), np.floor(high / step + 1e-9)
    return [float(round(number * step, 10)) + 0.0 for number in np.arange(first, last + 1)]
