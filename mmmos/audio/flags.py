"""Flags: what a listener or a user should know of a clip that was scored nevertheless, derived when they are read."""

import numpy as np
from numpy.typing import NDArray

from mmmos.audio.measures import MEASURES

FLAGS = {
    "truncated": "the file ends before its container does",
    "frames_mismatch": "the decoded length differs from the declared one by more than 0.1 s",
    "clipped": "more than 0.1 % of the samples lie at full scale",
    "silent": "the level is below -80 dB of full scale",
    "dc": "the mean is more than 1 % of full scale away from zero",
    "phase_cancel": "the channels cancel each other: the first one was used",
    "out_of_scale": "the peak is more than twice full scale: float audio of another scale",
    "upsampled": "the file's sample rate is half the encoder's or less",
    "narrowband": "nothing sounds in the upper 40 % of the band that the file and the encoder offer",
    "too_short": "shorter than the encoder's minimum: zeros were put behind it",
    "extension_mismatch": "the file name promises another container",
}

# The thresholds of the sentences above, in the units of MEASURES.
MISMATCH = 0.1
CLIPPED = 1e-3
SILENT = 1e-4
DC = 0.01
OUT_OF_SCALE = 2.0
NARROWBAND = 0.6


def flags(measures: NDArray[np.float64], *, rate: int, minimum: int) -> dict[str, NDArray[np.bool_]]:
    """Flags of clips: every one of ``FLAGS`` that measures tell, all but ``extension_mismatch``, as ``(clips,)``.

    ``measures``: ``(clips, len(MEASURES))``, NaN where unknown, which is never a flag. ``rate`` in Hz and ``minimum``
    in samples are the encoder's.
    """
    table = np.asarray(measures, np.float64).reshape(-1, len(MEASURES))
    m = {name: table[:, column] for column, name in enumerate(MEASURES)}
    with np.errstate(invalid="ignore"):
        band = np.minimum(m["rate"], rate) / 2
        return {
            "truncated": m["cut"] > 0,
            "frames_mismatch": np.abs(m["seconds"] - m["declared"]) > MISMATCH,
            "clipped": (m["clipped"] > CLIPPED) & (m["peak"] <= OUT_OF_SCALE),
            "silent": m["rms"] < SILENT,
            "dc": (np.abs(m["dc"]) > DC) & (m["peak"] <= OUT_OF_SCALE),
            "phase_cancel": m["cancel"] > 0,
            "out_of_scale": m["peak"] > OUT_OF_SCALE,
            "upsampled": m["rate"] <= rate / 2,
            "narrowband": m["bandwidth"] < NARROWBAND * band,
            "too_short": np.round(m["seconds"] * rate) < minimum,
        }
