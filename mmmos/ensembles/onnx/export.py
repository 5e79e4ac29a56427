"""The graph of a whole bundle: members weighed, anchored and spread as ``Bundle.predict`` does it."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from onnx import ModelProto

from mmmos import __version__
from mmmos.ensembles.bundle import Bundle
from mmmos.ensembles.bundle.about import FeatureSet
from mmmos.ensembles.model import Predicted
from mmmos.ensembles.onnx.check import Raw, check_same, embeddings, run_graph
from mmmos.ensembles.onnx.graph import Graph, Shape, Value, joined, total
from mmmos.ensembles.onnx.heads import JUMPING
from mmmos.ensembles.onnx.runs import LayerNames, calibrated, check_exportable, scores_of_run
from mmmos.errors import SetupError
from mmmos.features.table import FeatureArray, Features
from mmmos.files import canonical_json

OUTPUTS = ("scores", "spread")
TEXT = (
    "From raw clip embeddings (clips, layers, dim) of each feature set to scores (clips, axes) and, of more than one"
    " head, their spread (clips, axes), the standard deviation of what single heads say."
)
ANCHORED = "Scores are on the scale of the set {on!r}, by its lines for all clips"
DOMAINS = "; the bundle's lines for single domains ({domains}) cannot be chosen in this graph"


def checked_model(bundle: Bundle) -> bytes:
    """The bytes of the graph, on whose scores onnxruntime and the bundle agree. Raises ``SetupError``."""
    for run in bundle.members:
        check_exportable(run.spec)
    if clashing := [each.name for each in bundle.about.encoders if each.name in OUTPUTS]:
        raise SetupError(
            f"The bundle reads a feature set called {clashing[0]!r}, and so is an output of the graph. Train with the"
            " feature set under another name."
        )
    data: bytes = _model(bundle).SerializeToString(deterministic=True)
    raw = embeddings(bundle.members, _shapes(bundle), _layer_names(bundle))
    jumps = any(run.spec.head in JUMPING for run in bundle.members)
    check_same(_predicted(bundle, raw), run_graph(data, raw), jumps=jumps)
    return data


def _shapes(bundle: Bundle) -> dict[str, tuple[int, int]]:
    """(layers, dim) of each feature set."""
    return {each.name: (each.facts.layers, each.facts.dim) for each in bundle.about.encoders}


def _layer_names(bundle: Bundle) -> LayerNames:
    return {each.name: each.spec().encoder.names() for each in bundle.about.encoders}


def _model(bundle: Bundle) -> ModelProto:
    """The graph with what is told about it."""
    graph, names = Graph(), _layer_names(bundle)
    shape: Shape = ["clips", len(bundle.axes)]
    inputs = {name: graph.input(name, ["clips", *size]) for name, size in _shapes(bundle).items()}
    scores, single = zip(*(scores_of_run(run, inputs, names) for run in bundle.members), strict=True)
    weighted = [run * own for run, own in zip(scores, bundle.member_weights, strict=True)]
    graph.output("scores", _anchored(bundle, total(weighted)), shape)
    if len(bundle.head_shares) > 1:
        graph.output("spread", _spread(_anchored(bundle, joined(single, 1)), bundle.head_shares), shape)
    return graph.model(bundle.name, TEXT, _metadata(bundle), __version__)


def _anchored(bundle: Bundle, scores: Value) -> Value:
    """Scores (…, axes) on the scale of the labelled set, where the bundle has lines for that."""
    return scores if bundle.anchoring is None else calibrated(scores, bundle.anchoring.everything)


def _spread(single: Value, shares: NDArray[np.float64]) -> Value:
    """The deviation (clips, axes) of single heads' scores (clips, heads, axes) with shares (heads, axes)."""
    difference = single - (single * shares).sum(1, keep=True)
    return (difference * difference * shares).sum(1).op("Sqrt")


def _metadata(bundle: Bundle) -> dict[str, str]:
    """Texts by name, in the file's ``metadata_props``; lists and tables as JSON."""
    about = bundle.about
    told = {
        "bundle": about.name,
        "digest": about.digest,
        "mmmos": about.mmmos,
        "axes": canonical_json(list(about.axes)),
        "feature_sets": canonical_json({each.name: _told(each) for each in about.encoders}),
        "licences": canonical_json(about.licences),
    }
    if about.anchoring is not None:
        domains = DOMAINS.format(domains=", ".join(about.anchoring.domains)) if about.anchoring.domains else ""
        told["anchoring"] = ANCHORED.format(on=about.anchoring.on) + domains + "."
    return told


def _told(each: FeatureSet) -> dict[str, object]:
    """What an input is: the encoder, the windows (s) it is shown, the dtype of their unit vectors, the layers."""
    facts = each.facts
    encoder = {"encoder": each.encoder, "weights": each.weights, "sha256": facts.sha256, "rate": facts.rate}
    cut = {"window": each.window, "hop": each.hop, "minimum": facts.minimum, "dtype": each.dtype}
    shape = {"layers": facts.layers, "dim": facts.dim, "layer_names": list(each.spec().encoder.names())}
    return {"fingerprint": each.fingerprint} | encoder | cut | shape


def _predicted(bundle: Bundle, raw: Raw) -> Predicted:
    """What the bundle says about embeddings."""
    ids = tuple(str(clip) for clip in range(len(next(iter(raw.values())))))
    names, prints = _layer_names(bundle), {each.name: each.fingerprint for each in bundle.about.encoders}
    sets = {name: FeatureArray(name, prints[name], tuple(names[name]), array) for name, array in raw.items()}
    return bundle.predict(Features(ids, ids, sets, pd.DataFrame(index=list(ids))), [None] * len(ids))
