"""Encoders by name. Built-ins and plug-ins register an ``EncoderCard`` in the entry-point group ``mmmos.encoders``, or
a class with its ``EncoderSpec`` as class attribute ``spec`` and options that are keyword-only parameters.
"""

import inspect
import logging
from dataclasses import replace
from multiprocessing import parent_process

from mmmos import registry
from mmmos.errors import UnknownName, UsageError
from mmmos.features.devices import find_device
from mmmos.features.encoders.base import Deferred, Encoder, EncoderCard, Respecified, card_of
from mmmos.features.spec import EncoderSpec

__all__ = ["Deferred", "Encoder", "EncoderCard", "card", "cards", "encoder", "find_device"]

log = logging.getLogger("mmmos")
_told: set[str] = set()


def encoder(
    name: str, weights: str | None = None, *, revision: str | None = None, device: str = "auto", **options: object
) -> Encoder:
    """Load an encoder by name, registered or in a local file (``mine.py:Mine``).

    ``weights``: hub id, file or folder in the published layout; by default the card's own. ``device``: auto, cpu, cuda,
    cuda:1, mps. ``options``: what the encoder takes besides, such as ``precision="bfloat16"``.
    ``encode`` turns mono waves (batch, samples) at ``spec.rate`` Hz into states (batch, layers, frames, dim), float32.

    Raises ``UnknownName``, ``UsageError`` (a path that does not exist), ``SetupError`` (weights or device are not to be
    had).

    >>> encoder = mmmos.encoder("melstats")
    >>> encoder.spec.rate, encoder.spec.layers, encoder.spec.dim
    (32000, 20, 64)
    >>> import torch
    >>> encoder.encode(torch.zeros(2, 32000)).shape
    torch.Size([2, 20, 101, 64])
    """
    code, found = registry.code_of("encoders", name), card(name)
    if not found.commercial and name not in _told and parent_process() is None:
        _told.add(name)
        log.warning("The weights of %s may not be used commercially (%s).", name, found.licence)
    loaded = load(found, weights, revision=revision, device=device, **options)
    if not isinstance(getattr(loaded, "spec", None), EncoderSpec):
        raise UsageError(f"The encoder {name!r} has no spec that is an EncoderSpec; mmmos.testing.check_encoder helps.")
    if not code:
        return loaded
    return Respecified(loaded, replace(loaded.spec, code=f"{loaded.spec.code} {code}"))


def load(
    card: EncoderCard,
    weights: str | None = None,
    *,
    revision: str | None = None,
    device: str = "auto",
    **options: object,
) -> Encoder:
    """Load an encoder by its card; parameters and errors are those of ``encoder``."""
    source = card.weights if weights is None else weights
    if weights is None:
        revision = revision or card.revision
    for option in options:
        if option not in (known := _options(card)):
            raise UnknownName(f"option of the encoder {card.name!r} called", option, known)
    return card.load(card, source, revision or "", find_device(device), **options)


def _options(card: EncoderCard) -> list[str]:
    """Names of the keyword-only parameters of a card's ``load``."""
    parameters = inspect.signature(card.load).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def card(name: str) -> EncoderCard:
    """The card of a registered encoder, or of one in a local file; of a class, what its ``spec`` tells.

    Raises ``UsageError`` for an object that is neither a card nor such a class, and as ``registry.load``.
    """
    return card_of(name, registry.load("encoders", name))


def cards() -> list[EncoderCard]:
    """The cards of all registered encoders, by name."""
    return [card(name) for name in registry.names("encoders")]
