"""Audiobox-Aesthetics (Tjandra et al., arXiv 2502.05139) as it was published: its windows, its heads, its mean of them.

Scores are the original's to the rounding of float32.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmmos.axes import AXES
from mmmos.ensembles.model import Array, Loaded, Model, Predicted
from mmmos.errors import SetupError
from mmmos.features.encoders import encoder, find_device
from mmmos.features.encoders.audiobox import WINDOW, Audiobox
from mmmos.features.encoders.base import exact
from mmmos.features.encoders.catalogue import AUDIOBOX_AESTHETICS
from mmmos.features.spec import FeatureSpec
from mmmos.features.table import Features
from mmmos.files import key_of

FEATURES = "audiobox"


@dataclass(frozen=True)
class AudioboxModel:
    """A ``Model`` of one checkpoint, which is held on the CPU."""

    name: str
    checkpoint: Audiobox
    axes: tuple[str, ...] = AXES

    @property
    def spec(self) -> FeatureSpec:
        """Windows of 10 s, the last one as long as it is, in float32."""
        facts = self.checkpoint.spec
        seconds = WINDOW / facts.rate
        return FeatureSpec(FEATURES, facts, seconds, seconds, "float32")

    @property
    def digest(self) -> str:
        """See ``Model``: the fingerprint of the features, which holds the SHA-256 of the weights, and the heads."""
        return key_of({"features": self.spec.fingerprint, "heads": asdict(self.checkpoint.heads.settings)})

    def encoders(self, device: str) -> list[Loaded]:
        """See ``Model``."""
        return [Loaded(self.spec, self.checkpoint.on(find_device(device)))]

    def predict(self, features: Features, domains: Sequence[str | None]) -> Predicted:
        """Means of the windows' scores by their seconds; ``domains`` do not matter, and there is no spread."""
        table = features.windows([FEATURES])
        means, share = table.arrays[0].raw, table.share.astype(np.float64)
        # Window by window: rows of a larger product would have other last bits.
        windows = np.array([self._scores(mean) for mean in means]).reshape(-1, len(self.axes))
        clips = [np.average(windows[a:b], axis=0, weights=share[a:b]) for a, b in pairwise(table.first)]
        return Predicted(np.array(clips).reshape(-1, len(self.axes)), None)

    def _scores(self, mean: NDArray[np.float32]) -> Array:
        """Scores (axes,) of the layer means (layers, dim) of a window."""
        with exact():
            scores = self.checkpoint.heads(torch.from_numpy(mean)[None])
            return np.array([float(scores[axis]) for axis in self.axes])


def audiobox_model(weights: str | Path | None = None, revision: str | None = None) -> Model:
    """The published model, or one whose checkpoint has the same layout.

    ``weights``: a checkpoint.pt, a folder with model.safetensors and config.json, or a hub id with its ``revision``; by
    default the published ones, at a pinned revision with a known SHA-256.
    Raises ``SetupError`` when they are not to be had or are no Audiobox checkpoint, ``UsageError`` for a path that does
    not exist.
    """
    if weights is None or str(weights) == AUDIOBOX_AESTHETICS.weights:
        name, loaded = "audiobox", encoder("audiobox-aesthetics", revision=revision, device="cpu")
    else:
        name = Path(weights).expanduser().resolve().name
        loaded = encoder("audiobox", str(weights), revision=revision, device="cpu")
    assert isinstance(loaded, Audiobox)
    scored = [axis for axis, _, _ in loaded.heads.settings.scales]
    if set(scored) != set(AXES):
        raise SetupError(f"{loaded.spec.weights} scores {', '.join(scored)}; needed are {', '.join(AXES)}.")
    return AudioboxModel(name, loaded)
