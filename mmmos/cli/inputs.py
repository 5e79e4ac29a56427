"""What commands take besides plain options: inputs, of which "-" is one, encoders, and weights by name."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mmmos.errors import UsageError, did_you_mean


def refuse_options(inputs: Iterable[str | Path], command: Callable[..., Any]) -> None:
    """Raise ``UsageError`` for a mistyped option among the inputs of a command, which may begin with a hyphen."""
    for each in map(str, inputs):
        if each.startswith("-") and each != "-" and not Path(each).exists():
            names = [f"--{name.replace('_', '-')}" for name in inspect.signature(command).parameters]
            guess = did_you_mean(each.partition("=")[0], names)
            raise UsageError(f"Unknown option: {each}.{f' Did you mean {guess}?' if guess else ''}")


def encoders_and_inputs(
    recipe: str | None, inputs: Iterable[str | Path], encoders: list[str] | None, command: str
) -> tuple[str | list[str], list[str]]:
    """What encodes, a recipe or a list of encoders, and the inputs: with ``encoders`` every positional is one.

    Raises ``UsageError`` where either is missing; ``command`` is what was typed before them.
    """
    words = [str(each) for each in (recipe, *inputs) if each is not None]
    chosen: str | list[str] = encoders or (words.pop(0) if words else "")
    if not chosen:
        raise UsageError(f"Say what encodes which clips: {command} RECIPE INPUT…, or --encoder NAME INPUT….")
    if not words and isinstance(chosen, str) and Path(chosen).exists() and not chosen.endswith(".toml"):
        raise UsageError(f"Say what encodes {chosen}: {command} RECIPE {chosen}, or --encoder NAME {chosen}.")
    if not words:
        raise UsageError("Name the clips too: manifests, folders or globs; - for a list on standard input.")
    return chosen, words


def paths_by_name(weights: Iterable[str] | None) -> dict[str, str]:
    """The paths of NAME=PATH, each, by name. Raises ``UsageError`` for what is not of that form."""
    paths = {}
    for each in weights or ():
        name, _, path = each.partition("=")
        if not (name and path):
            raise UsageError(f"The weights {each!r} lack a side; write NAME=PATH, such as wavlm-base-plus=model.pt.")
        paths[name] = path
    return paths
