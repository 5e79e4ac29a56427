"""The front ends of the generic adapter: what a model of transformers takes for its input, and what its tokens are.

The feature extractor of a checkpoint decides. Waveforms are normalised here; spectrograms are made by the library's own
extractor, on the CPU and for each wave on its own. Extractors of codecs, text and images are not among them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmos.errors import SetupError, UsageError, first_line
from mmmos.features import checkpoint
from mmmos.features.encoders.wavlm_model import normalised

Settings = dict[str, Any]

_WAVES = "Wav2Vec2FeatureExtractor"
_ANY_LENGTH = ("SeamlessM4TFeatureExtractor", "ParakeetFeatureExtractor", "Speech2TextFeatureExtractor")


@dataclass(frozen=True)
class Grid:
    """What the tokens of a window of fixed length mean.

    ``maximum``: samples of the window; ``step``: samples between columns, 0 where the tokens share the window evenly.
    ``columns`` turns states (batch, tokens, dim) into (batch, columns in order of time, dim).
    """

    maximum: int
    step: float = 0
    columns: Callable[[Tensor], Tensor] = lambda states: states


class Waves:
    """The waveform itself, brought to zero mean and unit variance where the checkpoint says so."""

    name, maximum = "input_values", 0

    def __init__(self, rate: int, normalise: bool) -> None:
        self.rate, self._normalise = rate, normalise
        self.said = "zero mean, unit variance" if normalise else ""

    def inputs(self, waves: Tensor) -> dict[str, Tensor]:
        """What the model is called with, of float32 waves (batch, samples)."""
        return {self.name: normalised(waves) if self._normalise else waves}

    def frames(self, states: Tensor, samples: int) -> Tensor:
        """States (batch, frames, dim) of the tokens of so many samples."""
        return states


class Spectrograms:
    """Mel spectrograms of any length, without the frames that the extractor fills up."""

    maximum = 0

    def __init__(self, extractor: Any) -> None:
        self._extractor = extractor
        self.rate = int(extractor.sampling_rate)
        self.name: str = extractor.model_input_names[0]
        self.said = type(extractor).__name__

    def inputs(self, waves: Tensor) -> dict[str, Tensor]:
        """What the model is called with, of float32 waves (batch, samples)."""
        made = [self._extractor(wave, sampling_rate=self.rate, return_tensors="np") for wave in waves.cpu().numpy()]
        mask = made[0].get("attention_mask")
        frames = None if mask is None else int(mask.sum())
        found = torch.cat([torch.from_numpy(one[self.name])[:, :frames] for one in made]).float()
        return {self.name: found.to(waves.device)}

    def frames(self, states: Tensor, samples: int) -> Tensor:
        """States (batch, frames, dim) of the tokens of so many samples."""
        return states


class Windows:
    """Mel spectrograms of a window of fixed length, which the extractor fills up; states are cut to the audio in it."""

    def __init__(self, extractor: Any, grid: Grid) -> None:
        self._extractor, self._grid = extractor, grid
        self.rate, self.maximum = int(extractor.sampling_rate), grid.maximum
        self.name: str = extractor.model_input_names[0]
        self.said = type(extractor).__name__

    def inputs(self, waves: Tensor) -> dict[str, Tensor]:
        """What the model is called with, of float32 waves (batch, samples). Raises ``UsageError`` for longer ones."""
        if waves.shape[1] > self.maximum:
            raise UsageError(
                f"The input of {waves.shape[1] / self.rate:g} s is longer than this model's window of"
                f" {self.maximum / self.rate:g} s; choose a shorter window."
            )
        made = [self._extractor(wave, sampling_rate=self.rate, return_tensors="np") for wave in waves.cpu().numpy()]
        found = {self.name: torch.cat([torch.from_numpy(one[self.name]) for one in made]).float()}
        if "is_longer" in made[0]:  # CLAP with feature fusion
            found["is_longer"] = torch.cat([torch.from_numpy(one["is_longer"]) for one in made])
        return {name: value.to(waves.device) for name, value in found.items()}

    def step(self, tokens: int) -> float:
        """Samples between columns, of which there are so many."""
        return self._grid.step or self.maximum / tokens

    def frames(self, states: Tensor, samples: int) -> Tensor:
        """States (batch, frames, dim) of the columns that begin within so many samples."""
        columns = self._grid.columns(states)
        return columns[:, : math.ceil(samples / self.step(columns.shape[1]))]


Front = Waves | Spectrograms | Windows


def open_front(folder: Path, config: Any) -> tuple[Front, Settings]:
    """The front end of a checkpoint, and the settings that it was made from. Raises ``SetupError``."""
    import transformers

    settings = _settings(folder)
    usual = transformers.FEATURE_EXTRACTOR_MAPPING.get(type(config), None)
    name = (settings or {}).get("feature_extractor_type") or getattr(usual, "__name__", "none")
    allowed = [_WAVES, *_ANY_LENGTH, *_GRIDS]
    if name not in allowed:
        raise SetupError(
            f"The model in {folder} (model_type {config.model_type!r}) has the feature extractor {name!r}; allowed are"
            f" models with one of {', '.join(allowed)}: encoders of audio, not codecs, text or images."
        )
    if settings is None and name != _WAVES:
        raise SetupError(
            f"{folder} holds no preprocessor_config.json, which says how the spectrogram of a {config.model_type!r} is"
            " made. Fetch it from where the weights are from."
        )
    try:
        return _front(name, settings or {}, config), settings or {}
    except Exception as error:
        raise SetupError(f"The feature extractor in {folder} cannot be made: {first_line(error)}.") from None


def _front(name: str, settings: Settings, config: Any) -> Front:
    import transformers

    if name == _WAVES:
        # Without a file of settings: models with a layer norm in each convolution were trained on normalised waves.
        layer_norm = getattr(config, "feat_extract_norm", "") == "layer"
        rate = settings.get("sampling_rate", 16_000)
        if not isinstance(rate, int) or rate < 1:
            raise ValueError(f"sampling_rate must be a positive whole number, got {rate!r}")
        return Waves(rate, bool(settings.get("do_normalize", layer_norm)))
    extractor = getattr(transformers, name).from_dict(settings)
    if hasattr(extractor, "dither"):
        extractor.dither = 0.0  # noise, which would be another each time
    if int(extractor.sampling_rate) < 1:
        raise ValueError(f"sampling_rate must be a positive whole number, got {extractor.sampling_rate!r}")
    return Windows(extractor, _GRIDS[name](extractor, config)) if name in _GRIDS else Spectrograms(extractor)


def _settings(folder: Path) -> Settings | None:
    """The settings of the feature extractor, from the file of its own or from the processor's."""
    found: Settings | None = None
    if (folder / "preprocessor_config.json").is_file():
        found = checkpoint.settings(folder / "preprocessor_config.json")
    if (folder / "processor_config.json").is_file():
        nested = checkpoint.settings(folder / "processor_config.json").get("feature_extractor")
        found = nested if isinstance(nested, dict) else found
    return found


def _sequence(extractor: Any, config: Any) -> Grid:
    """Whisper and its kin: tokens follow each other in time."""
    return Grid(int(extractor.n_samples))


def _spectrogram_transformer(extractor: Any, config: Any) -> Grid:
    """AST: two tokens of the whole clip, then patches, band by band; the bands of a column are averaged."""
    bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1

    def columns(states: Tensor) -> Tensor:
        return states[:, 2:].unflatten(1, (bands, -1)).mean(1)

    # Frames of 25 ms every 10 ms, as kaldi counts them.
    hop, frame = extractor.sampling_rate // 100, extractor.sampling_rate // 40
    return Grid((extractor.max_length - 1) * hop + frame, config.time_stride * hop, columns)


def _hierarchical(extractor: Any, config: Any) -> Grid:
    """CLAP (HTS-AT): stretches of time lie below each other in a square of patches; the bands of each are averaged."""
    audio = getattr(config, "audio_config", config)
    stretches = audio.spec_size // audio.num_mel_bins

    def columns(states: Tensor) -> Tensor:
        side = math.isqrt(states.shape[1])
        return states.unflatten(1, (stretches, side // stretches, side)).mean(2).flatten(1, 2)

    return Grid(int(extractor.nb_max_samples), 0, columns)


_GRIDS: dict[str, Callable[[Any, Any], Grid]] = {
    "WhisperFeatureExtractor": _sequence,
    "ASTFeatureExtractor": _spectrogram_transformer,
    "ClapFeatureExtractor": _hierarchical,
}
