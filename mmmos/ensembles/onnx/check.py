"""An exported graph held against its bundle: onnxruntime's scores and the bundle's own, of the same embeddings."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.model import Predicted
from mmmos.ensembles.onnx.runs import LayerNames, chosen_layers
from mmmos.ensembles.runs import FoldHead, Run
from mmmos.errors import SetupError, first_line

Raw = dict[str, NDArray[np.float32]]

CLIPS, SEED = 128, 7
# Score points; of scores beyond the scale the same part of them.
TOLERANCE = 1e-4
# Share of clips that may differ by more where scores jump: those that lie on a threshold to the last bit of float32.
ON_THE_EDGE = 1 / 32


def embeddings(runs: Sequence[Run], shapes: Mapping[str, tuple[int, int]], layer_names: LayerNames) -> Raw:
    """Raw embeddings (128, layers, dim) of each feature set, seeded, spread over where the heads were trained.

    Directions are random and lengths from a tenth to ten times √dim, but where a head holds vectors of training clips,
    or their means and deviations, clips are drawn around these; each head has its turn.
    """
    rng = np.random.default_rng(SEED)
    size = (CLIPS, 1, 1)
    raw = {
        name: (rng.normal(size=(CLIPS, *shape)) * 10 ** rng.uniform(-1, 1, size)).astype(np.float32)
        for name, shape in shapes.items()
    }
    for number, run in enumerate(runs):
        clips = np.arange(number % CLIPS, CLIPS, len(runs))
        vectors, column = _around(run.members[0], len(clips), rng), 0
        if vectors is None:
            continue
        for name in run.spec.features:
            layers, dim = np.array(chosen_layers(run.spec, layer_names[name])), shapes[name][1]
            kept = 1 if run.spec.layers == "mean" else len(layers)
            own = vectors[:, column : column + kept * dim].reshape(-1, kept, dim)
            raw[name][np.ix_(clips, layers)] = own
            column += kept * dim
    return raw


def _around(member: FoldHead, count: int, rng: np.random.Generator) -> NDArray[np.float32] | None:
    """Vectors (count, features) before they are standardised, near those that a head was fitted to; None if unknown."""
    arrays, means, scales = getattr(member.head, "arrays", {}), member.standardise.means, member.standardise.scales
    known = arrays.get("support", arrays.get("clips"))
    if known is not None and len(known):
        drawn = known[rng.integers(len(known), size=count)]
        drawn = drawn + 0.1 * known.std(axis=0) * rng.normal(size=drawn.shape)
    elif means:
        drawn = rng.normal(size=(count, sum(mean.size for mean in means)))
    else:
        return None
    if means:
        mean, scale = (np.concatenate([each.ravel() for each in parts]) for parts in (means, scales))
        drawn = drawn * np.where(np.isfinite(scale), scale, 1) + mean
    return np.asarray(drawn, np.float32)


def run_graph(model: bytes, raw: Raw) -> Predicted:
    """What onnxruntime makes of embeddings, on the CPU in one thread. Raises ``SetupError`` where it cannot."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Of messages, errors only.
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    try:
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        named = dict(zip([output.name for output in session.get_outputs()], session.run(None, raw), strict=True))
    except Exception as error:
        # Its errors have no common class of their own.
        raise SetupError(
            f"onnxruntime {onnxruntime.__version__} cannot run the graph: {first_line(error)}. Nothing was written."
            " Take another version of it; please report it with the bundle."
        ) from error
    return Predicted(named["scores"], named.get("spread"))


def check_same(expected: Predicted, found: Predicted, *, jumps: bool) -> None:
    """Raise ``SetupError`` when scores or spreads differ by more than 1e-4; with ``jumps``, of over 1 clip in 32."""
    pairs = [(expected.scores, found.scores)]
    if expected.spread is not None and found.spread is not None:
        pairs.append((expected.spread, found.spread))
    apart = np.zeros(len(expected.scores))
    for ours, theirs in pairs:
        # Written so that NaN counts as a difference.
        difference = np.abs(ours - theirs) / np.maximum(1, np.abs(expected.scores) / 10)
        apart = np.maximum(apart, np.where(np.isnan(difference), np.inf, difference).max(axis=1))
    wrong = int((apart > TOLERANCE).sum())
    if wrong > (len(apart) * ON_THE_EDGE if jumps else 0) or (expected.spread is None) != (found.spread is None):
        raise SetupError(
            f"onnxruntime gives other scores than the bundle for {wrong} of {len(apart)} clips, by up to"
            f" {apart.max():.2g} points ({TOLERANCE:g} is allowed). Nothing was written. Another version of onnxruntime"
            " may help; please report it with the bundle."
        )
