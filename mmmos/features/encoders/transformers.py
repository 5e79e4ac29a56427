"""The generic adapter: any audio encoder of the library ``transformers``, at whatever version, through hooks.

States: index 0 is the input of the first block, index i the raw output of block i, and where a norm takes the raw
output of the last block its output is one more layer, "final". Of hierarchical models (CLAP), whose blocks have
different widths, the layers with the shape of the last one are kept.
"""

from dataclasses import dataclass, field, replace
from threading import local
from typing import Any

import torch
from torch import Tensor, nn

from mmmos.errors import SetupError, UsageError, first_line
from mmmos.features.encoders.base import EncoderCard, dtype_of, exact, located
from mmmos.features.encoders.transformers_inputs import Front, Windows, open_front
from mmmos.features.encoders.transformers_model import open_config, open_encoder, quiet, without
from mmmos.features.spec import EncoderSpec
from mmmos.files import key_of

_FRAMES = 8  # over so many of them the hop is measured
_LONGEST = 10  # s of input that gives them at the latest


@dataclass
class _Seen:
    """What the hooks saw: the input of the first block with the raw output of each, and the norm behind the last."""

    raw: list[Tensor] = field(default_factory=list)
    final: Tensor | None = None


class TransformersEncoder:
    """A frozen audio encoder of transformers; ``encode`` gives the states of its blocks."""

    def __init__(self, model: nn.Module, front: Front, spec: EncoderSpec, device: str) -> None:
        self._model = model.to(device, dtype_of(spec.precision))
        self._watch = _Watch(model)
        self._front, self._device = front, device
        self.spec = spec
        with quiet():
            self.spec = self._measured()

    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, layers, frames, dim) float32 of waves (batch, samples) at ``spec.rate`` Hz."""
        with exact():
            return torch.stack(list(self._layers(waves).values()), dim=1).float()

    def _layers(self, waves: Tensor) -> dict[str, Tensor]:
        """States (batch, frames, dim) of the layers that have the shape of the last one, by name."""
        inputs = self._front.inputs(waves.to(self._device, torch.float32))
        dtype = dtype_of(self.spec.precision)
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}
        # Some versions draw a random number for each block, though they drop none in use.
        seen = self._watch.begin()
        with torch.random.fork_rng(devices=[]):
            self._model(**cast)
        states = {str(index): state for index, state in enumerate(seen.raw)}
        if seen.final is not None:
            states["final"] = seen.final
        shape = seen.raw[-1].shape
        kept = {name: state for name, state in states.items() if state.shape == shape}
        return {name: self._front.frames(state, waves.shape[1]) for name, state in kept.items()}

    def _measured(self) -> EncoderSpec:
        """The spec with what trial runs on noise tell."""
        front = self._front
        if isinstance(front, Windows):
            layers = self._trial(front.maximum)
            hop = front.step(_last(layers).shape[1])
            minimum = round(hop)
        else:
            minimum = self._first(1, 1)
            two = self._first(2, minimum)
            several = self._first(2 + _FRAMES, two)
            layers, hop = self._trial(several), (several - two) / _FRAMES
        return replace(
            self.spec,
            rate=front.rate,
            layers=len(layers),
            layer_names=tuple(layers),
            dim=_last(layers).shape[-1],
            hop=hop / front.rate,
            minimum=minimum,
            maximum=front.maximum,
            front=front.said,
        )

    def _first(self, frames: int, start: int) -> int:
        """The least number of samples, from ``start`` on, that gives so many frames."""
        below, enough = start - 1, start
        while self._count(enough) < frames:
            below, enough = enough, 2 * enough
            if enough > _LONGEST * self._front.rate:
                self._trial(below)
                raise SetupError(
                    f"The model in {self.spec.weights} gives fewer than {frames} frames for {below} samples."
                )
        while enough - below > 1:
            middle = (below + enough) // 2
            below, enough = (below, middle) if self._count(middle) >= frames else (middle, enough)
        return enough

    def _count(self, samples: int) -> int:
        """Frames of so many samples; 0 where the model takes no such input or gives no finite states."""
        try:
            return _last(self._trial(samples)).shape[1]
        except SetupError:
            return 0

    def _trial(self, samples: int) -> dict[str, Tensor]:
        """The layers of so many samples of noise. Raises ``SetupError`` when that fails."""
        noise = 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(0))
        try:
            with exact():
                layers = self._layers(noise)
                sound = layers and all(bool(state.isfinite().all()) for state in layers.values())
        except UsageError:
            raise
        except Exception as error:
            raise SetupError(
                f"The model in {self.spec.weights} does not run on what its feature extractor makes of {samples}"
                f" samples: {first_line(error)}."
            ) from None
        if not sound:
            raise SetupError(f"The model in {self.spec.weights} gives states that are not finite for noise.")
        return layers


def _last(layers: dict[str, Tensor]) -> Tensor:
    return list(layers.values())[-1]


def _blocks(model: nn.Module) -> nn.ModuleList:
    """The repeated blocks: of all lists of modules the one that holds most of the weights."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not lists:
        raise SetupError(f"{type(model).__name__} has no repeated blocks; allowed are transformer encoders of audio.")
    return max(lists, key=lambda blocks: sum(weight.numel() for weight in blocks.parameters()))


class _Watch:
    """Hooks that note what goes through the blocks, for each thread that runs the model by itself."""

    def __init__(self, model: nn.Module) -> None:
        self._local, blocks = local(), _blocks(model)
        self._count, inside = len(blocks), set(blocks.modules())
        blocks[0].register_forward_pre_hook(self._enter, with_kwargs=True)
        for block in blocks:
            block.register_forward_hook(self._leave)
        for module in model.modules():
            if module not in inside and "Norm" in type(module).__name__:
                module.register_forward_hook(self._normed)

    def begin(self) -> _Seen:
        """What will be seen from here on in this thread."""
        self._local.seen = _Seen()
        return self._local.seen

    def _enter(self, _: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._local.seen.raw.append(args[0] if args else named["hidden_states"])

    def _leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        self._local.seen.raw.append(output if isinstance(output, Tensor) else output[0])

    def _normed(self, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen = self._local.seen
        if len(seen.raw) == self._count + 1 and args and args[0] is seen.raw[-1]:
            seen.final = output


def load(
    card: EncoderCard, weights: str, revision: str, device: str, *, precision: str = "float32"
) -> TransformersEncoder:
    """Load an encoder from a hub id or a folder in the layout of transformers; no code that comes with it is run."""
    folder, spec = located(card, weights, revision, precision)
    if folder.is_file():
        raise SetupError(f"{folder} is a file; name the folder that holds it, its config.json and the rest.")
    config, settings = open_config(folder)
    front, extraction = open_front(folder, config)
    model = open_encoder(folder, config)
    if model.main_input_name != front.name:
        raise SetupError(
            f"The model in {folder} takes {model.main_input_name}, its feature extractor makes {front.name}: its"
            " preprocessor_config.json is missing or of another model. Fetch it from where the weights are from."
        )
    shaping = key_of({"config": settings, "preprocessor": without(extraction, {"processor_class"})})
    return TransformersEncoder(model, front, replace(spec, config=shaping), device)
