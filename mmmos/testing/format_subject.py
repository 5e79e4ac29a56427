"""A format under test, with ids and scores that fit it, and ways to damage an answer."""

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mmmos.submissions.check import check_submission
from mmmos.submissions.formats import Format
from mmmos.submissions.write import write_submission

CLIPS = 12

Lines = list[str]


class Subject:
    """The format under test, ids of clips, and a folder to write to."""

    def __init__(self, rules: Format, ids: Sequence[str] | None, folder: Path) -> None:
        self.rules, self.folder = rules, folder
        self.given = ids is not None
        self.ids = list(ids) if ids is not None else invented(rules.id_pattern, CLIPS)

    def scores(self, ids: Sequence[str] | None = None) -> pd.DataFrame:
        """Scores from one end of the range to the other, a column for each of the format's."""
        index = pd.Index(list(self.ids if ids is None else ids), dtype=object)
        low, high = self.rules.range
        steps = np.linspace(low, high, len(index) * len(self.rules.axes)).reshape(len(index), -1)
        return pd.DataFrame(steps, index=index, columns=list(self.rules.axes))

    def write(self, scores: pd.DataFrame | None = None, name: str = "answer") -> Path:
        """An answer for the ids."""
        frame = self.scores() if scores is None else scores
        return write_submission(frame, list(frame.index), format=self.rules, to=self.folder / name)

    def problems(self, data: bytes, clips: Sequence[str] | None) -> list[str]:
        """What the checker says of an answer file that holds these bytes."""
        path = self.folder / self.rules.file
        path.write_bytes(data)
        return [str(problem) for problem in check_submission(path, format=self.rules, clips=clips)]

    def damages(self) -> Iterator[tuple[str, bytes]]:
        """Answers with one thing wrong, by what it is."""
        rules, good = self.rules, self.write().read_bytes()
        end = rules.line_end
        lines = good.decode().split(end)[:-1]
        head = 1 if rules.has_header() else 0
        low, high = rules.range

        def changed(change: Callable[[Lines], Lines]) -> bytes:
            return (end.join(change(list(lines))) + end).encode()

        def score(text: str) -> bytes:
            row = lines[head]
            *rest, _ = row.split(rules.delimiter)
            return changed(lambda rows: [*rows[:head], rules.delimiter.join([*rest, text]), *rows[head + 1 :]])

        first, last = lines[head], lines[-1]
        yield "a row is missing", changed(lambda rows: rows[:-1])
        yield "a row stands twice", changed(lambda rows: [*rows, last])
        yield "a row is of no clip", changed(lambda rows: [*rows, "no clip of these" + last])
        yield "a line is empty", changed(lambda rows: [*rows, ""])
        yield "a field is missing", changed(lambda rows: [*rows[:-1], last.rpartition(rules.delimiter)[0]])
        yield "a column is too many", changed(lambda rows: [*rows[:-1], f"{last}{rules.delimiter}{low:g}"])
        other = ";" if rules.delimiter != ";" else ","
        yield "the delimiter is another", changed(lambda rows: [row.replace(rules.delimiter, other) for row in rows])
        yield "a score lies above the range", score(f"{high + 1:.{rules.decimals}f}")
        yield "a score lies below the range", score(f"{low - 1:.{rules.decimals}f}")
        for text in ("nan", "inf", "", "good", "1e0", " 1"):
            yield f"a score is {text!r}", score(text)
        yield "the first bytes are a byte order mark", b"\xef\xbb\xbf" + good
        yield "the bytes are no UTF-8", good[:-1] + b"\xff\n"
        yield "the last line has no end", good.removesuffix(end.encode())
        if rules.newline == "lf":
            yield "lines end with CRLF", good.replace(b"\n", b"\r\n")
        if rules.newline == "crlf":
            yield "lines end with LF", good.replace(b"\r\n", b"\n")
        header = rules.delimiter.join(rules.columns)
        if rules.header == "required":
            yield "the header is missing", changed(lambda rows: rows[1:])
        if rules.header == "forbidden":
            yield "there is a header", changed(lambda rows: [header, *rows])
        else:
            body = lines[head:]
            yield "the header is another", changed(lambda rows: [header + "x", *body])
        if rules.order == "list":
            yield "two rows are swapped", changed(lambda rows: [*rows[:head], rows[head + 1], first, *rows[head + 2 :]])
        if rules.id_extension == "forbidden":
            name = lines[head].partition(rules.delimiter)[0]
            yield "an id ends in .wav", changed(lambda rows: [*rows[:head], first.replace(name, name + ".wav", 1)])


def invented(pattern: str | None, count: int) -> list[str]:
    """Ids that match a regular expression of letters, classes and counts; raises ``AssertionError`` for another one."""
    parts = _parts(pattern or "clip-[0-9]{4}")
    draw = random.Random(0)  # noqa: S311
    found: dict[str, None] = {}
    for _ in range(20 * count if parts else 0):
        text = "".join(draw.choice(letters) for letters, times in parts for _ in range(times))
        found[text] = None
        if len(found) == count:
            break
    ids = list(found)
    fits = len(ids) == count and all(re.fullmatch(pattern or ".*", text) for text in ids)
    assert fits, f"ids cannot be invented from id_pattern = {pattern!r}; pass some of the challenge's: ids = [...]"
    return ids


_TOKEN = re.compile(r"(\[[^\]^]+\]|\\[dw.-]|[A-Za-z0-9_ /-])(?:\{(\d+)(?:,\d*)?\}|([+*?]))?")
_CLASSES = {r"\d": "[0-9]", r"\w": "[A-Za-z0-9]"}


def _parts(pattern: str) -> list[tuple[list[str], int]]:
    """The letters of each place of a pattern, and how often they stand there; nothing where it says more than that."""
    parts, end = [], 0
    for match in _TOKEN.finditer(pattern):
        if match.start() != end:
            return []
        end = match.end()
        token = _CLASSES.get(match[1], match[1])
        letters = [letter for letter in map(chr, range(33, 127)) if re.fullmatch(token, letter)] or [token]
        parts.append((letters, int(match[2]) if match[2] else {"*": 4, "+": 4}.get(match[3], 1)))
    return parts if end == len(pattern) else []
