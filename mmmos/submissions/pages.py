"""How tables and pages are written: escaped templates, numbers for reading, text that every encoder takes."""

import math
import unicodedata
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

_HIDDEN = {"Cc", "Cf", "Cs"}  # Unicode categories: control, format (direction marks among them), half characters


def render(template: str, **values: Any) -> str:
    """A template of this package as text; every value is escaped and visible, and a missing one is an error."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmmos.submissions"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    environment.filters |= {"number": format_number, "p": format_p, "whole": format_whole, "fact": format_fact}
    return str(environment.get_template(template).render(**values))


def format_number(value: Any, decimals: int = 3) -> str:
    """A number for reading: fixed decimals, a true minus, "–" where it is undefined; integers and texts as they are."""
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return "–"
        text = f"{round(float(value), decimals) + 0.0:.{decimals}f}"
        return f"\u2212{text[1:]}" if text.startswith("-") else text
    return "–" if value is None else str(value)


def format_p(value: float) -> str:
    """A p-value for reading: "p 0.031", "p < 0.001"."""
    return "p < 0.001" if value < 0.001 else f"p {format_number(float(value), 3 if value < 0.1 else 2)}"


def format_whole(value: Any) -> str:
    """A count, also one that is stored as a float; "–" where it is unknown."""
    return "–" if value is None or value != value else f"{int(value):,}".replace(",", "\u202f")


def format_fact(value: Any, name: str) -> str:
    """What is known of a model, for reading: a count of members, or seconds."""
    return format_whole(value) if name == "members" else format_number(value, 1 if value >= 10 else 3)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    line = visible(" ".join(text.split())).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{letter}" if letter in "\\`*_[]|#!" else letter for letter in line)


def visible(text: str) -> str:
    """A text whose control characters, direction marks and half characters (which UTF-8 does not hold) are escapes."""
    if text.isprintable() or isinstance(text, Markup):
        return text
    shown = (
        char if char in " \n\u202f" or unicodedata.category(char) not in _HIDDEN else _escape(char) for char in text
    )
    return "".join(shown)


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode()
