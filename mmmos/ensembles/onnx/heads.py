"""Heads as ONNX operators: from their blocks to standardised scores, one function for each head by name."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.onnx.graph import TREES, Value, joined
from mmmos.errors import SetupError, StoreError

State = Mapping[str, NDArray[Any]]
Export = Callable[[Any, list[Value]], Value]

# Numbers of a vector's length below this count as this, as ``torch.nn.functional.normalize`` has it.
SHORTEST = 1e-12
NORM_EPSILON = 1e-5


def scores_of(head: Any, name: str, blocks: list[Value]) -> Value:
    """Standardised scores (clips, axes) float64 of a fitted head on blocks (clips, layers, dim) float32.

    Raises ``SetupError`` for a head or a loss that has no form in ONNX.
    """
    return HEADS[name](head, blocks).cast(np.float64)


# Heads trained by gradient descent, float32 as torch computes them.


def _perceptron(head: Any, blocks: list[Value], part: str = "") -> Value:
    """The outputs of ``pooled.Perceptron``."""
    state = {name.removeprefix(part): array for name, array in head.state().items()}
    x = _mixed(state, blocks)
    for place in range(head.options.depth if "hidden.0.weight" in state else 0):
        x = _affine(x, state, f"hidden.{place}").op("Relu")
    return _affine(x, state, "last")


def _mixed(state: State, blocks: list[Value]) -> Value:
    """Layers side by side, or under their learned weights: (clips, size)."""
    if "mix.weights.0" not in state:
        return _flat(blocks)
    sums = [_layer_sums(block, state[f"mix.weights.{n}"][None]) for n, block in enumerate(blocks)]
    return _flat(sums)


def _layer_sums(block: Value, weights: NDArray[Any], unit: bool = True) -> Value:
    """Sums of layers (clips, sums, dim) under softmaxes of weights (sums, layers), of length 1 where ``unit``."""
    powers = np.exp(weights.astype(np.float64) - weights.max(axis=-1, keepdims=True))
    shares = powers / powers.sum(axis=-1, keepdims=True)
    sums = block.graph.constant(shares.astype(np.float32)) @ block
    return sums / (sums * sums).sum(-1, keep=True).op("Sqrt").op("Max", SHORTEST) if unit else sums


def _affine(x: Value, state: State, name: str) -> Value:
    """x W + b of ``stack.Affine``; with copies, each of its own."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return x @ weight + (bias if weight.ndim == 2 else bias[:, None])


def _flat(blocks: list[Value]) -> Value:
    """All blocks side by side (clips, features)."""
    return joined([block.op("Flatten", axis=1) for block in blocks], 1)


def _decoded(head: Any, outputs: Value) -> Value:
    """Scores (clips, axes) of a head's numbers (clips, axes × outputs), as its loss reads them."""
    loss = head.criterion()
    if loss.decode is None:
        return outputs
    if loss.name not in DECODERS:
        raise SetupError(
            f"The loss {loss.name!r} reads scores from a head's numbers in a way that has no form in ONNX;"
            f" losses that can be exported are those of one number for each axis, and {', '.join(sorted(DECODERS))}."
        )
    constants = {name: tensor.numpy() for name, tensor in head.constants.items()}
    return DECODERS[loss.name](outputs.reshape(0, head.axes, loss.outputs), constants)


def _expected_centre(logits: Value, constants: State) -> Value:
    return (logits.op("Softmax", axis=-1) * constants["centres"]).sum(-1)


def _thresholds_passed(outputs: Value, constants: State) -> Value:
    thresholds = constants["thresholds"].astype(np.float64)
    count, step = thresholds.shape[1], thresholds[:, 1] - thresholds[:, 0]
    below = (thresholds < 0).sum(axis=1)[:, None] * np.log(2)
    first = outputs.at([0], 2) + below
    falls = outputs.at(range(1, count), 2).op("Softplus").op("Neg")
    logits = joined([first, falls], 2).op("CumSum", np.array(2))
    return logits.op("Sigmoid").sum(-1) * step + (thresholds[:, 0] - step / 2)


def _first(outputs: Value, _: State) -> Value:
    return outputs.at([0], 2).reshape(0, -1)


DECODERS: dict[str, Callable[[Value, State], Value]] = {
    "coral": _thresholds_passed,
    "gaussian_nll": _first,
    "laplace_nll": _first,
    "soft_bins": _expected_centre,
}


def _pooled(head: Any, blocks: list[Value]) -> Value:
    return _decoded(head, _perceptron(head, blocks))


def _adversarial(head: Any, blocks: list[Value]) -> Value:
    return _decoded(head, _perceptron(head, blocks, "scorer."))


def _gaussian(head: Any, blocks: list[Value]) -> Value:
    return _perceptron(head, blocks).at(range(head.axes), 1)


def _layersum(head: Any, blocks: list[Value]) -> Value:
    """``layersum.PerAxis``: a layer mix and a perceptron for each axis, (axes, clips, size) until the last."""
    state, options = head.state(), head.options
    sums = [_layer_sums(block, state[f"mix.weights.{n}"], options.unit) for n, block in enumerate(blocks)]
    x = joined(sums, 2).transpose(1, 0, 2)
    for place in range(options.depth - 1):
        x = _affine(x, state, f"hidden.{place}")
        if options.norm:
            weight, bias = (state[f"norms.{place}.{name}"] for name in ("weight", "bias"))
            normed = x.op("LayerNormalization", np.ones_like(weight[0]), axis=-1, epsilon=NORM_EPSILON)
            x = normed * weight[:, None] + bias[:, None]
        x = ACTIVATIONS[options.activation](x)
    return _decoded(head, _affine(x, state, "last").transpose(1, 0, 2).op("Flatten", axis=1))


def _gelu(x: Value) -> Value:
    return x * ((x / np.sqrt(2.0)).op("Erf") + 1.0) * 0.5


def _silu(x: Value) -> Value:
    return x * x.op("Sigmoid")


ACTIVATIONS: dict[str, Callable[[Value], Value]] = {
    "gelu": _gelu,
    "relu": lambda x: x.op("Relu"),
    "silu": _silu,
    "swish": _silu,
    "tanh": lambda x: x.op("Tanh"),
}


def _blstm(head: Any, blocks: list[Value]) -> Value:
    """``tokens.Tokens``: vectors as tokens, in front of the clips as the operator LSTM wants them."""
    state, options = head.state(), head.options
    if "mixes.0.weights.0" in state:
        weights = [state[f"mixes.{n}.weights.0"] for n in range(len(blocks))]
        blocks = [_layer_sums(block, each) for block, each in zip(blocks, weights, strict=True)]
    tokens = [
        block @ state[f"projections.{n}.weight"].T + state[f"projections.{n}.bias"] for n, block in enumerate(blocks)
    ]
    x = joined(tokens, 1).transpose(1, 0, 2)
    for place in range(options.depth):
        ways = [_lstm_weights(state, f"lstm.{way}.{place}") for way in ("forwards", "backwards")]
        weights = [np.stack(pair) for pair in zip(*ways, strict=True)]
        y = x.op("LSTM", *weights, hidden_size=options.hidden, direction="bidirectional")
        x = y.transpose(0, 2, 1, 3).reshape(0, 0, 2 * options.hidden)
    embedding = x.op("ReduceMean", axes=[0], keepdims=0)
    return _decoded(head, embedding @ state["last.weight"].T + state["last.bias"])


def _lstm_weights(state: State, name: str) -> list[NDArray[Any]]:
    """Input weights, recurrent weights and biases of one direction; torch has the gates as i f g o, ONNX as i o f g."""

    def ordered(kind: str) -> NDArray[Any]:
        i, f, g, o = np.split(state[f"{name}.{kind}_l0"], 4)
        return np.concatenate([i, o, f, g])

    return [
        ordered("weight_ih"),
        ordered("weight_hh"),
        np.concatenate([ordered("bias_ih"), ordered("bias_hh")]),
    ]


# Heads fitted by scikit-learn, float64 as numpy computes them.


def _linear(head: Any, blocks: list[Value]) -> Value:
    return _flat(blocks).cast(np.float64) @ head.arrays["coefficients"].T + head.arrays["intercept"]


def _kernel(head: Any, blocks: list[Value]) -> Value:
    distances = _squared_distances(blocks, head.arrays["support"])
    return (distances * -head.arrays["gamma"]).op("Exp") @ head.arrays["dual"] + head.arrays["intercept"]


def _squared_distances(blocks: list[Value], others: NDArray[np.float32]) -> Value:
    """As ``kernels.squared_distances``; the other clips take 4 bytes a number in the file."""
    x = _flat(blocks).cast(np.float64)
    lengths = (others.astype(np.float64) ** 2).sum(1)
    products = x @ x.graph.constant(others.T).cast(np.float64)
    return ((x * x).sum(1, keep=True) + lengths - products * 2.0).op("Max", 0.0)


def _knn(head: Any, blocks: list[Value]) -> Value:
    from mmmos.ensembles.heads.classical.kernels import TIED

    clips, targets = (head.arrays[name].astype(np.float64) for name in ("clips", "targets"))
    k, x = min(head.options.neighbours, len(clips)), _flat(blocks).cast(np.float64)
    distances = _squared_distances(blocks, head.arrays["clips"])
    beyond = distances - distances.op("TopK", np.array([k]), largest=0).at([k - 1], 1)
    margin = ((x * x).sum(1, keep=True) + (clips**2).sum(1).max()) * TIED
    nearer = beyond.op("Less", -margin, dtype=bool).cast(np.float64)
    tied = beyond.op("Abs").op("LessOrEqual", margin, dtype=bool).cast(np.float64)
    share = -(nearer.sum(1, keep=True) - float(k)) / tied.sum(1, keep=True)
    return (nearer + tied * share) @ targets / float(k)


def _trees(head: Any, blocks: list[Value]) -> Value:
    """The arrays of ``trees._Trees`` as one operator; leaves point to themselves."""
    arrays = head.arrays
    nodes, starts = np.arange(len(arrays["left"])), arrays["starts"]
    tree = np.searchsorted(starts, nodes, side="right") - 1
    own, leaf = nodes - starts[tree], arrays["left"] == nodes
    _check_forest(arrays, tree, leaf)
    targets = arrays["value"].shape[1]
    leaves = np.repeat(nodes[leaf], targets)
    sums = _flat(blocks).op(
        TREES,
        n_targets=targets,
        aggregate_function="SUM",
        nodes_treeids=tree.tolist(),
        nodes_nodeids=own.tolist(),
        nodes_modes=np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_featureids=arrays["feature"].tolist(),
        nodes_values=_not_above(arrays["threshold"]).tolist(),
        nodes_truenodeids=np.where(leaf, 0, arrays["left"] - starts[tree]).tolist(),
        nodes_falsenodeids=np.where(leaf, 0, arrays["right"] - starts[tree]).tolist(),
        target_treeids=tree[leaves].tolist(),
        target_nodeids=own[leaves].tolist(),
        target_ids=np.tile(np.arange(targets), int(leaf.sum())).tolist(),
        target_weights=arrays["value"][leaf].ravel().tolist(),
    )
    return sums.cast(np.float64) + arrays["intercept"]


def _check_forest(arrays: State, tree: NDArray[np.int64], leaf: NDArray[np.bool_]) -> None:
    """Raise ``StoreError`` unless every node but the first of a tree is the child of one before it in its tree."""
    parents = np.flatnonzero(~leaf)
    children = np.concatenate([arrays["left"][parents], arrays["right"][parents]])
    begun = np.array_equal(np.unique(arrays["starts"]), arrays["starts"]) and not arrays["starts"][0]
    single = np.array_equal(np.sort(children), np.setdiff1d(np.arange(len(tree)), arrays["starts"]))
    above = np.tile(parents, 2)
    if not (begun and single and (children > above).all() and np.array_equal(tree[children], tree[above])):
        raise StoreError("The bundle holds a forest whose nodes are no trees; get the bundle again.")


def _not_above(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The greatest float32 that is not above each threshold: float32 numbers fall on the same side of both."""
    nearest = thresholds.astype(np.float32)
    return np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)), nearest)


HEADS: dict[str, Export] = {
    "adversarial": _adversarial,
    "blstm": _blstm,
    "extra_trees": _trees,
    "gaussian": _gaussian,
    "gaussian_process": _kernel,
    "gradient_boosting": _trees,
    "kernel_ridge": _kernel,
    "knn": _knn,
    "layersum": _layersum,
    "linear": _pooled,
    "mlp": _pooled,
    "random_forest": _trees,
    "ridge": _linear,
    "sklearn_linear": _linear,
    "svr": _kernel,
}
# Their scores jump where an embedding meets a threshold, or where two neighbours are equally far.
JUMPING = frozenset({"extra_trees", "gradient_boosting", "knn", "random_forest"})
