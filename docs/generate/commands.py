"""commands.md: every command and its options, as ``--help`` has them."""

import inspect
from collections.abc import Iterator
from typing import Any

from cyclopts import App
from markdown import code, fenced, page, table, with_options

from mmmos.cli import EPILOGUE, build

HEAD = f"""\
Every command with its arguments and options; `mmmos COMMAND --help` says the same.
Data goes to stdout, everything else to stderr, and [codes](codes.md) lists the exit codes.

{with_options(EPILOGUE)}"""


def text() -> str:
    """The page."""
    sections = []
    for words, app in commands(build()):
        if len(words) > 1 and f"## mmmos {words[0]}" not in sections:
            sections += [f"## mmmos {words[0]}", with_options(nouns()[words[0]])]
        sections.append(section(words, app))
    return page("Commands", HEAD, "## Without a noun", *sections)


def nouns() -> dict[str, str]:
    """What each group of commands is for."""
    app = build()
    return {name: app[name].help or "" for name in app if app[name].default_command is None}


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command's words and application, in their order."""
    for name in app:
        if not name.startswith("-"):
            if app[name].default_command is not None:
                yield (*words, name), app[name]
            yield from commands(app[name], (*words, name))


def section(words: tuple[str, ...], app: App) -> str:
    """One command: what it does, an example, its arguments and options."""
    about, _, _ = (inspect.getdoc(app.default_command) or "").partition("\n\nParameters\n")
    about, _, example = about.partition("Example: ")
    rows = [row(argument) for argument in app.assemble_argument_collection(parse_docstring=True) if argument.show]
    parts = [f"### mmmos {' '.join(words)}", with_options(about.strip()), fenced(example) if example else ""]
    parts += [table(("argument", "default", "meaning"), rows)] if rows else []
    return "\n\n".join(part for part in parts if part)


def row(argument: Any) -> tuple[str, str, str]:
    """One argument or option as a row of a table."""
    field = argument.field_info
    name = argument.name + ("…" if field.kind is field.VAR_POSITIONAL else "")
    silent = any(field.default is value for value in (field.empty, None, False)) or field.default == ""
    meaning = with_options(argument.parameter.help or "")
    choices = ", ".join(map(str, argument.get_choices() or ()))
    if choices and choices not in meaning:
        meaning = f"{meaning} One of {choices}.".strip()
    return code(name), "" if silent else code(field.default), meaning
