"""WavLM (Chen et al., arXiv 2110.13900): strided convolutions over the waveform, then a transformer encoder.

States: index 0 is the input of the first block, index L the raw output of block L; models with a norm behind the last
block (large) have its output as one more layer, "final".
Zeros change every frame of the base models (group norm over time), so a batch holds waves of equal length only.
"""

from dataclasses import asdict, replace

import torch
from torch import Tensor

from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.wavlm_layouts import open_checkpoint
from mmmos.features.encoders.wavlm_model import RATE, Network, Settings, conv_padding, normalised
from mmmos.features.spec import EncoderSpec
from mmmos.files import key_of


class WavLM:
    """A frozen WavLM; ``encode`` gives all hidden states of raw 16 kHz audio."""

    def __init__(self, network: Network, settings: Settings, spec: EncoderSpec, device: str) -> None:
        self._network = network.to(device, dtype_of(spec.precision))
        self._settings, self._device = settings, device
        self.spec = specified(spec, settings)

    def encode(self, waves: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples); frame i begins at i × 20 ms.

        ``padding`` (batch, samples), True where a sample is padding, gives the states of a padded batch as
        transformers counts its frames: for comparison, since padding changes the states of the base models.
        """
        with exact():
            waves = waves.to(self._device, torch.float32)
            if self._settings.normalise:
                waves = normalised(waves, padding)
            frames = None if padding is None else conv_padding(padding.to(self._device), self._settings)
            states = self._network(waves.to(dtype_of(self.spec.precision)), frames)
            return torch.stack(states, dim=1).float()


def specified(spec: EncoderSpec, settings: Settings) -> EncoderSpec:
    """A spec with the facts of a WavLM filled in."""
    layers = settings.encoder.layers + 1
    names = [*map(str, range(layers)), *(["final"] if settings.encoder.pre_norm else [])]
    return replace(
        spec,
        layers=len(names),
        layer_names=tuple(names),
        dim=settings.encoder.dim,
        hop=settings.hop / RATE,
        minimum=settings.minimum,
        front="zero mean, unit variance" if settings.normalise else "",
        config=key_of(asdict(settings)),
        code="2",
    )


def load(card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32") -> WavLM:
    """Load a WavLM: a hub id or folder in the layout of transformers, or a .pt file of microsoft/unilm."""
    path, spec = located(card, weights, revision, precision)
    network, settings = open_checkpoint(path)
    return WavLM(network, settings, spec, device)
