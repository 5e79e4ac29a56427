"""What is said of a clip: scores with their spread, flags, or the reason why there are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmmos.axes import AXES

DIGITS = 6


@dataclass(frozen=True)
class SegmentScore:
    """Scores of one segment [``start``, ``end``) of the file, in s; empty where an encoder could not process it."""

    start: float
    end: float
    scores: dict[str, float]
    spread: dict[str, float]

    def row(self, axes: Sequence[str]) -> dict[str, Any]:
        """start, end and the numbers of the axes, safe for JSON."""
        return {"start": _number(self.start), "end": _number(self.end)} | _numbers(self.scores, self.spread, axes)


@dataclass(frozen=True)
class Score:
    """One clip, scored or not.

    ``path``: the file, None for samples; ``start`` and ``end``: the segment that was asked for, in s, None to either
    end; ``seconds`` of audio, None where it could not be read to its end. ``scores`` and ``spread`` (standard deviation
    of what single heads say, empty where there is one head) by axis, in score units. ``reason``: a code of
    ``audio.REASONS``, or of ``audio.FLAGS`` where damage is refused; "" when scored. ``segments``: None unless asked
    for.
    """

    id: str
    path: str | None = None
    start: float | None = None
    end: float | None = None
    seconds: float | None = None
    scores: dict[str, float] = field(default_factory=dict)
    spread: dict[str, float] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""
    segments: tuple[SegmentScore, ...] | None = None

    def row(self, axes: Sequence[str]) -> dict[str, Any]:
        """The clip as JSON-safe values: None is unknown, numbers have 6 decimals; axes in the order of ``AXES``."""
        place = {"start": _number(self.start), "end": _number(self.end), "seconds": _number(self.seconds)}
        row: dict[str, Any] = {"id": self.id, "path": self.path} | place | _numbers(self.scores, self.spread, axes)
        row |= {"flags": list(self.flags), "reason": self.reason or None, "detail": self.detail or None}
        if self.segments is not None:
            row["segments"] = [segment.row(axes) for segment in self.segments]
        return row


def columns(axes: Sequence[str]) -> list[str]:
    """The keys of a row without segments."""
    return list(Score("").row(axes))


def _numbers(scores: Mapping[str, float], spread: Mapping[str, float], axes: Sequence[str]) -> dict[str, float | None]:
    ordered = [axis for axis in AXES if axis in axes]
    found = {axis: _number(scores.get(axis)) for axis in ordered}
    return found | {f"{axis}_spread": _number(spread.get(axis)) for axis in ordered}


def _number(value: float | None) -> float | None:
    return None if value is None else round(float(value), DIGITS)
