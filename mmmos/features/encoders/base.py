"""The encoder contract: equal-length waveforms in, hidden states of every layer out."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from mmmos.errors import SetupError, UsageError
from mmmos.features import weights as files
from mmmos.features.spec import EncoderSpec
from mmmos.files import canonical_json

if TYPE_CHECKING:
    from torch import Tensor, dtype

PRECISIONS = ("float32", "bfloat16")


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder. A waveform's states never depend on the other waveforms of its batch.

    Several threads may call ``encode`` at once.
    """

    spec: EncoderSpec

    def encode(self, waves: "Tensor") -> "Tensor":
        """States ``(batch, layers, frames, dim)`` float32 of mono waves ``(batch, samples)`` at ``spec.rate`` Hz."""
        ...


@dataclass(frozen=True)
class EncoderCard:
    """What is known of an encoder before it is loaded, and how to load it.

    ``load(card, weights, revision, device, **options)`` gives an ``Encoder``; ``weights`` is a hub id, a file or a
    folder; options are keyword-only parameters of ``load``, such as ``precision``.
    ``layers``, ``dim``, ``hop`` (s) and ``minimum`` (samples) are of the published checkpoint, 0 where the checkpoint
    decides.
    """

    name: str
    family: str
    load: "Callable[..., Encoder]"
    licence: str
    rate: int
    layers: int = 0
    dim: int = 0
    hop: float = 0.0
    minimum: int = 1
    weights: str = ""
    revision: str = ""
    sha256: str = ""
    commercial: bool = True

    def spec(self, **facts: Any) -> EncoderSpec:
        """The spec that the card tells, with other facts in place of its own."""
        names = ("name", "family", "rate", "layers", "dim", "hop", "minimum", "licence")
        return EncoderSpec(**{name: getattr(self, name) for name in names} | facts)


@dataclass(frozen=True)
class Deferred:
    """A card's ``load`` by its place, "package.module:function", imported when it is called and no sooner.

    Raises ``SetupError`` when there is no such function, or what it needs is absent.
    """

    place: str

    def __call__(self, *arguments: Any, **options: Any) -> Encoder:
        """What the function gives."""
        loaded: Encoder = self._function()(*arguments, **options)
        return loaded

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function())

    def _function(self) -> Callable[..., Any]:
        try:
            found: Callable[..., Any] = resolve_name(self.place)
        except (ImportError, AttributeError, ValueError) as error:
            raise SetupError(
                f"The code of an encoder cannot be imported from {self.place!r}: {error}."
                " Install what it needs, or mend load in its card."
            ) from error
        return found


@dataclass
class Respecified:
    """An encoder under another spec."""

    encoder: Encoder
    spec: EncoderSpec

    def encode(self, waves: "Tensor") -> "Tensor":
        """What the encoder gives."""
        return self.encoder.encode(waves)


def card_of(name: str, found: object) -> EncoderCard:
    """The card of what registers as an encoder: a card itself, or a class whose attribute ``spec`` is an EncoderSpec.

    A class has no weights to choose; ``commercial = False`` says of it what it says of a card. Raises ``UsageError``.
    """
    if isinstance(found, EncoderCard):
        return found
    spec = getattr(found, "spec", None)
    if not (isinstance(found, type) and isinstance(spec, EncoderSpec)):
        raise UsageError(
            f"The encoder {name!r} is no EncoderCard but {type(found).__name__}; besides a card, a class with an"
            " EncoderSpec as class attribute spec is one."
        )
    facts = {each: getattr(spec, each) for each in ("family", "licence", "rate", "layers", "dim", "hop", "minimum")}
    return EncoderCard(name, load=_Constructor(found), commercial=getattr(found, "commercial", True), **facts)


class _Constructor:
    """``load`` of an encoder that is a class. Options that are given become part of its spec, as they may change its
    numbers; a parameter ``device`` gets the device.
    """

    def __init__(self, made: type) -> None:
        self._made = made
        parameters = inspect.signature(made).parameters.values()
        self._known = {each.name for each in parameters if each.kind is each.KEYWORD_ONLY}
        own = [each for each in parameters if each.kind is each.KEYWORD_ONLY and each.name != "device"]
        self.__signature__ = inspect.Signature(own)

    def __call__(self, card: EncoderCard, weights: str, revision: str, device: str, **options: object) -> Encoder:
        if weights or revision:
            raise UsageError(f"The encoder {card.name!r} is a class that takes no weights; leave weights out.")
        given = {"device": device} if "device" in self._known else {}
        made: Encoder = self._made(**given, **options)
        if not options:
            return made
        return Respecified(made, replace(made.spec, config=f"{made.spec.config}{canonical_json(options)}"))


def located(card: EncoderCard, weights: str, revision: str, precision: str = "float32") -> tuple[Path, EncoderSpec]:
    """Where the weights are, fetched if need be, and a spec with their facts; the encoder fills in its dimensions.

    The card's SHA-256 is checked for its own weights and revision. Raises ``SetupError``, ``UsageError``.
    """
    if not weights:
        raise SetupError(f"The encoder {card.name!r} needs weights = a hub id, a file or a folder.")
    if precision not in PRECISIONS:
        raise UsageError(f"There is no precision {precision!r}; allowed are {' and '.join(PRECISIONS)}.")
    path = files.find(weights, revision)
    own = (weights, revision) == (card.weights, card.revision)
    return path, card.spec(
        licence=card.licence if weights == card.weights else "see the weights",
        weights=weights,
        revision=revision,
        sha256=files.checked(path, card.sha256 if own else ""),
        precision=precision,
    )


def dtype_of(precision: str) -> "dtype":
    """The torch dtype of a spec's precision."""
    import torch

    return torch.bfloat16 if precision == "bfloat16" else torch.float32


_lock = Lock()
_inside = 0
_before: list[str] = []


@contextmanager
def exact() -> Iterator[None]:
    """Inference without gradients, and float32 with all its digits whatever the process allows (TF32, bfloat16).

    Threads may be inside at once; what the process allows is restored by the last of them.
    """
    import torch

    global _inside
    backends: Any = torch.backends
    operations = (backends.cuda.matmul, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    with _lock:
        _inside += 1
        if _inside == 1:
            _before[:] = [operation.fp32_precision for operation in operations]
            for operation in operations:
                operation.fp32_precision = "ieee"
    try:
        with torch.inference_mode():
            yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for operation, precision in zip(operations, _before, strict=True):
                    operation.fp32_precision = precision
