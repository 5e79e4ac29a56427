"""Checkpoints of transformers, loaded strictly: no code of theirs is run, no key is missing or left over.

Loading opens no socket and prints nothing.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmmos.errors import SetupError, first_line
from mmmos.features import checkpoint
from mmmos.features.weights import weights_files

# Entries that say who wrote a file, and change no number.
_NOTES = {"_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype", "_commit_hash"}
# A kernel can be named by a hub id here, and would be fetched and run: the library's own choice is made instead.
_KERNELS = {"attn_implementation", "_attn_implementation", "_attn_implementation_internal", "experts_implementation"}
# Stands for masked frames in training and is in no other use; many fine-tuned checkpoints lack it.
_TRAINING = {"masked_spec_embed"}
_INPUTS = ("input_values", "input_features")


def open_config(folder: Path) -> tuple[Any, dict[str, Any]]:
    """The configuration of a checkpoint, and its entries that shape the model. Raises ``SetupError``."""
    import transformers

    path = folder / "config.json"
    settings = checkpoint.settings(path)
    kind = checkpoint.entry(settings, "model_type", path, str)
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file() and checkpoint.settings(folder / name).get("auto_map"):
            raise SetupError(
                f"{folder / name} names code of its own (auto_map), and code that comes with weights is not run here."
                f" Allowed are the models of transformers {transformers.__version__} itself."
            )
    if (folder / "adapter_config.json").is_file():
        raise SetupError(f"{folder} holds an adapter of another model; merge it into that model and save the whole.")
    if kind not in transformers.CONFIG_MAPPING:
        raise SetupError(
            f"transformers {transformers.__version__} has no model {kind!r}, which {path} asks for, and code that comes"
            " with weights is not run here. Allowed are its own audio encoders; a newer version may have this one."
        )
    settings = without(settings, _NOTES | _KERNELS)
    try:
        with quiet():
            config = transformers.CONFIG_MAPPING[kind].from_dict(settings)
    except Exception as error:
        raise SetupError(f"{path} cannot be used: {first_line(error)}.") from None
    if type(config) not in transformers.MODEL_MAPPING:
        raise SetupError(f"{path} is of a part of a model ({kind!r}), which transformers does not load on its own.")
    return config, settings


def without(settings: Any, names: set[str]) -> Any:
    """Settings without the entries of some names, at any depth."""
    if isinstance(settings, dict):
        return {key: without(value, names) for key, value in settings.items() if key not in names}
    return [without(value, names) for value in settings] if isinstance(settings, list) else settings


def open_encoder(folder: Path, config: Any) -> Any:
    """The frozen audio encoder of a checkpoint in float32, every weight from the file. Raises ``SetupError``."""
    import transformers

    model_class: Any = transformers.MODEL_MAPPING[type(config)]
    try:
        with quiet(), torch.random.fork_rng(devices=[]):
            model, info = model_class.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,  # told by what follows
                output_loading_info=True,
            )
    except Exception as error:
        for file in weights_files(folder):
            checkpoint.read(file)  # says it better when the file itself is at fault
        raise SetupError(f"The weights in {folder} cannot be loaded: {first_line(error)}.") from None
    name, encoder = _find(model, folder)
    _check(info, name, encoder, model.base_model_prefix, folder)
    frozen: nn.Module = encoder.eval().requires_grad_(False)
    return frozen


def _find(model: Any, folder: Path) -> tuple[str, Any]:
    """The part of a model that takes audio, without a decoder, and the name of its place."""
    import transformers

    for name, module in model.named_modules():
        takes_audio = isinstance(module, transformers.PreTrainedModel) and module.main_input_name in _INPUTS
        if takes_audio and not hasattr(module, "decoder"):
            return name, module
    raise SetupError(
        f"The model in {folder} ({type(model).__name__}) has no encoder of audio that stands by itself. Allowed are"
        " such as HuBERT, wav2vec 2.0, Whisper, AST and CLAP."
    )


def _check(info: dict[str, Any], place: str, encoder: Any, prefix: str, folder: Path) -> None:
    """Refuse weights that do not fit the encoder; what is of a decoder, a text model or a head is left alone."""
    inside = f"{place}." if place else ""
    parts = {name.split(".")[0] for name in encoder.state_dict()}

    def is_own(key: str) -> bool:
        rest = key.removeprefix(f"{prefix}.")
        return rest.startswith(inside) and rest.removeprefix(inside).split(".")[0] in parts - _TRAINING

    missing = sorted(filter(is_own, info["missing_keys"]))
    unexpected = sorted(filter(is_own, info["unexpected_keys"]))
    shapes = [
        f"{key} is {tuple(got)}, by the settings {tuple(wanted)}"
        for key, got, wanted in sorted(info["mismatched_keys"])
        if is_own(key)
    ]
    kinds = {"Missing keys": missing, "Unexpected keys": unexpected, "Wrong shapes": shapes}
    wrong = [f"{what}: {checkpoint.listed(keys)}." for what, keys in kinds.items() if keys]
    if wrong or info.get("error_msgs"):
        told = wrong or [f"{str(info['error_msgs'][0]).splitlines()[0]}."]
        raise SetupError(" ".join([f"The weights in {folder} do not fit their config.json.", *told]))


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's reports, warnings and bars: what is wrong becomes an error here."""
    from transformers.utils import logging as reports

    level, bars = reports.get_verbosity(), reports.is_progress_bar_enabled()
    reports.set_verbosity(logging.CRITICAL)
    reports.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        reports.set_verbosity(level)
        if bars:
            reports.enable_progress_bar()
