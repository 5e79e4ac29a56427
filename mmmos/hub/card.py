"""The front matter of a card: the lines between ``---`` that begin a README.md, which the hub reads."""

import re
from pathlib import Path

from mmmos.errors import InputError

_FRONT = re.compile(r"---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*(\S[^\r\n]*)", re.MULTILINE)


def licence(card: str) -> str:
    """The licence that a card's front matter names, "" for none."""
    front = _FRONT.match(card)
    found = _LICENCE.search(front[1]) if front else None
    return found[1].strip().strip("\"'") if found else ""


def check_licence(card: Path, maker: str) -> None:
    """Raise ``InputError`` for a card that is absent or names no licence; ``maker``: the command that writes one."""
    if not card.is_file() or not licence(card.read_text(encoding="utf-8", errors="replace")):
        raise InputError(
            [
                (
                    f"The {card.name} names no licence, and nobody may use what has none; nothing is sent. Begin it"
                    f" with a line ---, a line license: …, and a line ---; {maker} writes one."
                )
            ]
        )
