"""``check_format`` holds any format, ours or another's, to what writer and checker rely on."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from mmmos.errors import MmmosError
from mmmos.submissions.check import check_submission, read_answer
from mmmos.submissions.formats import Format, read_format
from mmmos.testing.format_subject import Subject, invented
from mmmos.testing.promises import hold

# Part of the range in which a format must tell scores apart.
RESOLUTION = 0.01


def check_format(subject: str | Path | Format, ids: Sequence[str] | None = None) -> None:
    """Raise ``AssertionError`` with a sentence for each promise that a format breaks.

    ``subject``: a format's name, the path of a ``.toml``, one in a local file (``mine.py:NAME``), or a ``Format``.
    ``ids``: some of the challenge's, two or more, where they cannot be invented from ``id_pattern``.
    """
    try:
        rules = read_format(subject)
    except (MmmosError, AttributeError) as error:
        raise AssertionError(f"it cannot be read: {error}") from error
    with TemporaryDirectory(prefix="mmmos-check-") as folder:
        hold(Subject(rules, ids, Path(folder)), CHECKS)


def what_is_written_can_be_sent(subject: Subject) -> None:
    """The checker finds nothing wrong with the folder that the writer writes."""
    problems = check_submission(subject.write().parent, format=subject.rules, clips=subject.ids)
    assert not problems, f"a written answer has problems: {problems[0]}"


def scores_come_back(subject: Subject) -> None:
    """From the file and from its zip, with their ids, within half of the last decimal."""
    scores, answer = subject.scores(), subject.write()
    files = [answer, *([answer.parent / subject.rules.archive] if subject.rules.archive else [])]
    for path in files:
        read = read_answer(path, subject.rules)
        assert list(read.index) == subject.ids, f"{path.name}: the ids come back as {list(read.index)[:3]}, …"
        assert list(read.columns) == list(scores.columns), f"{path.name}: the columns come back as {list(read.columns)}"
        gap = float(np.abs(read.to_numpy() - scores.to_numpy()).max())
        allowed = 0.5 * 10.0**-subject.rules.decimals + 1e-12
        assert gap <= allowed, f"{path.name}: scores come back with a difference of {gap:.2g}, allowed is {allowed:.2g}"


def columns_are_found_by_name(subject: Subject) -> None:
    """Predictions whose columns stand in another order are written to the same bytes."""
    scores = subject.scores()
    other = subject.write(scores[scores.columns[::-1]], "reversed").read_bytes()
    assert other == subject.write(scores).read_bytes(), "columns in another order give another answer"


def decimals_tell_scores_apart(subject: Subject) -> None:
    """Scores a hundredth of the range apart are written differently."""
    low, high = subject.rules.range
    step = RESOLUTION * (high - low)
    pair = pd.DataFrame(low, index=subject.ids[:2], columns=list(subject.rules.axes))
    pair.iloc[1] += step
    read = read_answer(subject.write(pair, "pair"), subject.rules)
    same = (read.iloc[0] == read.iloc[1]).any()
    assert not same, f"with decimals = {subject.rules.decimals}, scores {step:g} apart are the same"


def every_damage_is_found(subject: Subject) -> None:
    """Of an answer with one thing wrong, the checker names a problem."""
    unseen = [what for what, data in subject.damages() if not subject.problems(data, subject.ids)]
    assert not unseen, f"nothing is said where {'; where '.join(unseen)}"


def ids_fit_their_pattern(subject: Subject) -> None:
    """``id_pattern`` matches every id, and not one with words around it."""
    pattern = subject.rules.id_pattern
    if pattern is None:
        return
    wrong = [clip for clip in subject.ids if not re.fullmatch(pattern, clip)]
    assert not wrong, f"id_pattern = {pattern!r} does not match the id {wrong[0]!r}"
    strange = f"no clip {subject.ids[0]} of these"
    assert not re.fullmatch(pattern, strange), f"id_pattern = {pattern!r} matches {strange!r}; make it narrower"


def without_a_list_pattern_and_rows_are_the_yardstick(subject: Subject) -> None:
    """An answer of ``rows`` clips needs no list, and one of a row less has a problem."""
    rules = subject.rules
    enough = not subject.given or rules.rows in (None, len(subject.ids))
    if not enough:
        return
    ids = subject.ids if subject.given or rules.rows is None else invented(rules.id_pattern, rules.rows)
    data = subject.write(subject.scores(ids), "all").read_bytes()
    problems = subject.problems(data, None)
    assert not problems, f"an answer for all {len(ids)} clips has problems: {problems[0]}"
    if rules.rows is not None:
        cut = data.rpartition(rules.line_end.encode())[0].rpartition(rules.line_end.encode())[0]
        assert subject.problems(cut + rules.line_end.encode(), None), "nothing is said where a row of all is missing"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    what_is_written_can_be_sent,
    scores_come_back,
    columns_are_found_by_name,
    decimals_tell_scores_apart,
    every_damage_is_found,
    ids_fit_their_pattern,
    without_a_list_pattern_and_rows_are_the_yardstick,
)
