"""Encoders by name. Built-ins and plug-ins register an ``EncoderCard`` in the entry-point group ``mmmos.encoders``."""

import inspect
import logging
from multiprocessing import parent_process

from mmmos import registry
from mmmos.errors import UnknownName, UsageError
from mmmos.features.devices import find_device
from mmmos.features.encoders.base import Encoder, EncoderCard

__all__ = ["Encoder", "EncoderCard", "cards", "encoder", "find_device"]

log = logging.getLogger("mmmos")
_told: set[str] = set()


def encoder(
    name: str, weights: str | None = None, *, revision: str | None = None, device: str = "auto", **options: object
) -> Encoder:
    """Load an encoder by name.

    ``weights``: hub id, file or folder in the published layout; by default the card's own. ``device``: auto, cpu, cuda,
    cuda:1, mps. ``options``: what the encoder takes besides, such as ``precision="bfloat16"``.
    Raises ``UnknownName``, ``UsageError`` (a path that does not exist), ``SetupError`` (weights or device are not to be
    had).
    """
    card = registry.load("encoders", name)
    if not isinstance(card, EncoderCard):
        raise UsageError(f"The encoder {name!r} is no EncoderCard but {type(card).__name__}.")
    source = card.weights if weights is None else weights
    if weights is None:
        revision = revision or card.revision
    if not card.commercial and name not in _told and parent_process() is None:
        _told.add(name)
        log.warning("The weights of %s may not be used commercially (%s).", name, card.licence)
    for option in options:
        if option not in (known := _options(card)):
            raise UnknownName(f"option of the encoder {name!r} called", option, known)
    return card.load(card, source, revision or "", find_device(device), **options)


def _options(card: EncoderCard) -> list[str]:
    """Names of the keyword-only parameters of a card's ``load``."""
    parameters = inspect.signature(card.load).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]


def cards() -> list[EncoderCard]:
    """The cards of all registered encoders, by name."""
    return [registry.load("encoders", name) for name in registry.names("encoders")]
