"""Markdown of what the code holds: tables, docstrings, code."""

import re
from collections.abc import Iterable, Sequence
from inspect import getdoc
from typing import Any


def page(title: str, head: str, *sections: str) -> str:
    """A page: title, a head of two sentences, sections."""
    return "\n\n".join(part.strip("\n") for part in (f"# {title}", head, *sections) if part.strip()) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; ``|`` is escaped, line ends become spaces, columns that are empty everywhere are left out."""
    body = [[re.sub(r"\s*\n\s*", " ", cell).replace("|", r"\|") for cell in row] for row in rows]
    used = [place for place in range(len(head)) if any(row[place] for row in body)]
    lines = [[row[place] for place in used] for row in (head, ["---"] * len(head), *body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(text: Any) -> str:
    """Text as code in a line; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def fenced(text: str, language: str = "text") -> str:
    """A block of code."""
    return f"```{language}\n{text.strip()}\n```"


def docstring(thing: Any) -> str:
    """An object's docstring as Markdown, its examples as blocks of Python."""
    return prose(getdoc(thing) or "")


def prose(text: str) -> str:
    """A docstring's text as Markdown."""
    paragraphs = re.split(r"\n{2,}", text.strip())
    return "\n\n".join(fenced(each, "python") if each.startswith(">>>") else inline(each) for each in paragraphs)


def inline(text: str) -> str:
    """A paragraph of a docstring as Markdown: ``code`` in single backquotes, asterisks as they are."""
    parts = re.split(r"(``.+?``)", text, flags=re.DOTALL)
    return "".join(f"`{part[2:-2]}`" if part.startswith("``") else part.replace("*", r"\*") for part in parts)


def with_options(text: str) -> str:
    """Help of a command as Markdown: ``--option`` as code."""
    return re.sub(r"(?<![\w`-])--[a-z][\w-]*", r"`\g<0>`", inline(text))


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, in one line, without its stop."""
    line = " ".join(text.partition("\n\n")[0].split())
    return inline(re.split(r"(?<!al)\.(?= [A-Z`0-9‖]|$)", line)[0])
