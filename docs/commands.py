"""Writes commands.md from the commands' own signatures and docstrings: `make commands`."""

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from cyclopts import App

from mmmos.cli import EPILOGUE, build

HEAD = f"""\
# Commands

Every command and its options, written by `docs/commands.py` from the code. `mmmos COMMAND --help` says the same.

Data goes to stdout, everything else to stderr. {EPILOGUE}

| exit code | meaning |
|---|---|
| 0 | ok |
| 1 | internal error |
| 2 | usage or recipe error |
| 3 | finished, some inputs rejected |
| 4 | bad input data |
| 5 | environment: weights missing offline, no device |
| 129, 130, 143 | ended by a signal; the same command goes on from there |
"""


def page() -> str:
    """The text of commands.md."""
    return HEAD + "".join("\n" + section(words, function) for words, function in commands(build()))


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Callable[..., int]]]:
    """Every command's words and function, in the order of the application."""
    for name in app:
        if not name.startswith("-"):
            if app[name].default_command is not None:
                yield (*words, name), app[name].default_command
            yield from commands(app[name], (*words, name))


def section(words: tuple[str, ...], function: Callable[..., int]) -> str:
    """One command: what it does, an example, its arguments and options."""
    docstring = inspect.getdoc(function) or ""
    text, _, parameters = docstring.partition("\n\nParameters\n")
    text, _, example = text.partition("Example: ")
    about = dict(re.findall(r"^(\w+)\n +(.+)$", parameters, re.MULTILINE))
    rows = [row(parameter, about.get(name, "")) for name, parameter in inspect.signature(function).parameters.items()]
    table = "\n| argument | default | meaning |\n|---|---|---|\n" + "".join(rows) if rows else ""
    shown = f"\n```text\n{example.strip()}\n```\n" if example else ""
    return f"## mmmos {' '.join(words)}\n\n{text.strip()}\n{shown}{table}"


def row(parameter: inspect.Parameter, about: str) -> str:
    """One argument or option as a row of a table."""
    name = parameter.name.upper() if parameter.kind != parameter.KEYWORD_ONLY else f"--{parameter.name}"
    if parameter.kind == parameter.VAR_POSITIONAL:
        name += "…"
    silent = any(parameter.default is value for value in (parameter.empty, None, False)) or parameter.default == ""
    default = "" if silent else f"`{parameter.default}`"
    return f"| `{name.replace('_', '-')}` | {default} | {about} |\n"


if __name__ == "__main__":
    Path(__file__).with_suffix(".md").write_text(page(), encoding="utf-8")
