"""What the arrays of a member must be: names, shapes, types and ranges that its spec asks for, and no others.

A number in a shape is exact; a word stands for a size that is the same wherever the word is.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mmmos import registry
from mmmos.ensembles import heads
from mmmos.ensembles.bundle.about import About, Member
from mmmos.ensembles.bundle.arrays import Arrays
from mmmos.ensembles.calibration import Calibration
from mmmos.ensembles.runs import Run, part, restored
from mmmos.ensembles.spec import LAYER_CHOICES, HeadSpec
from mmmos.errors import SetupError, StoreError, UnknownName, UsageError, did_you_mean, first_line
from mmmos.recipe import sentences

Size = int | str
Layout = Mapping[str, tuple[str, tuple[Size, ...]]]
Shapes = list[tuple[int, int]]

# Hz to which a head may pool frames.
FASTEST = 1000

_LINEAR: Layout = {"coefficients": ("f8", ("axes", "features")), "intercept": ("f8", ("axes",))}
_KERNEL: Layout = {
    "support": ("f4", ("clips", "features")),
    "dual": ("f8", ("clips", "axes")),
    "intercept": ("f8", ("axes",)),
    "gamma": ("f8", ()),
}
_NEIGHBOURS: Layout = {"clips": ("f4", ("clips", "features")), "targets": ("f4", ("clips", "axes"))}
_TREES: Layout = {
    "starts": ("i4", ("trees",)),
    **dict.fromkeys(("left", "right", "feature"), ("i4", ("nodes",))),
    "threshold": ("f8", ("nodes",)),
    "value": ("f4", ("nodes", "axes")),
    "intercept": ("f8", ("axes",)),
    "depth": ("i4", ()),
}
# Arrays of the heads that are not neural, by their registered names.
CLASSICAL: Mapping[str, Layout] = {
    **dict.fromkeys(("ridge", "sklearn_linear"), _LINEAR),
    **dict.fromkeys(("kernel_ridge", "gaussian_process", "svr"), _KERNEL),
    **dict.fromkeys(("extra_trees", "random_forest", "gradient_boosting"), _TREES),
    "knn": _NEIGHBOURS,
}


def restored_run(member: Member, about: About, arrays: Arrays, where: str) -> Run:
    """The run of a member. Raises ``StoreError`` for arrays that do not fit its spec, ``SetupError`` for a spec that
    names what is not installed.
    """
    spec = member.spec
    try:
        check_registered("heads", spec.head)
        check_registered("losses", spec.loss)
        shapes = _shapes(spec, about)
        count = len(member.epochs)
        heads_own = tuple(f"{number}.head." for number in range(count))
        common = {name: array for name, array in arrays.items() if not name.startswith(heads_own)}
        _fit(common, _common_layout(spec, count, shapes), where, {"axes": len(spec.axes)})
        _check_ranges(common, where)
        for number in range(count):
            _check_head(spec, part(arrays, f"{number}.head"), shapes, f"{where}, head {number}")
        return restored(spec, member.data, member.epochs, arrays)
    except ValidationError as error:
        told = " ".join(sentences(error, registry.load("heads", spec.head).Options, "its options"))
        raise StoreError(f"{where}: the head {spec.head!r} does not take what its spec says: {told}") from None
    except UsageError as error:
        raise StoreError(f"{where}: {error}") from None
    except (ValueError, KeyError, TypeError, IndexError, RuntimeError, AttributeError) as error:
        raise StoreError(f"{where} cannot be restored: {type(error).__name__}: {first_line(error)}.") from None


def check_registered(kind: str, name: str) -> None:
    """Raise ``SetupError`` for a name that nothing registers; a bundle never names a file of code."""
    known = registry.names(kind)
    if name not in known:
        raise SetupError(
            f"The bundle needs the {registry.KINDS[kind]} {name!a}, which no installed package registers. Install the"
            f" package that it is of; known are {', '.join(known)}."
        )


def _shapes(spec: HeadSpec, about: About) -> Shapes:
    """(layers, dim) of what the head reads of each of its feature sets."""
    if not spec.features:
        raise UsageError("its spec names no feature set.")
    sets = {each.name: each for each in about.encoders}
    return [
        (_layers(spec, sets[name].spec().encoder.names(), sets[name].frames), sets[name].facts.dim)
        for name in spec.features
    ]


def _layers(spec: HeadSpec, every: Sequence[str], kept: Sequence[str]) -> int:
    """How many layers of a feature set the head reads."""
    frames = heads.reads(spec.head) == "frames"
    if spec.layers in ("last", "mean"):
        return 1
    if spec.layers in LAYER_CHOICES:
        return len(kept if frames else every)
    wanted = [spec.layers] if isinstance(spec.layers, str) else list(spec.layers)
    for name in wanted:
        if name not in (kept if frames else every):
            raise UnknownName("layer", name, kept if frames else every)
    return len(wanted)


def _common_layout(spec: HeadSpec, count: int, shapes: Shapes) -> dict[str, tuple[str, tuple[Size, ...]]]:
    """The arrays beside those of the heads; inputs are standardised in every head or in none."""
    layout: dict[str, tuple[str, tuple[Size, ...]]] = {
        "scale": ("f8", (2, "axes")),
        "calibration.x": ("f8", ("axes", "knots")),
        "calibration.y": ("f8", ("axes", "knots")),
        "calibration.slope": ("f8", ("axes",)),
    }
    standard = spec.normalise == "standard"
    for number in range(count):
        layout[f"{number}.offset"] = ("f8", ("axes",))
        for place, shape in enumerate(shapes) if standard else ():
            layout[f"{number}.standardise.mean.{place}"] = ("f4", shape)
            layout[f"{number}.standardise.scale.{place}"] = ("f4", shape)
    return layout


def _check_head(spec: HeadSpec, arrays: Arrays, shapes: Shapes, where: str) -> None:
    """Raise ``StoreError`` where the arrays of one head are not those of its spec."""
    sizes = {"axes": len(spec.axes), "features": sum(layers * dim for layers, dim in shapes)}
    if spec.head in CLASSICAL:
        heads.make_of(spec)
        _fit(arrays, CLASSICAL[spec.head], where, sizes)
        if CLASSICAL[spec.head] is _TREES:
            _check_trees(arrays, sizes["features"], where)
        if CLASSICAL[spec.head] is _NEIGHBOURS and not len(arrays["clips"]):
            raise StoreError(f"{where}: it has no clips to be near to.")
    elif heads.is_neural(spec.head):
        _fit(arrays, _neural_layout(spec, arrays, shapes), where, sizes)
        if arrays["shapes"].tolist() != [list(shape) for shape in shapes] or int(arrays["axes"]) != len(spec.axes):
            raise StoreError(f"{where}: shapes and axes are not those of its feature sets.")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StoreError(f"{where}: {name} holds numbers that are not finite.")


def _neural_layout(spec: HeadSpec, arrays: Arrays, shapes: Shapes) -> Layout:
    """The arrays of a neural head, as a module without memory has them."""
    import torch

    head: Any = heads.make_of(spec)
    _check_extent(head.options.model_dump(), len(arrays))
    if hasattr(head, "domains") and "classes.bias" in arrays:
        head.domains = int(arrays["classes.bias"].size)
    with torch.device("meta"):
        module = head.build(shapes, len(spec.axes), [torch.Generator()])
    own = {name: tuple(value.shape[1:] if head.stacks else value.shape) for name, value in module.state_dict().items()}
    layout: dict[str, tuple[str, tuple[Size, ...]]] = {name: ("f4", shape) for name, shape in own.items()}
    constants = head.criterion().of_training(
        np.tile(np.linspace(0, 10, 8)[:, None], len(spec.axes)), np.ones((2, len(spec.axes)))
    )
    layout |= {f"loss.{name}": ("f4", np.shape(array)) for name, array in constants.items()}
    return layout | {"shapes": ("i4", (len(shapes), 2)), "axes": ("i4", ())}


def _check_extent(options: Mapping[str, Any], arrays: int) -> None:
    """Raise ``UsageError`` for more layers than there are arrays and for too short steps: both take for ever."""
    depth, rate = options.get("depth"), options.get("rate")
    if isinstance(depth, int) and depth > arrays:
        raise UsageError(f"its options ask for {depth} layers, and there are {arrays} arrays.")
    if isinstance(rate, int | float) and rate > FASTEST:
        raise UsageError(f"its options ask for {rate:g} steps a second; {FASTEST} are allowed.")


def _check_trees(arrays: Arrays, features: int, where: str) -> None:
    """Raise ``StoreError`` for trees that lead out of themselves, or walks that are longer than they are large."""
    nodes = len(arrays["left"])
    bounds = {"starts": nodes, "left": nodes, "right": nodes, "feature": features, "depth": nodes + 1}
    for name, bound in bounds.items():
        if arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < bound:
            raise StoreError(f"{where}: {name} holds numbers outside 0 to {bound - 1}.")


def _check_ranges(arrays: Arrays, where: str) -> None:
    """Raise ``StoreError`` for numbers that are not finite; a scale of inputs is above 0 and may be infinite."""
    for name, array in arrays.items():
        if ".standardise.scale." in name:
            if not (array > 0).all():
                raise StoreError(f"{where}: {name} holds numbers that are not above 0.")
        elif array.dtype.kind == "f" and not np.isfinite(array).all():
            raise StoreError(f"{where}: {name} holds numbers that are not finite.")
    check_lines(arrays["calibration.x"], arrays["calibration.slope"], f"{where}: calibration")


def check_lines(x: NDArray[Any], slope: NDArray[Any], where: str) -> None:
    """Raise ``StoreError`` for a calibration whose knots do not ascend, or that falls."""
    finite = np.isfinite(x).all() and np.isfinite(slope).all()
    if not (x.shape[1] and finite and (np.diff(x, axis=1) >= 0).all() and (slope >= 0).all()):
        raise StoreError(f"{where} is no rising line.")


def lines(arrays: Arrays, axes: int, where: str) -> Calibration:
    """A calibration of its own, from its arrays. Raises ``StoreError``."""
    _fit(
        arrays,
        {"x": ("f8", ("axes", "knots")), "y": ("f8", ("axes", "knots")), "slope": ("f8", ("axes",))},
        where,
        {"axes": axes},
    )
    check_lines(arrays["x"], arrays["slope"], where)
    if not np.isfinite(arrays["y"]).all():
        raise StoreError(f"{where} holds numbers that are not finite.")
    return Calibration.from_state(arrays)


def _fit(arrays: Arrays, layout: Layout, where: str, sizes: Mapping[str, int]) -> None:
    """Raise ``StoreError`` unless arrays have the names, types and shapes of a layout."""
    _refuse_unknown(set(arrays) - set(layout), set(layout) - set(arrays) or set(layout), where)
    if missing := sorted(set(layout) - set(arrays)):
        raise StoreError(f"{where} lacks the array {missing[0]!r}.")
    known = dict(sizes)
    for name, (dtype, shape) in layout.items():
        array = arrays[name]
        if array.dtype != np.dtype(dtype):
            raise StoreError(f"{where}: {name} is of the type {array.dtype}; needed is {np.dtype(dtype)}.")
        fitting = len(shape) == array.ndim and all(
            size == (known.setdefault(wanted, size) if isinstance(wanted, str) else wanted)
            for wanted, size in zip(shape, array.shape, strict=True)
        )
        if not fitting:
            wanted = " × ".join(str(known.get(each, each) if isinstance(each, str) else each) for each in shape)
            raise StoreError(f"{where}: {name} has the shape {array.shape}; needed is {wanted or 'a single number'}.")


def _refuse_unknown(unknown: set[str], known: set[str], where: str) -> None:
    if unknown:
        name = min(unknown)
        near = did_you_mean(name, sorted(known))
        hint = f" Is it meant for {near!r}?" if near else ""
        raise StoreError(f"{where} holds an array {name!a}, which is none of its head's.{hint}")
