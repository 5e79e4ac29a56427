"""The published layouts of WavLM: folders of transformers, .pt files of microsoft/unilm, and weights that come alone.

Each leads to the settings, and to a state dict with the names of microsoft/unilm.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mmmos.errors import SetupError
from mmmos.features import checkpoint
from mmmos.features.checkpoint import entry
from mmmos.features.encoders.unilm import Shape, folded
from mmmos.features.encoders.wavlm_model import Network, Settings
from mmmos.features.weights import weights_file

# microsoft/unilm's name and transformers' name of the same tensor; {i} is a layer, * any rest.
_NAMES = (
    ("mask_emb", "masked_spec_embed"),
    ("layer_norm.*", "feature_projection.layer_norm.*"),
    ("post_extract_proj.*", "feature_projection.projection.*"),
    ("feature_extractor.conv_layers.{i}.0.*", "feature_extractor.conv_layers.{i}.conv.*"),
    ("feature_extractor.conv_layers.{i}.2.1.*", "feature_extractor.conv_layers.{i}.layer_norm.*"),
    ("encoder.pos_conv.0.bias", "encoder.pos_conv_embed.conv.bias"),
    ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.weight_g"),
    ("encoder.pos_conv.0.weight_v", "encoder.pos_conv_embed.conv.weight_v"),
    ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    ("encoder.pos_conv.0.weight_v", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    ("encoder.layers.{i}.self_attn.grep_linear.*", "encoder.layers.{i}.attention.gru_rel_pos_linear.*"),
    ("encoder.layers.{i}.self_attn.grep_a", "encoder.layers.{i}.attention.gru_rel_pos_const"),
    ("encoder.layers.{i}.self_attn.relative_attention_bias.*", "encoder.layers.{i}.attention.rel_attn_embed.*"),
    ("encoder.layers.{i}.self_attn.*", "encoder.layers.{i}.attention.*"),
    ("encoder.layers.{i}.self_attn_layer_norm.*", "encoder.layers.{i}.layer_norm.*"),
    ("encoder.layers.{i}.fc1.*", "encoder.layers.{i}.feed_forward.intermediate_dense.*"),
    ("encoder.layers.{i}.fc2.*", "encoder.layers.{i}.feed_forward.output_dense.*"),
)
# The base models have one group norm, in place 2 of the first convolution; it is looked up first.
_GROUP_NORM = ("feature_extractor.conv_layers.0.2.*", "feature_extractor.conv_layers.0.layer_norm.*")


def open_checkpoint(path: Path) -> tuple[Network, Settings]:
    """The frozen network of a checkpoint in any layout, and its settings. Raises ``SetupError``."""
    file = weights_file(path)
    found = checkpoint.read(file)
    config = (path if path.is_dir() else path.parent) / "config.json"
    if "model" in found and "cfg" in found:
        return from_unilm(checkpoint.tensors(entry(found, "model", file, dict), file), found["cfg"], file)
    if path.is_dir() or config.is_file():
        return _from_transformers(checkpoint.tensors(found, file), config, file)
    raise SetupError(
        f"{file} is no WavLM that can be told: it needs the entries 'cfg' and 'model' (microsoft/unilm), or a"
        " config.json beside it (transformers)."
    )


def from_unilm(state: dict[str, Tensor], cfg: object, source: Path) -> tuple[Network, Settings]:
    """A network from a state dict of microsoft/unilm and its ``cfg``."""
    if not isinstance(cfg, dict):
        raise SetupError(f"The entry 'cfg' of {source} is no dictionary but {type(cfg).__name__}.")
    sizes = {
        "layers": "encoder_layers",
        "dim": "encoder_embed_dim",
        "heads": "encoder_attention_heads",
        "ffn": "encoder_ffn_embed_dim",
        "pos_kernel": "conv_pos",
        "pos_groups": "conv_pos_groups",
        "buckets": "num_buckets",
        "max_distance": "max_distance",
    }
    settings = Settings(
        convolutions=parse_convolutions(entry(cfg, "conv_feature_layers", source, str), source),
        conv_bias=bool(cfg.get("conv_bias", False)),
        group_norm=cfg.get("extractor_mode", "default") != "layer_norm",
        projected="post_extract_proj.weight" in state,
        normalise=bool(cfg.get("normalize", False)),
        encoder=Shape(
            **{name: entry(cfg, key, source) for name, key in sizes.items()},
            pre_norm=bool(cfg.get("layer_norm_first", False)),
            activation=str(cfg.get("activation_fn", "gelu")),
        ).check(source),
    )
    return _network(settings, state, source), settings


def from_weights(state: dict[str, Tensor], source: Path) -> tuple[Network, Settings]:
    """A network from a state dict of microsoft/unilm that comes without settings: a base model of any size.

    Group norm, post norm and the strides 5, 2, 2, … are taken for granted; the rest is read off the shapes.
    """
    try:
        kernels = [
            state[f"feature_extractor.conv_layers.{i}.0.weight"].shape for i in range(_count(state, _CONVOLUTION))
        ]
        buckets, heads = state["encoder.layers.0.self_attn.relative_attention_bias.weight"].shape
        dim, per_group, kernel = state["encoder.pos_conv.0.weight_v"].shape
        shape = Shape(
            layers=_count(state, _BLOCK),
            dim=dim,
            heads=heads,
            ffn=len(state["encoder.layers.0.fc1.weight"]),
            pos_kernel=kernel,
            pos_groups=dim // per_group,
            buckets=buckets,
        ).check(source)
        convolutions = tuple((size[0], size[2], 2 if i else 5) for i, size in enumerate(kernels))
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise SetupError(f"{source} holds no WavLM that can be told from its weights: {error}.") from None
    settings = Settings(convolutions, False, True, "post_extract_proj.weight" in state, False, shape)
    return _network(settings, state, source), settings


_CONVOLUTION, _BLOCK = r"feature_extractor\.conv_layers\.(\d+)\.", r"encoder\.layers\.(\d+)\."


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many numbered parts a state dict has."""
    return len({found[1] for key in state if (found := re.match(pattern, key))})


def _from_transformers(state: dict[str, Tensor], config: Path, source: Path) -> tuple[Network, Settings]:
    cfg = checkpoint.settings(config)
    if cfg.get("model_type") != "wavlm":
        raise SetupError(f"{config} is not of a WavLM (model_type must be 'wavlm', got {cfg.get('model_type')!r}).")
    if cfg.get("add_adapter"):
        raise SetupError(f"{config}: add_adapter is not supported; use the model without its adapter.")
    group_norm = cfg.get("feat_extract_norm", "group") != "layer"
    settings = Settings(
        convolutions=_convolutions(cfg, config),
        conv_bias=bool(cfg.get("conv_bias", False)),
        group_norm=group_norm,
        projected=True,
        normalise=_normalises(config.parent, not group_norm),
        encoder=_shape(cfg, config),
    )
    return _network(settings, _renamed(state, group_norm), source, group_norm), settings


def _shape(cfg: Mapping[str, Any], config: Path) -> Shape:
    """Sizes from a config.json, defaults as in transformers' WavLMConfig."""
    defaults = {
        "layers": ("num_hidden_layers", 12),
        "dim": ("hidden_size", 768),
        "heads": ("num_attention_heads", 12),
        "ffn": ("intermediate_size", 3072),
        "pos_kernel": ("num_conv_pos_embeddings", 128),
        "pos_groups": ("num_conv_pos_embedding_groups", 16),
        "buckets": ("num_buckets", 320),
        "max_distance": ("max_bucket_distance", 800),
    }
    full = dict(defaults.values()) | dict(cfg)
    return Shape(
        **{name: entry(full, key, config) for name, (key, _) in defaults.items()},
        pre_norm=bool(cfg.get("do_stable_layer_norm", False)),
        activation=str(cfg.get("hidden_act", "gelu")),
        eps=float(entry({"layer_norm_eps": 1e-5} | dict(cfg), "layer_norm_eps", config, (float, int))),
    ).check(config)


def _convolutions(cfg: Mapping[str, Any], config: Path) -> tuple[tuple[int, int, int], ...]:
    columns = [entry(cfg, name, config, list) for name in ("conv_dim", "conv_kernel", "conv_stride")]
    return _sound_convolutions(zip(*columns, strict=False), columns[0], config)


def _sound_convolutions(rows: Any, expected: list[Any], source: Path) -> tuple[tuple[int, int, int], ...]:
    found = tuple(tuple(row) for row in rows)
    whole = all(len(row) == 3 and all(type(number) is int and number > 0 for number in row) for row in found)
    if not found or len(found) != len(expected) or not whole:
        raise SetupError(f"{source} describes no convolutions by channels, kernels and strides: {list(found)}.")
    return found


def parse_convolutions(text: str, source: Path) -> tuple[tuple[int, int, int], ...]:
    """(channels, kernel, stride) of each from a text like ``[(512,10,5)] + [(512,3,2)] * 4``; nothing is evaluated."""
    number = r"\s*\d+\s*"
    rows: list[tuple[int, ...]] = []
    for term in text.split("+"):
        found = re.fullmatch(
            rf"\s*(?:({number})\*)?\s*\[((?:\s*\({number},{number},{number}\)\s*,?)+)\s*\]\s*(?:\*({number}))?\s*", term
        )
        if not found:
            raise SetupError(f"conv_feature_layers of {source} cannot be read: {text!r}.")
        triples = [tuple(map(int, triple)) for triple in re.findall(r"(\d+)\s*,\s*(\d+)\s*,\s*(\d+)", found[2])]
        rows += triples * int(found[1] or 1) * int(found[3] or 1)
    return _sound_convolutions(rows, rows, source)


def _normalises(folder: Path, by_default: bool) -> bool:
    file = folder / "preprocessor_config.json"
    return bool(checkpoint.settings(file).get("do_normalize", by_default)) if file.is_file() else by_default


def _network(settings: Settings, state: dict[str, Tensor], source: Path, group_norm: bool | None = None) -> Network:
    """The network with its weights; ``group_norm`` is None for unilm's own names, which are then shown in errors."""
    network = checkpoint.empty(lambda: Network(settings))
    used = {key.replace("encoder.pos_conv.0.", "encoder.pos_conv."): value for key, value in folded(state).items()}
    used.pop("mask_emb", None)

    def published(name: str) -> str:
        name = name.replace("encoder.pos_conv.", "encoder.pos_conv.0.")
        return name if group_norm is None else _translated(name, 0, group_norm)

    checkpoint.fill(network, used, source, published)
    return network


def _renamed(state: Mapping[str, Tensor], group_norm: bool) -> dict[str, Tensor]:
    """A state dict of transformers under unilm's names; of a model with a task head, its WavLM alone."""
    prefix = "wavlm."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {_translated(key, 1, group_norm): value for key, value in state.items()}


def _translated(name: str, side: int, group_norm: bool) -> str:
    """The other name of a tensor: ``side`` 0 for one of unilm, 1 for one of transformers; unknown ones stay."""
    for pair in (_GROUP_NORM, *_NAMES) if group_norm else _NAMES:
        pattern = re.escape(pair[side]).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\*", "(?P<rest>.+)")
        if found := re.fullmatch(pattern, name):
            parts = found.groupdict()
            return pair[1 - side].replace("{i}", parts.get("i", "")).replace("*", parts.get("rest", ""))
    return name
