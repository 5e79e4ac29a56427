"""Trained runs as ONNX operators: from raw clip embeddings to scores of every fold's head and of their mean."""

from collections.abc import Mapping, Sequence

import numpy as np

from mmmos.ensembles.calibration import Calibration
from mmmos.ensembles.heads.inputs import Standardiser
from mmmos.ensembles.onnx.graph import Value, joined, total
from mmmos.ensembles.onnx.heads import HEADS, scores_of
from mmmos.ensembles.runs import Run
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import SetupError

LayerNames = Mapping[str, Sequence[str]]


def check_exportable(spec: HeadSpec) -> None:
    """Raise ``SetupError`` for a head that has no form in ONNX."""
    if spec.head not in HEADS:
        what = f"The head {spec.name!r} has no form in ONNX"
    elif spec.samples == "windows":
        what = f"The head {spec.name!r} reads the windows of clips, and the inputs of the graph are whole clips"
    else:
        return
    raise SetupError(
        f'{what}. Heads that can be exported read one vector for a clip (samples = "clips"): {", ".join(HEADS)}.'
        " Choose an ensemble of these, or score with the bundle itself."
    )


def scores_of_run(run: Run, inputs: Mapping[str, Value], layer_names: LayerNames) -> tuple[Value, Value]:
    """Scores (clips, axes) of a run, and of each fold's head calibrated by itself (clips, heads, axes); float64."""
    blocks = blocks_of(run.spec, inputs, layer_names)
    found = []
    for member in run.members:
        standardised = _standardised(member.standardise, blocks)
        scores = scores_of(member.head, run.spec.head, standardised) - member.offset
        found.append(scores.reshape(0, 1, len(run.spec.axes)))
    each = joined(found, 1)
    mean = total(found) / float(len(found))
    ours, single = (calibrated(values * run.scale[1] + run.scale[0], run.calibration) for values in (mean, each))
    return ours.reshape(0, len(run.spec.axes)), single


def blocks_of(spec: HeadSpec, inputs: Mapping[str, Value], layer_names: LayerNames) -> list[Value]:
    """What ``inputs.pooled`` gives: the chosen layers of each feature set, raw or as unit vectors."""
    blocks = [_layers(inputs[name], spec, layer_names[name]) for name in spec.features]
    return [_units(block) for block in blocks] if spec.normalise == "unit" else blocks


def _layers(x: Value, spec: HeadSpec, names: Sequence[str]) -> Value:
    """As ``FeatureArray.layers``; the mean is summed from the first layer to the last, as numpy does."""
    if spec.layers in ("all", "weighted"):
        return x
    if spec.layers == "mean":
        return total([x.at([layer], 1) for layer in range(len(names))]) / float(len(names))
    return x.at(chosen_layers(spec, names), 1)


def chosen_layers(spec: HeadSpec, names: Sequence[str]) -> list[int]:
    """Positions of the layers that a spec reads."""
    if spec.layers == "last":
        return [len(names) - 1]
    if spec.layers in ("all", "weighted", "mean"):
        return list(range(len(names)))
    wanted = [spec.layers] if isinstance(spec.layers, str) else spec.layers
    return [list(names).index(str(name)) for name in wanted]


def _units(block: Value) -> Value:
    norm = (block * block).sum(-1, keep=True).op("Sqrt")
    is_zero = norm.op("Equal", 0.0, dtype=bool)
    return block / is_zero.op("Where", norm.graph.constant(np.ones(1, np.float32)), norm, dtype=np.float32)


def _standardised(standardise: Standardiser, blocks: list[Value]) -> list[Value]:
    if not standardise.means:
        return blocks
    parts = zip(blocks, standardise.means, standardise.scales, strict=True)
    return [((block - mean) / scale).clip(-8.0, 8.0) for block, mean, scale in parts]


def calibrated(scores: Value, calibration: Calibration) -> Value:
    """The piecewise linear maps as sums of ramps, of scores (…, axes)."""
    x, y, slope = calibration.x, calibration.y, calibration.slope
    result = (scores - scores.clip(x[:, 0], x[:, -1])) * slope + y[:, 0]
    width, height = np.diff(x), np.diff(y)
    if not width.any():
        return result
    each = scores.op("Unsqueeze", np.array([-1]))
    ramps = each.clip(x[:, :-1], x[:, 1:]) - x[:, :-1]
    return result + (ramps * np.divide(height, width, out=np.zeros_like(width), where=width > 0)).sum(-1)
