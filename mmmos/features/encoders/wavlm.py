"""WavLM (Chen et al., arXiv 2110.13900) through transformers: any checkpoint in the Hugging Face layout.

States: index 0 is the input of the first block, index L the raw output of block L, in any version of transformers.
Zeros change every frame of the base models (group norm over time), so a batch holds waves of equal length only.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmos.errors import SetupError
from mmmos.features import weights as weights_module
from mmmos.features.encoders.base import EncoderCard
from mmmos.features.spec import EncoderSpec
from mmmos.files import key_of

RATE = 16_000

# Entries of config.json that say who wrote it, and change no number.
_NOTES = {"_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype"}


class WavLM:
    """A frozen WavLM; ``encode`` gives all hidden states of raw 16 kHz audio."""

    def __init__(self, folder: Path, spec: EncoderSpec, device: str) -> None:
        self._model, self._normalise = _load(folder)
        self._model.to(device)
        config = self._model.config
        front = "zero mean, unit variance" if self._normalise else ""
        hop, minimum = _framing(config)
        layers, dim = config.num_hidden_layers + 1, config.hidden_size
        settings = key_of({key: value for key, value in _json(folder / "config.json").items() if key not in _NOTES})
        self.spec = replace(spec, layers=layers, dim=dim, hop=hop, minimum=minimum, front=front, config=settings)
        self._device = device

    @torch.inference_mode()
    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples); frame i begins at i × 20 ms."""
        waves = waves.to(self._device, torch.float32)
        if self._normalise:
            mean, variance = waves.mean(1, keepdim=True), waves.var(1, keepdim=True, unbiased=False)
            waves = (waves - mean) / torch.sqrt(variance + 1e-7)
        states: list[Tensor] = []
        blocks = self._model.encoder.layers
        handles = [blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))]
        handles += [b.register_forward_hook(lambda _, __, output: states.append(_first(output))) for b in blocks]
        try:
            self._model(waves)
        finally:
            for handle in handles:
                handle.remove()
        return torch.stack(states, dim=1)


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _load(folder: Path) -> tuple[Any, bool]:
    """The model in evaluation mode and whether its input is normalised to zero mean and unit variance."""
    from transformers import WavLMConfig, WavLMModel

    settings = _json(folder / "config.json")
    if settings.get("model_type") != "wavlm":
        raise SetupError(f"{folder}/config.json is not of a WavLM (model_type must be 'wavlm').")
    with _quiet():
        try:
            config = WavLMConfig.from_dict(settings)
            loaded: Any = WavLMModel.from_pretrained(
                folder,
                config=config,
                output_loading_info=True,
                dtype=torch.float32,
                local_files_only=True,
                weights_only=True,
            )
            model, info = loaded
        except Exception as error:
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            raise SetupError(f"The WavLM in {folder} cannot be loaded: {reason}.") from error
    wrong = {name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[name]}
    if wrong:
        listed = "; ".join(f"{name.replace('_', ' ')}: {', '.join(map(str, keys))}" for name, keys in wrong.items())
        raise SetupError(f"The weights in {folder} do not fit their config.json. {listed}.")
    preprocessor = folder / "preprocessor_config.json"
    front = _json(preprocessor) if preprocessor.is_file() else {}
    normalise = front.get("do_normalize", config.feat_extract_norm == "layer")
    return model.eval().requires_grad_(False), bool(normalise)


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file beside the weights."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise SetupError(f"{path.parent} is no WavLM folder: it holds no {path.name} beside the weights.") from None
    except (OSError, ValueError) as error:
        raise SetupError(f"{path} cannot be read: {error}.") from None
    if not isinstance(found, dict):
        raise SetupError(f"{path} holds no JSON object.")
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own reports and bars: what is wrong becomes an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _framing(config) -> tuple[float, int]:  # type: ignore[no-untyped-def]
    """Hop in s and the least number of samples that gives one frame, from the strided convolutions."""
    stride, minimum = 1, 1
    for step in config.conv_stride:
        stride *= step
    for kernel, step in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        minimum = (minimum - 1) * step + kernel
    return stride / RATE, minimum


def load(card: EncoderCard, weights: str, revision: str, device: str) -> WavLM:
    """Load a WavLM from a hub id or a folder; the card's SHA-256 is checked for its own weights and revision."""
    if not weights:
        raise SetupError(f"The encoder {card.name!r} needs weights = a hub id or a folder in the Hugging Face layout.")
    folder = weights_module.find(weights, revision)
    own = (weights, revision) == (card.weights, card.revision)
    digest = weights_module.checked(folder, card.sha256 if own else "")
    spec = EncoderSpec(
        name=card.name,
        family=card.family,
        rate=card.rate,
        layers=0,
        dim=0,
        hop=0.0,
        minimum=0,
        licence=card.licence if weights == card.weights else "see the weights",
        weights=weights,
        revision=revision,
        sha256=digest,
    )
    return WavLM(folder, spec, device)


WAVLM = EncoderCard("wavlm", "wavlm", load, "see the weights", rate=RATE, hop=0.02, minimum=400)

WAVLM_BASE_PLUS = replace(
    WAVLM,
    name="wavlm-base-plus",
    licence="CC-BY-SA-3.0 (unverified)",
    layers=13,
    dim=768,
    weights="microsoft/wavlm-base-plus",
    revision="4c66d4806a428f2e922ccfa1a962776e232d487b",
    sha256="3bb273a6ace99408b50cfc81afdbb7ef2de02da2eab0234e18db608ce692fe51",
)
