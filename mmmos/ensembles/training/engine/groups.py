"""Groups: which specs are trained together, so that the work is cut into pieces that are finished one by one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mmmos.ensembles import heads
from mmmos.ensembles.spec import HeadSpec
from mmmos.features.table import Features
from mmmos.files import key_of

# Bytes of parameters, gradients and moments that a stack has on a CPU: beyond its caches, memory is slower than a stack
# is faster.
CACHE = 12 << 20
# Heads in a stack at most, on a CPU and elsewhere, and the share of a GPU's memory that they may take.
MOST, MOST_ON_GPU, SHARE = 32, 1024, 0.5

# What heads of a stack may differ in.
_OWN = ("lr", "weight_decay", "clip", "epochs", "patience")


@dataclass(frozen=True)
class Group:
    """Specs that are trained in one go, ``together`` heads in a stack."""

    specs: tuple[HeadSpec, ...]
    together: int

    @property
    def label(self) -> str:
        """What logs call it."""
        return f"{len(self.specs)} heads, first {self.specs[0].name}" if self.specs else "no heads"


def kind(spec: HeadSpec) -> str:
    """What specs have in common that can be trained together: all but seed, loss, rate, decay, clipping, stopping."""
    fixed = spec.model_dump(mode="json", exclude={"seed", "calibration", "options", "loss", "loss_options"})
    if not heads.is_neural(spec.head):
        return spec.key("")
    head: Any = heads.make_of(spec)
    if not head.stacks:
        return spec.key("")
    options = {name: value for name, value in spec.options.items() if name not in _OWN}
    return key_of(fixed | {"options": options, "outputs": head.outputs(len(spec.axes))})


def plan(specs: Iterable[HeadSpec], features: Features, device: str, *, exact: bool, jobs: int) -> list[Group]:
    """Groups of specs of one kind, in the order of their first; on a CPU enough of them for every process."""
    kinds: dict[str, list[HeadSpec]] = {}
    for spec in specs:
        kinds.setdefault(kind(spec), []).append(spec)
    groups = []
    for alike in kinds.values():
        size = 1 if exact else together(alike[0], features, device)
        number = max(size // alike[0].folds, 1)
        if device == "cpu":
            number = max(min(number, -(-len(alike) // (2 * jobs))), 1)
        groups += [Group(tuple(alike[first : first + number]), size) for first in range(0, len(alike), number)]
    return groups


def together(spec: HeadSpec, features: Features, device: str) -> int:
    """How many heads like this one are trained fastest as one stack."""
    if not heads.is_neural(spec.head):
        return 1
    head: Any = heads.make_of(spec)
    if not head.stacks:
        return 1
    choice = "all" if spec.layers == "weighted" else spec.layers
    shapes = [features[name].rows([0]).layers(choice).shape[1:] for name in spec.features]
    size = _bytes(head, shapes, len(spec.axes))
    if device == "cpu":
        return max(min(CACHE // size, MOST), 1)
    import torch

    _, total = torch.cuda.mem_get_info(device)
    return int(max(min(SHARE * total // size, MOST_ON_GPU), 1))


def _bytes(head: Any, shapes: list[tuple[int, int]], axes: int) -> int:
    """Bytes that a head takes in training: parameters, gradients, two moments, and its batch twice."""
    import torch

    module = head.build(shapes, axes, [torch.Generator()])
    parameters = sum(parameter.numel() for parameter in module.parameters())
    inputs = sum(layers * dim for layers, dim in shapes)
    return 4 * (4 * parameters + 2 * head.options.batch * inputs)
