"""MuQ (Zhu et al., arXiv 2501.01108): a conformer over mel spectrograms of music at 24 kHz, in plain torch.

Parameter names are those of the published checkpoints (PyTorchModelHubMixin: config.json and the weights).
States: 0 is the input of the first block, i the output of block i, "final" the layer norm behind the last block.
"""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmos.errors import SetupError
from mmmos.features import checkpoint
from mmmos.features.checkpoint import entry
from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.conformer import Conformer, Shape
from mmmos.features.spec import EncoderSpec
from mmmos.features.weights import weights_file
from mmmos.files import key_of

RATE, FFT = 24_000, 2048

# Time strides of the two convolutions by label rate (Hz); the stride over mel bands is always 2.
_STRIDES = {25: (2, 2), 50: (2, 1)}

# Parts of a checkpoint that only training needs, or nothing at all (pos_conv_embed).
_UNUSED = ("conformer.pos_conv_embed.", "rvq.", "quantizer_", "linear.", "cls_token")


@dataclass(frozen=True)
class Settings:
    """What a config.json says.

    ``hop`` samples between mel frames, ``channels`` of the convolutions, ``mean`` and ``std`` (dB) of the mel
    spectrograms that the model was trained on.
    """

    label_rate: int
    hop: int
    mels: int
    channels: int
    mean: float
    std: float
    conformer: Shape

    def problem(self) -> str:
        """Why these numbers cannot be a MuQ's, "" when they can."""
        sizes = {"hop_length": self.hop, "n_mels": self.mels, "conv_dim": self.channels}
        outside = [f"{name} = {size}" for name, size in sizes.items() if not 1 <= size < 2**14]
        if outside:
            return f"{', '.join(outside)} must lie from 1 to {2**14 - 1}"
        if self.label_rate not in _STRIDES:
            return f"label_rate = {self.label_rate} must be 25 or 50"
        if not (math.isfinite(self.mean) and 0 < self.std < math.inf):
            return f"melspec_2048_mean = {self.mean} and melspec_2048_std = {self.std} normalise nothing"
        return self.conformer.problem()


class MuQ:
    """A frozen MuQ; mel spectrogram and convolutions in float32, the conformer in the spec's precision."""

    def __init__(self, model: "Model", settings: Settings, spec: EncoderSpec, device: str) -> None:
        from nnAudio.features.mel import MelSpectrogram

        sizes = {"sr": RATE, "n_fft": FFT, "hop_length": settings.hop, "n_mels": settings.mels}
        mel = MelSpectrogram(**sizes, fmin=0.0, fmax=RATE / 2, htk=True, norm=None, verbose=False)
        self._settings, self._device = settings, device
        self._mel, self._model = mel.to(device), model.to(device)
        self._model.conformer.cast(dtype_of(spec.precision))
        self.spec = replace(
            spec,
            layers=settings.conformer.layers + 2,
            dim=settings.conformer.dim,
            hop=settings.hop * math.prod(_STRIDES[settings.label_rate]) / RATE,
            minimum=max(FFT // 2 + 1, settings.hop),
            config=key_of(asdict(settings)),
            front=f"mel spectrogram in dB, {settings.mels} htk bands, normalised as in training",
            layer_names=(*map(str, range(settings.conformer.layers + 1)), "final"),
        )

    def encode(self, waves: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples) at 24 kHz.

        ``padding`` (batch, samples), True where a sample is padding, masks as the authors' code does: the padding
        still leaks through the convolutions. Waves of equal length need none.
        """
        with exact():
            return self.states(self.mel(waves.to(self._device, torch.float32)), padding)

    def mel(self, waves: Tensor) -> Tensor:
        """Mel spectrogram in dB (batch, bands, frames) of waves on the encoder's device; samples // hop frames."""
        power: Tensor = self._mel(waves)[..., :-1]
        return 10 * torch.log10(power.clamp(min=1e-10))

    def states(self, mel: Tensor, padding: Tensor | None = None) -> Tensor:
        """States (batch, layers, frames, dim) float32 of a mel spectrogram in dB."""
        x: Tensor = self._model.conv((mel - self._settings.mean) / self._settings.std)
        if padding is not None:
            step = padding.shape[1] // x.shape[1]
            padding = padding.to(x.device)[:, : step * x.shape[1] : step]
        return torch.stack([state.float() for state in self._model.conformer(x, padding)], dim=1)


class Model(nn.Module):
    """Convolutions that shorten the spectrogram, and the conformer behind them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.conv, self.conformer = Subsampling(settings), Conformer(settings.conformer)


class Subsampling(nn.Module):
    """Normalised mel spectrogram (batch, bands, frames) to features (batch, fewer frames, dim)."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        channels, (first, second) = settings.channels, _STRIDES[settings.label_rate]
        self.conv = nn.Sequential(Residual(1, channels, first), Residual(channels, channels, second))
        self.linear = nn.Linear(channels * math.ceil(settings.mels / 4), settings.conformer.dim)

    def forward(self, mel: Tensor) -> Tensor:
        """One feature vector a frame, of all channels and bands."""
        out: Tensor = self.linear(self.conv(mel[:, None]).flatten(1, 2).transpose(1, 2))
        return out


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a third; the stride is 2 over bands, ``stride`` over time."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=(2, stride), padding=1)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv3 = nn.Conv2d(inputs, outputs, 3, stride=(2, stride), padding=1)
        self.bn3 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps (batch, outputs, bands / 2, frames / stride)."""
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.bn3(self.conv3(x)))


def read_settings(source: Path) -> Settings:
    """The settings in a config.json. Raises ``SetupError`` when they describe no MuQ."""
    found = checkpoint.settings(source)
    statistics, number = entry(found, "stat", source, dict), (int, float)
    # The conformer's own settings have a conv_dim, hidden_size and so on too, which do not count.
    inner = {"hidden_act": "swish", "layer_norm_eps": 1e-5} | entry(found, "w2v2_config", source, dict)
    shape = Shape(
        layers=entry(found, "encoder_depth", source),
        dim=entry(found, "encoder_dim", source),
        heads=entry(inner, "num_attention_heads", source),
        ffn=entry(inner, "intermediate_size", source),
        kernel=entry(inner, "conv_depthwise_kernel_size", source),
        activation=entry(inner, "hidden_act", source, str),
        eps=float(entry(inner, "layer_norm_eps", source, number)),
    )
    settings = Settings(
        label_rate=entry(found, "label_rate", source),
        hop=entry(found, "hop_length", source),
        mels=entry(found, "n_mels", source),
        channels=entry(found, "conv_dim", source),
        mean=float(entry(statistics, "melspec_2048_mean", source, number)),
        std=float(entry(statistics, "melspec_2048_std", source, number)),
        conformer=shape,
    )
    positions = entry(inner, "position_embeddings_type", source, str)
    problem = settings.problem() if positions == "rotary" else f"positions are {positions!r}, not 'rotary'"
    if problem:
        raise SetupError(f"The settings of {source} describe no MuQ that can be built: {problem}.")
    return settings


def read_model(path: Path) -> tuple[Model, Settings]:
    """The frozen model in a folder of config.json and weights, and its settings. Raises ``SetupError``."""
    settings = read_settings((path if path.is_dir() else path.parent) / "config.json")
    file = weights_file(path)
    state = {
        key.removeprefix("model."): value for key, value in checkpoint.tensors(checkpoint.read(file), file).items()
    }
    model = checkpoint.empty(lambda: Model(settings))
    used = {key: value for key, value in state.items() if not key.startswith(_UNUSED)}
    checkpoint.fill(model, used, file, lambda name: f"model.{name}")
    return model, settings


def load(card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32") -> MuQ:
    """Load a MuQ from a hub id or a folder."""
    path, spec = located(card, weights, revision, precision)
    model, settings = read_model(path)
    return MuQ(model, settings, spec, device)
