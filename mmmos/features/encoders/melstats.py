"""``melstats``: statistics of a log-mel spectrogram in separate blocks, without any weights.

Each block is a layer of its own (20 × 64), so that heads can take subsets. The level of a window cancels, and what lies
60 dB below its mean power counts as nothing.
Blocks are statistics of a whole window; as states they are constant over its frames.
"""

import math

import torch
from torch import Tensor

from mmmos.features.encoders.base import EncoderCard
from mmmos.features.spec import EncoderSpec

RATE, FFT, HOP, BANDS = 32_000, 1024, 320, 64
FLOOR = 1e-6
MAX_LAG = 200
MAX_CHANGES = 40_000

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
        from nnAudio.features.mel import MelSpectrogram

        self.spec = spec
        self._mel = MelSpectrogram(
            sr=RATE, n_fft=FFT, hop_length=HOP, n_mels=BANDS, fmin=30, fmax=RATE / 2, pad_mode="constant", verbose=False
        )
        self._dct = _dct(BANDS)

    @torch.inference_mode()
    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, 20, frames, 64) float32 of waves (batch, samples) at 32 kHz; 100 frames a second."""
        return torch.stack([self._encode_one(wave) for wave in waves.cpu().float()])

    def _encode_one(self, wave: Tensor) -> Tensor:
        logmel = self._logmel(wave)
        blocks = _levels(logmel) | _changes(logmel) | _fine_structure(logmel) | _rhythm(logmel) | self._cepstrum(logmel)
        statistics = torch.stack([blocks[name] for name in LAYERS])
        return statistics.unsqueeze(1).expand(-1, len(logmel), -1)

    def _logmel(self, wave: Tensor) -> Tensor:
        """Log-mel powers (frames, 64) in dB relative to the window's mean power, softly floored at −60 dB."""
        wave = wave - wave.mean()
        wave = wave / (wave.square().mean().sqrt() + 1e-6)
        power = self._mel(wave[None])[0].T
        return 10 * torch.log10(power / (power.mean() + 1e-10) + FLOOR)

    def _cepstrum(self, logmel: Tensor) -> dict[str, Tensor]:
        cepstrum = logmel @ self._dct.T
        mean = cepstrum.mean(0)
        deviation = (cepstrum - mean).abs().mean(0)
        size = cepstrum.abs().mean(0)
        logs = {"logcepabs": torch.log(size + 0.3), "logcepdev": torch.log(deviation + 0.3)}
        return {"mfcc": mean, "mfccdev": deviation} | logs


def _levels(logmel: Tensor) -> dict[str, Tensor]:
    """How the level of each band is distributed over time."""
    mean = logmel.mean(0)
    ordered = logmel.sort(dim=1).values
    share = torch.tensor([0.05, 0.1, 0.5, 0.9, 0.95])
    q05, q10, median, q90, q95 = torch.quantile(logmel, share, dim=0)
    return {
        "bandmean": mean,
        "bandstd": (logmel - mean).square().mean(0).sqrt(),
        "sorted": ordered.mean(0),
        "sorteddev": (ordered - ordered.mean(0)).abs().mean(0),
        "range": q95 - q05,
        "q90rel": q90 - median,
        "q10rel": q10 - median,
    }


def _changes(logmel: Tensor) -> dict[str, Tensor]:
    """How fast each band changes."""
    delta = logmel[1:] - logmel[:-1]
    step = min(8, len(logmel) - 1)
    pooled = delta.flatten()[:: max(1, delta.numel() // MAX_CHANGES)]
    return {
        "absdelta": delta.abs().mean(0),
        "absdelta8": (logmel[step:] - logmel[:-step]).abs().mean(0),
        "flux": delta.clamp(min=0).square().mean(0).sqrt(),
        "deltaq": torch.quantile(pooled, torch.linspace(0, 1, BANDS)),
    }


def _fine_structure(logmel: Tensor) -> dict[str, Tensor]:
    """How much each band stands out from its neighbours."""
    neighbours = torch.cat([logmel[:, 1:2], (logmel[:, 2:] + logmel[:, :-2]) / 2, logmel[:, -2:-1]], dim=1)
    fine = logmel - neighbours
    mean = fine.mean(0)
    return {"fine": fine.abs().mean(0), "finedev": (fine - mean).abs().mean(0), "finemean": mean}


def _rhythm(logmel: Tensor) -> dict[str, Tensor]:
    """What moves together, and what returns."""
    frames = len(logmel)
    centred = logmel - logmel.mean(0)
    scaled = centred / (centred.square().mean(0).sqrt() + 0.3)
    together = (scaled[:, 1:] * scaled[:, :-1]).mean(0)
    size = 1 << (2 * frames).bit_length()
    spectrum = torch.fft.rfft(centred, n=size, dim=0).abs().square().sum(1)
    correlation = torch.fft.irfft(spectrum, n=size)[:frames]
    correlation = correlation / (correlation[0] + 1e-6)
    lags = torch.logspace(0, math.log10(MAX_LAG), BANDS).round().long().unique()
    at_lags = torch.nn.functional.pad(correlation, (0, max(MAX_LAG + 1 - frames, 0)))[lags]
    even = torch.nn.functional.interpolate(at_lags[None, None], size=BANDS, mode="linear", align_corners=True)
    return {"bandcorr": torch.nn.functional.pad(together, (0, 1)), "modac": even[0, 0]}


def _dct(size: int) -> Tensor:
    """Orthonormal DCT-II matrix (coefficients, bands)."""
    index = torch.arange(size, dtype=torch.float32)
    matrix = torch.cos(math.pi / size * (index + 0.5) * index[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def load(card: EncoderCard, weights: str, revision: str, device: str) -> MelStats:
    """The encoder; it has no weights to load."""
    return MelStats(card.spec(layer_names=LAYERS))


MELSTATS = EncoderCard(
    "melstats", "melstats", load, "MIT", rate=RATE, layers=len(LAYERS), dim=BANDS, hop=HOP / RATE, minimum=FFT
)
