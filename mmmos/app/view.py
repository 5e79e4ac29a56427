"""The parts of the page as HTML: what is scored with, the table of all files, the details of one."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from mmmos.app import pictures
from mmmos.app.clips import REASONS, Entry, segment_length
from mmmos.app.reference import Quantiles, Reference, domains, middle, place_in_words, shown_range
from mmmos.audio import FLAGS
from mmmos.axes import SCALE
from mmmos.submissions.pages import format_number, visible
from mmmos.submissions.report.plots import title


@dataclass(frozen=True)
class Subject:
    """What the page scores with: its ``name``, its ``axes``, sentences about it, and the reference of its ratings."""

    name: str
    axes: tuple[str, ...]
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    reference: Reference = field(default_factory=dict)

    @property
    def domains(self) -> list[str]:
        """The references to choose from."""
        return domains(self.reference)


def head(subject: Subject) -> str:
    """The page's heading."""
    return _render("head", subject=subject)


def drop() -> str:
    """Where files are dropped."""
    return _render("drop")


def status(now: str) -> str:
    """What is being done; nothing when nothing is."""
    return _render("status", now=now) if now else ""


def table(subject: Subject, entries: Sequence[Entry], chosen: int, csv: str) -> str:
    """All files, a row each, the one ``chosen`` whose details are shown; ``csv``: the same for download."""
    if not entries:
        return ""
    address = Markup("data:text/csv;charset=utf-8,") + quote(csv.encode("utf-8", "backslashreplace"))
    return _render("table", subject=subject, entries=entries, chosen=chosen, csv=address)


def details(subject: Subject, entry: Entry | None) -> str:
    """One file: its scores against the reference, its flags, its picture; or why it has none."""
    if entry is None:
        return ""
    score = entry.score
    values = [each for row in score.segments or () for each in row.scores.values()]
    shown = shown_range(subject.reference, values)
    return _render("details", subject=subject, entry=entry, score=score, picture=_picture(subject, entry, shown))


def _picture(subject: Subject, entry: Entry, shown: tuple[float, float]) -> dict[str, Any] | None:
    score = entry.score
    if not entry.picture or entry.sound is None or not score.seconds:
        return None
    segments = score.segments if score.segments and len(score.segments) > 1 else ()
    length = segment_length(score.seconds)
    return {
        "source": "data:image/png;base64," + base64.b64encode(entry.picture).decode(),
        "sound": f"gradio_api/file={quote(entry.sound.as_posix())}",
        "curves": [pictures.curve(segments, axis, score.seconds, shown) for axis in subject.axes] if segments else [],
        "segments": segments,
        "length": length,
        "hop": length / 2,
        "range": pictures.RANGE,
        "times": pictures.time_ticks(score.seconds),
        "frequencies": pictures.frequency_ticks(entry.rate),
        "scores": pictures.score_ticks(shown),
    }


def clock(seconds: float | None) -> str:
    """A length for reading: "0.85 s", "12.3 s", "9:05 min"; "–" where it is unknown."""
    if seconds is None or seconds != seconds:
        return "–"
    if seconds >= 60:
        whole = round(seconds)
        return f"{whole // 60}:{whole % 60:02d} min"
    return f"{format_number(seconds, 2 if seconds < 1 else 1)} s"


def across(score: float) -> str:
    """Where a score lies on the scale, in % of its length from the left."""
    low, high = SCALE
    return f"{min(max((score - low) / (high - low), 0), 1) * 100:.2f}%"


def reason(code: str) -> str:
    """Why a file has no scores, in words."""
    return REASONS.get(code, code)


def flag(code: str) -> str:
    """A flag in words."""
    return FLAGS.get(code, code)


def _render(name: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmmos.app", "assets"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {"number": format_number, "title": title, "clock": clock, "across": across}
    environment.filters |= {"reason": reason, "flag": flag}
    environment.globals |= {"place_in_words": place_in_words, "middle": middle}
    environment.globals["quantiles"] = quantiles
    return environment.get_template(f"{name}.html").render(**values)


def quantiles(subject: Subject, axis: str) -> Mapping[str, Quantiles]:
    """An axis' reference by domain."""
    return {name: subject.reference[name][axis] for name in subject.domains if axis in subject.reference[name]}
