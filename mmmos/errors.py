"""Errors that a user can mend: one class per kind of failure, its parts as attributes, a sentence that says what to do.

Every class carries the exit code of the command that it ends: 2 usage or recipe, 4 bad input data, 5 environment.
``Rejected`` costs one clip and never ends a command.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any


class MmmosError(Exception):
    """Base of all errors that are shown as a sentence, without a traceback; they survive the way between processes.

    ``exit_code`` is that of the command that it ends. Parts of the sentence are attributes of the subclasses.

    >>> try:
    ...     mmmos.encoder("melstat")
    ... except mmmos.MmmosError as error:
    ...     error.guess, error.exit_code
    ('melstats', 2)
    """

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[MmmosError], arguments: tuple[Any, ...], parts: dict[str, Any]) -> MmmosError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(parts)
    return error


class UsageError(MmmosError):
    """A call or a command line that cannot be carried out as written."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe that cannot be read; ``problems`` are sentences that name file, line and key."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


class UnknownName(UsageError):
    """A name that no registry or table holds.

    Attributes: ``kind`` ("encoder", "loss", …), ``name``, ``options`` (known names), ``guess`` (the nearest, or None).
    """

    def __init__(self, kind: str, name: str, options: Iterable[str], guess: str | None = None) -> None:
        self.kind, self.name, self.options = kind, name, list(options)
        self.guess = guess or did_you_mean(name, self.options)
        hint = f" Did you mean {self.guess!r}?" if self.guess else ""
        super().__init__(f"There is no {kind} {name!r}.{hint} Known: {', '.join(self.options) or 'none'}.")


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input file; ``line`` counts from 1, the header being line 1; empty parts are unknown."""

    file: str
    what: str
    line: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {f'column {self.column}: ' if self.column else ''}{self.what}"


class InputError(MmmosError):
    """Input data that must be mended first: ``problems`` are all that were found, up to the reader's limit."""

    exit_code = 4

    def __init__(self, problems: Sequence[Problem | str], more: int = 0) -> None:
        lines = [str(problem) for problem in problems]
        super().__init__("\n".join([*lines, *([f"… and {more} more"] if more else [])]))
        self.problems, self.more = list(problems), more


class SetupError(MmmosError):
    """The environment lacks something: weights, a device, an optional package."""

    exit_code = 5


class StoreError(MmmosError):
    """A feature store or a run folder holds something that cannot be trusted."""

    exit_code = 4


class Rejected(MmmosError):
    """One clip that cannot be used: ``reason`` is a code of ``mmmos.audio.REASONS``, ``detail`` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def did_you_mean(name: str, options: Iterable[str]) -> str | None:
    """The option nearest to a mistyped name, compared without case, or None when none is near."""
    by_lower = {option.lower(): option for option in options}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line without its last stop; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def shorten(value: object) -> str:
    """``repr`` of a value, of at most about 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
