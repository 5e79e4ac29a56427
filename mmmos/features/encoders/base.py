"""The encoder contract: equal-length waveforms in, hidden states of every layer out."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from mmmos.features.spec import EncoderSpec

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder. A waveform's states never depend on the other waveforms of its batch."""

    spec: EncoderSpec

    def encode(self, waves: "Tensor") -> "Tensor":
        """States ``(batch, layers, frames, dim)`` float32 of mono waves ``(batch, samples)`` at ``spec.rate`` Hz."""
        ...


@dataclass(frozen=True)
class EncoderCard:
    """What is known of an encoder before it is loaded, and how to load it.

    ``load(card, weights, revision, device)`` gives an ``Encoder``; ``weights`` is a hub id, a file or a folder.
    ``layers``, ``dim`` and ``hop`` (s) are of the published checkpoint, 0 where the checkpoint decides.
    """

    name: str
    family: str
    load: "Callable[[EncoderCard, str, str, str], Encoder]"
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
