"""What a clip looks like: its spectrogram as a PNG, and the scores of its segments as an SVG that lies over it.

Both fill a box of any width and height; letters stand beside it, so that they stay legible on a small screen.
"""

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from mmmos.scoring.score import SegmentScore
from mmmos.submissions.report.excerpts import hertz, mel, png
from mmmos.submissions.report.svg import nice_ticks

Samples = NDArray[np.float32]

BANDS, COLUMNS = 96, 800
RANGE = 70.0  # dB below the loudest band
TOP = 16_000.0  # Hz
SHADES = 32
SIDE = 1000  # of the square that a curve is drawn in
DOTS = 40  # segments up to which each has its dot
_AT_ONCE = 1 << 22  # samples of frames that are held


def spectrogram(wave: Samples, rate: int) -> bytes:
    """A PNG of mono samples: time across, mel bands up to ``top(rate)``, darker where there is more."""
    return png(shades(levels(wave, rate)))


def top(rate: int) -> float:
    """The highest frequency shown, in Hz."""
    return min(TOP, rate / 2)


def levels(wave: Samples, rate: int) -> NDArray[np.float64]:
    """Mel spectrogram (bands, columns), low bands first, in dB below its loudest value, at least -``RANGE``.

    Each column is the mean power of frames of about 40 ms that lie at most half a frame apart, all of them within the
    signal and the zeros around it.
    """
    size = 2 ** int(np.ceil(np.log2(0.04 * rate)))
    columns = max(1, min(COLUMNS, len(wave)))
    each = max(1, int(np.ceil(2 * len(wave) / (columns * size))))
    padded = np.pad(wave, (size // 2, size))
    starts = np.minimum(np.arange(columns * each) * len(wave) // (columns * each), len(padded) - size)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)
    step = max(1, _AT_ONCE // (size * each))
    power = [_bands(frames[part], rate, each) for part in _parts(starts, step * each)]
    loud = np.concatenate(power)
    relative = 10 * np.log10(np.maximum(loud, 1e-12) / max(float(loud.max()), 1e-9))
    return np.asarray(np.maximum(relative.T, -RANGE))


def _parts(starts: NDArray[np.int_], length: int) -> list[NDArray[np.int_]]:
    return [starts[first : first + length] for first in range(0, len(starts), length)]


def _bands(frames: Samples, rate: int, each: int) -> NDArray[np.float64]:
    """Power (columns, bands) of frames (columns × each, size), bands of equal width on the mel scale."""
    size = frames.shape[1]
    power = np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=1)) ** 2
    power = power.reshape(-1, each, power.shape[1]).mean(axis=1)
    total = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
    edges = hertz(np.linspace(0, float(mel(top(rate))), BANDS + 1)) * size / rate
    below = np.stack([np.interp(edges, np.arange(total.shape[1]), row) for row in total])
    return np.asarray(np.diff(below, axis=1))


def shades(decibels: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Levels (bands, columns) as grey, high bands first: 255 (-``RANGE`` dB) to 0 (0 dB) in ``SHADES`` steps."""
    dark = np.clip(1 + decibels[::-1] / RANGE, 0, 1)
    return (255 - np.round(dark * (SHADES - 1)) * 255 / (SHADES - 1)).astype(np.uint8)


def curve(segments: Sequence[SegmentScore], axis: str, seconds: float, shown: tuple[float, float]) -> Markup:
    """The scores of segments on one axis as an SVG over the whole clip: a line through their middles, ± their spread.

    ``shown``: the scores at the lower and the upper edge.
    """
    rows = [each for each in segments if axis in each.scores]
    if not rows:
        return Markup()
    ends = [rows[0].start, *[(each.start + each.end) / 2 for each in rows], rows[-1].end]
    score = _held([each.scores[axis] for each in rows])
    spread = _held([each.spread.get(axis, 0.0) for each in rows])
    x = np.array(ends) / seconds * SIDE
    line = _path(x, _up(score, shown))
    upper, lower = _up(score + spread, shown), _up(score - spread, shown)
    around = np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]])
    band = f'<path class="around" d="{_path(*around)}Z"/>' if spread.any() else ""
    places = zip(x[1:-1], _up(score, shown)[1:-1], strict=True) if len(rows) <= DOTS else []
    dots = "".join(f"M{a:.1f} {b:.1f}h0" for a, b in places)
    return Markup(  # noqa: S704 - numbers, and escaped text
        f'<svg class="curve" data-axis="{escape(axis)}" viewBox="0 0 {SIDE} {SIDE}" preserveAspectRatio="none">'
        f'{band}<path class="halo" d="{line}"/><path class="line" d="{line}"/><path class="dots" d="{dots}"/></svg>'
    )


def _held(values: Sequence[float]) -> NDArray[np.float64]:
    """Values with the first and the last one twice: up to the ends of the outer segments they are held."""
    return np.array([values[0], *values, values[-1]], np.float64)


def _up(scores: NDArray[np.float64], shown: tuple[float, float]) -> NDArray[np.float64]:
    low, high = shown
    return np.clip((high - scores) / ((high - low) or 1.0), 0, 1) * SIDE


def _path(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))


def time_ticks(seconds: float) -> list[tuple[float, str]]:
    """Place (0 to 1) and text of round times; above a minute as minutes and seconds."""
    if seconds > 120:
        step = next((each for each in (30, 60, 120, 300) if seconds / each <= 6), 600)
        return [(at / seconds, f"{at // 60}:{at % 60:02d}") for at in range(0, int(seconds) + 1, step)]
    return [(at / seconds, f"{at:g}") for at in nice_ticks(0, seconds, 5)]


def frequency_ticks(rate: int) -> list[tuple[float, str]]:
    """Place (0 below to 1) and text in kHz of round frequencies."""
    highest = top(rate)
    return [
        (float(mel(1000 * kilohertz) / mel(highest)), f"{kilohertz:g}")
        for kilohertz in (0.5, 1, 2, 4, 8, 16)
        if 1000 * kilohertz <= highest * 1.001
    ]


def score_ticks(shown: tuple[float, float]) -> list[tuple[float, str]]:
    """Place (0 below to 1) and text of round scores."""
    low, high = shown
    return [((tick - low) / (high - low), f"{tick:g}") for tick in nice_ticks(low, high, 5)]
