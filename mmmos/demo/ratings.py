"""True scores of a clip from its known quality and number of sources, and ten simulated raters around them.

The constants make means, spreads and correlations like those of the AudioMOS Challenge 2025, track 2: train means
6.28, 3.35, 5.18, 5.85 and deviations 1.30, 1.83, 1.64, 1.42 for PQ, PC, CE, CU; lower CE and CU on synthetic audio.
"""

from collections.abc import Mapping

import numpy as np
from numpy.random import Generator

from mmmos.axes import AXES, SCALE

RATERS = 10
RATER_SPREAD = 1.5
"""Standard deviation of one rating around the true score."""

DOMAIN_MEANS = {
    "speech": {"PQ": 6.55, "PC": 1.57, "CE": 5.74, "CU": 6.14},
    "music": {"PQ": 6.57, "PC": 4.86, "CE": 6.08, "CU": 6.30},
    "sound": {"PQ": 5.73, "PC": 3.59, "CE": 3.74, "CU": 5.13},
}
"""Mean scores of natural clips of a domain."""

COMPLEXITY = {"speech": 1.2, "music": 2.4, "sound": 2.4}
"""PC of a single source."""

SYNTHETIC = {"CE": -0.65, "CU": -0.35}
"""What listeners take off a synthetic clip, beyond its production quality."""

MEAN_QUALITY = 0.58
"""Mean q of natural clips."""


def true_scores(domain: str, q: float, k: int, taste: Mapping[str, float]) -> dict[str, float]:
    """Scores before rater noise by axis, in [0, 10].

    ``q``: quality in [0, 1]; ``k``: simultaneous sources, at least 1; ``taste``: what the source or system
    adds to an axis.
    """
    means = DOMAIN_MEANS[domain]
    scores = {"PQ": means["PQ"] + 4.4 * (q - MEAN_QUALITY), "PC": COMPLEXITY[domain] + 2.0 * float(np.log2(k))}
    quality, complexity = scores["PQ"] - means["PQ"], scores["PC"] - means["PC"]
    scores["CE"] = means["CE"] + 0.9 * quality + 0.2 * complexity
    scores["CU"] = means["CU"] + 1.0 * quality + 0.05 * complexity
    low, high = SCALE
    return {axis: round(float(np.clip(scores[axis] + taste.get(axis, 0.0), low, high)), 3) for axis in AXES}


def source_taste(rng: Generator) -> dict[str, float]:
    """What one source (a speaker, song, scene or prompt) adds to CE and CU, in score units."""
    return {"CE": rng.normal(0, 0.5), "CU": rng.normal(0, 0.2)}


def system_taste(rng: Generator) -> dict[str, float]:
    """What one synthetic system adds to CE and CU compared with natural audio, in score units."""
    return {"CE": SYNTHETIC["CE"] + rng.normal(0, 0.4), "CU": SYNTHETIC["CU"] + rng.normal(0, 0.3)}


def simulate_raters(rng: Generator, scores: Mapping[str, float]) -> dict[str, list[float]]:
    """Ten whole-numbered ratings in 0..10 per axis, around the true scores."""
    low, high = SCALE
    draws = {axis: scores[axis] + rng.normal(0, RATER_SPREAD, RATERS) for axis in AXES}
    return {axis: np.clip(np.round(draw), low, high).tolist() for axis, draw in draws.items()}
