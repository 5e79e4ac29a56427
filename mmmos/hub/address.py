"""Addresses on the hub, and what is wrong with a malformed one."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmmos.errors import UsageError

SCHEME = "hf://"

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_REVISION = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_./+-]*[A-Za-z0-9_+])?")
_LONGEST, _LONGEST_REVISION = 96, 200


@dataclass(frozen=True)
class Address:
    """A repository ``owner/name`` of the hub, and a branch, tag or commit of it, "" for its main branch.

    ``str`` gives it as it is written.
    """

    repo: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.repo}{'@' if self.revision else ''}{self.revision}"


def is_address(text: str | Path) -> bool:
    """True for a text that begins with hf://."""
    return isinstance(text, str) and text.startswith(SCHEME)


def parse(text: str) -> Address:
    """``hf://owner/name@revision`` as an address. Raises ``UsageError`` that says what is wrong."""
    repo, at, revision = text.removeprefix(SCHEME).partition("@")
    parts = repo.split("/")
    if not is_address(text):
        wrong = f"it does not begin with {SCHEME}"
    elif len(parts) == 3 and parts[0] in ("models", "datasets", "spaces"):
        wrong = f"leave out {parts[0]}/, for each command knows the kind of its repositories"
    elif len(parts) < 2 or not all(parts):
        wrong = "it lacks the owner or the name"
    elif len(parts) > 2:
        wrong = "it names something inside a repository, and only a whole one can be named"
    elif bad := [part for part in parts if not _is_name(part)]:
        wrong = f"{bad[0]!r} is no name on the hub (letters, digits, _, and inside single . and -)"
    elif len(repo) > _LONGEST:
        wrong = f"owner and name have {len(repo)} characters, and the hub allows {_LONGEST}"
    elif at and not revision:
        wrong = "nothing stands after the @"
    elif at and not _is_revision(revision):
        wrong = f"{revision!r} is no branch, tag or commit"
    else:
        return Address(repo, revision)
    raise UsageError(
        f"{text!r} is no address on the hub: {wrong}. Write hf://owner/name, or hf://owner/name@revision for a branch,"
        " tag or commit."
    )


def _is_name(part: str) -> bool:
    return bool(_NAME.fullmatch(part)) and "--" not in part and ".." not in part and not part.endswith(".git")


def _is_revision(text: str) -> bool:
    whole = bool(_REVISION.fullmatch(text)) and len(text) <= _LONGEST_REVISION
    return whole and ".." not in text and "//" not in text and not text.endswith(".lock")
