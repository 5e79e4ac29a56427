"""What commands take besides plain options: inputs, of which "-" is one, and weights by name."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from mmmos.errors import UsageError, did_you_mean

Input = Annotated[str, Parameter(allow_leading_hyphen=True)]


def refuse_options(inputs: Iterable[str], command: Callable[..., Any]) -> None:
    """Raise ``UsageError`` for a mistyped option among the inputs of a command, which may begin with a hyphen."""
    for each in inputs:
        if each.startswith("-") and each != "-" and not Path(each).exists():
            names = [f"--{name.replace('_', '-')}" for name in inspect.signature(command).parameters]
            guess = did_you_mean(each.partition("=")[0], names)
            raise UsageError(f"Unknown option: {each}.{f' Did you mean {guess}?' if guess else ''}")


def paths_by_name(weights: Iterable[str] | None) -> dict[str, str]:
    """The paths of NAME=PATH, each, by name. Raises ``UsageError`` for what is not of that form."""
    paths = {}
    for each in weights or ():
        name, _, path = each.partition("=")
        if not (name and path):
            raise UsageError(f"The weights {each!r} lack a side; write NAME=PATH, such as wavlm-base-plus=model.pt.")
        paths[name] = path
    return paths
