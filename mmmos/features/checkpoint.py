"""Checkpoints: tensors and settings of untrusted files, read without running any code, fitted without any guess."""

import json
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmmos.errors import SetupError, did_you_mean, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

Model = TypeVar("Model", bound="nn.Module")
_SHOWN = 12


def read(path: Path, allow: Iterable[type] = ()) -> dict[str, Any]:
    """The dictionary in a .safetensors file, or in a file of ``torch.save`` read with ``weights_only=True``.

    ``allow``: classes besides tensors and plain containers that the file may hold.
    Raises ``SetupError`` for a damaged file and for one that would run code.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals(list(allow)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise SetupError(f"{path} cannot be loaded: {first_line(error)}. Fetch it again.") from None
    except Exception as error:
        raise SetupError(_refusal(path, error)) from None
    if not isinstance(found, dict):
        raise SetupError(f"{path} holds no dictionary of tensors but {type(found).__name__}: another kind of file.")
    return found


def _refusal(path: Path, error: Exception) -> str:
    """What is wrong with a file that torch does not load."""
    unsafe = re.search(r"(?:unsupported global:? (?:GLOBAL )?|trying to call )(\S+)", str(error), re.IGNORECASE)
    if unsafe:
        return (
            f"{path} is refused: it holds {unsafe[1].rstrip('.')}, which is code and not a tensor. Use a file from its"
            " publisher, or one in the safetensors format."
        )
    # Torch's own advice here is to load with weights_only=False, which is no advice.
    return f"{path} cannot be loaded: it is cut off, or no plain checkpoint of torch ({type(error).__name__})."


def settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file beside the weights. Raises ``SetupError``."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SetupError(f"{path.parent} is no folder of this layout: it holds no {path.name}.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SetupError(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise SetupError(f"{path} holds no JSON object.")
    return found


def tensors(found: Mapping[str, Any], source: Path) -> "dict[str, Tensor]":
    """A state dict in float32, its keys as text. Raises ``SetupError`` when an entry is no tensor."""
    from torch import Tensor

    other = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
    if other:
        raise SetupError(f"{source} holds entries that are no tensors: {listed(other)}. It is of another layout.")
    return {str(key): value.float() if value.is_floating_point() else value for key, value in found.items()}


def empty(build: "Callable[[], Model]") -> "Model":
    """A model without memory for its numbers, whatever its size; ``fill`` gives it memory and all of them."""
    import torch

    with torch.device("meta"):
        return build()


def fill(
    model: "nn.Module",
    state: "Mapping[str, Tensor]",
    source: Path,
    published: Callable[[str], str] = lambda name: name,
) -> None:
    """Give a model its weights, every one and no other, and freeze it in evaluation mode.

    ``published`` turns the model's name of a tensor into the file's. Raises ``SetupError`` that lists the keys.
    """
    own = model.state_dict()
    missing = [published(name) for name in own if name not in state]
    unexpected = [published(name) for name in state if name not in own]
    shapes = [
        f"{published(name)} is {tuple(state[name].shape)}, by the settings {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    kinds = {"Missing keys": missing, "Unexpected keys": unexpected, "Wrong shapes": shapes}
    wrong = [f"{what}: {listed(keys)}." for what, keys in kinds.items() if keys]
    if wrong:
        near = {key: did_you_mean(key, missing) for key in unexpected[:1]}
        hint = [f"Is {key} meant for {guess}?" for key, guess in near.items() if guess]
        raise SetupError(" ".join([f"The weights in {source} do not fit their model.", *wrong, *hint]))
    # Copied, since in a mapped file numbers lie at odd addresses, where products have other last bits.
    model.to_empty(device="cpu").load_state_dict(state)
    model.eval().requires_grad_(False)


def listed(names: Iterable[str]) -> str:
    """Names for a sentence; of very many the first, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def entry(found: Mapping[str, Any], name: str, source: Path, kind: type | tuple[type, ...] = int) -> Any:
    """A setting by name. Raises ``SetupError`` when it is absent or of another kind; a bool is no number."""
    value = found.get(name)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(k.__name__ for k in kinds)
        raise SetupError(f"The settings of {source} need {name} = a value of type {wanted}; got {value!r}.")
    return value
