"""``melstats``: statistics of a log-mel spectrogram in separate blocks, without any weights.

Each block is a layer of its own (20 × 64), so that heads can take subsets. The level of a window cancels, and what lies
60 dB below its mean power counts as nothing.
Blocks are statistics of a whole window; as states they are constant over its frames.
"""

from functools import cached_property
from typing import TYPE_CHECKING

from mmmos.features.encoders.base import EncoderCard
from mmmos.features.spec import EncoderSpec

if TYPE_CHECKING:
    from torch import Tensor

    from mmmos.features.encoders.melstats_blocks import Blocks

RATE, FFT, HOP, BANDS = 32_000, 1024, 320, 64

LAYERS = (
    "bandmean",  # mean over time
    "bandstd",  # standard deviation over time
    "sorted",  # mean over time of each frame's bands in ascending order
    "sorteddev",  # mean absolute deviation over time of the same
    "range",  # 95 % quantile − 5 % quantile
    "q90rel",  # 90 % quantile − median
    "q10rel",  # 10 % quantile − median
    "absdelta",  # mean absolute change in 10 ms
    "absdelta8",  # mean absolute change in 80 ms
    "flux",  # root mean square of rises in 10 ms
    "deltaq",  # 64 quantiles of all changes in 10 ms
    "fine",  # mean absolute difference from the neighbouring bands' mean
    "finedev",  # mean absolute deviation over time of that difference
    "finemean",  # mean of that difference
    "bandcorr",  # correlation over time with the next band; the last is 0
    "modac",  # autocorrelation over time, all bands together, at 64 lags from 10 ms to 2 s
    "mfcc",  # mean of the cepstrum
    "mfccdev",  # mean absolute deviation over time of the cepstrum
    "logcepabs",  # log of the mean absolute cepstrum
    "logcepdev",  # log of mfccdev
)


class MelStats:
    """The encoder; on the CPU, whatever the device of others."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.spec = spec

    @cached_property
    def _blocks(self) -> "Blocks":
        from mmmos.features.encoders.melstats_blocks import Blocks

        return Blocks(RATE, FFT, HOP, BANDS)

    def encode(self, waves: "Tensor") -> "Tensor":
        """States (batch, 20, frames, 64) float32 of waves (batch, samples) at 32 kHz; 100 frames a second."""
        return self._blocks.states(waves, LAYERS)


def load(card: EncoderCard, weights: str, revision: str, device: str) -> MelStats:
    """The encoder; it has no weights to load."""
    return MelStats(card.spec(layer_names=LAYERS))
