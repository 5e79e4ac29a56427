"""Audiobox-Aesthetics (Tjandra et al., arXiv 2502.05139): a WavLM tuned upstream, and a head for each axis.

Its definition cuts audio into windows of 10 s, the last one padded with zeros and masked; the padding belongs to the
published numbers, since group norm lets it into every frame. States are those of the frames that hold audio, and no
others are computed.
"""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.audio import Samples, Windows, mono
from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.features import checkpoint, weights
from mmmos.features.checkpoint import entry
from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.unilm import ACTIVATIONS
from mmmos.features.encoders.wavlm import specified
from mmmos.features.encoders.wavlm_layouts import from_weights
from mmmos.features.encoders.wavlm_model import RATE, Network, frame_count
from mmmos.features.spec import EncoderSpec
from mmmos.files import key_of
from mmmos.resampling import resample

WINDOW = 10 * RATE
RESAMPLER = "sinc-hann"
_WAVLM = "wavlm_model."


@dataclass(frozen=True)
class HeadSettings:
    """What shapes the heads: ``scales`` holds mean and standard deviation (score 0–10) of each axis."""

    layers: int
    states: int
    norm: bool
    activation: str
    dropout: bool
    unit: bool
    scales: tuple[tuple[str, float, float], ...]


class Heads(nn.Module):
    """For each axis: weights over layers, and a perceptron. Layer means (batch, states, dim) to scores by axis."""

    def __init__(self, settings: HeadSettings, dim: int) -> None:
        super().__init__()
        self.settings = settings
        axes = [axis for axis, _, _ in settings.scales]
        self.layer_weights = nn.ParameterDict({axis: torch.zeros(settings.states) for axis in axes})
        self.proj_layer = nn.ModuleDict({axis: _perceptron(settings, dim) for axis in axes})

    def forward(self, means: Tensor) -> dict[str, Tensor]:
        """Scores (batch,) of each axis, on the scale of the ratings."""
        scores = {}
        for axis, mean, scale in self.settings.scales:
            share = torch.softmax(self.layer_weights[axis], dim=0)
            mixed = torch.einsum("bld,l->bd", means, share)
            if self.settings.unit:
                mixed = F.normalize(mixed, dim=-1)
            scores[axis] = self.proj_layer[axis](mixed)[:, 0] * scale + mean
        return scores


def _perceptron(settings: HeadSettings, dim: int) -> nn.Sequential:
    """Hidden layers (linear, norm, activation, dropout) and the last linear one; places are those of the checkpoint."""
    parts: list[nn.Module] = []
    for _ in range(settings.layers - 1):
        parts += [
            nn.Linear(dim, dim),
            *([nn.LayerNorm(dim)] if settings.norm else []),
            _Activation(settings.activation),
        ]
        parts += [nn.Identity()] if settings.dropout else []
    return nn.Sequential(*parts, nn.Linear(dim, 1))


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)


class Audiobox:
    """The encoder and the scorer of one checkpoint."""

    def __init__(self, network: Network, heads: Heads, spec: EncoderSpec, device: str) -> None:
        self._network, self._heads = network.to(device, dtype_of(spec.precision)), heads.to(device)
        self._device = device
        self._frames = int(frame_count(torch.tensor(WINDOW), network.settings))
        self.spec = replace(
            specified(spec, network.settings),
            minimum=1,
            maximum=WINDOW,
            resampler=RESAMPLER,
            front="zeros to 10 s, masked",
            config=key_of(asdict(network.settings)),
            code="3",
        )

    @property
    def heads(self) -> Heads:
        """What turns layer means into scores."""
        return self._heads

    def on(self, device: str) -> "Audiobox":
        """The same on a device (a torch name); this one stays where it is."""
        if device == self._device:
            return self
        return Audiobox(deepcopy(self._network), deepcopy(self._heads), self.spec, device)

    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples) of at most 10 s at 16 kHz."""
        with exact():
            samples = waves.shape[1]
            if samples > WINDOW:
                raise UsageError(f"Audiobox takes windows of {WINDOW} samples at most; got {samples}. Cut them.")
            waves = waves.to(self._device, dtype_of(self.spec.precision))
            # A frame is valid where any sample of its even share of the padded window is audio (microsoft/unilm).
            frames = min(math.ceil(samples / (WINDOW // self._frames)), self._frames)
            return torch.stack(self._network.beginning(waves, frames, WINDOW), dim=1).float()

    def score(self, samples: Samples, rate: int) -> dict[str, float]:
        """Scores (0–10) by axis of audio (samples, channels) or (samples,) at any rate in Hz, as published.

        Windows of 10 s count by the samples that they hold.
        """
        signal = resample(mono(samples.reshape(len(samples), -1)), rate, RATE, RESAMPLER)
        totals: dict[str, float] = dict.fromkeys(self._heads.proj_layer, 0.0)
        for _, wave in Windows(WINDOW, WINDOW, 1).push(signal, last=True):
            means = self.encode(torch.from_numpy(wave)[None]).mean(2)
            with exact():
                for axis, value in self._heads(means).items():
                    totals[axis] += float(value) * len(wave) / len(signal)
        return totals


def load(card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32") -> Audiobox:
    """Load a checkpoint.pt, or a hub id or folder with model.safetensors and config.json."""
    path, spec = located(card, weights, revision, precision)
    state, config, file = _read(path)
    network, settings = from_weights(
        {key.removeprefix(_WAVLM): value for key, value in state.items() if key.startswith(_WAVLM)}, file
    )
    head_settings = _head_settings(config, len(network.encoder.layers) + 1, file)
    heads = checkpoint.empty(lambda: Heads(head_settings, settings.encoder.dim))
    checkpoint.fill(heads, {key: value for key, value in state.items() if not key.startswith(_WAVLM)}, file)
    return Audiobox(network, heads, spec, device)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], Path]:
    """State dict, settings and file of a checkpoint in either layout."""
    file = weights.weights_file(path)
    found = checkpoint.read(file)
    if "state_dict" not in found:
        return checkpoint.tensors(found, file), checkpoint.settings(file.parent / "config.json"), file
    state = checkpoint.tensors(entry(found, "state_dict", file, dict), file)
    config = entry(found, "model_cfg", file, dict) | {"target_transform": found.get("target_transform")}
    return {key.removeprefix("model."): value for key, value in state.items()}, config, file


def _head_settings(config: Mapping[str, Any], states: int, file: Path) -> HeadSettings:
    if not entry(config, "use_weighted_layer_sum", file, bool) or entry(config, "nth_layer", file) != states:
        raise SetupError(
            f"{file}: only heads over the weighted sum of all {states} states are supported"
            f" (use_weighted_layer_sum true, nth_layer {states})."
        )
    activation = entry(config, "proj_act_fn", file, str).lower()
    if activation not in ACTIVATIONS:
        raise UnknownName("activation", activation, ACTIVATIONS)
    transform = entry(config, "target_transform", file, dict)
    number = (int, float)
    return HeadSettings(
        layers=entry(config, "proj_num_layer", file),
        states=states,
        norm=entry(config, "proj_ln", file, bool),
        activation=activation,
        dropout=entry(config, "proj_dropout", file, number) > 0,
        unit=entry(config, "normalize_embed", file, bool),
        scales=tuple(
            (axis, float(entry(part, "mean", file, number)), float(entry(part, "std", file, number)))
            for axis in sorted(transform)
            for part in [entry(transform, axis, file, dict)]
        ),
    )
