"""The blocks of ``melstats``, each by its name: statistics over time of a log-mel spectrogram."""

import math

import torch
from nnAudio.features.mel import MelSpectrogram
from torch import Tensor

FLOOR = 1e-6
MAX_LAG = 200
MAX_CHANGES = 40_000


class Blocks:
    """Waves at ``rate`` Hz to blocks of ``bands`` numbers, from spectra of ``fft`` samples, ``hop`` samples apart."""

    def __init__(self, rate: int, fft: int, hop: int, bands: int) -> None:
        self._mel = MelSpectrogram(
            sr=rate, n_fft=fft, hop_length=hop, n_mels=bands, fmin=30, fmax=rate / 2, pad_mode="constant", verbose=False
        )
        self._dct = _dct(bands)

    @torch.inference_mode()
    def states(self, waves: Tensor, names: tuple[str, ...]) -> Tensor:
        """The named blocks (batch, names, frames, bands) float32 of waves (batch, samples), the same in every frame."""
        return torch.stack([self._states_of_one(wave, names) for wave in waves.cpu().float()])

    def _states_of_one(self, wave: Tensor, names: tuple[str, ...]) -> Tensor:
        logmel = self._logmel(wave)
        blocks = _levels(logmel) | _changes(logmel) | _fine_structure(logmel) | _rhythm(logmel) | self._cepstrum(logmel)
        statistics = torch.stack([blocks[name] for name in names])
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
        "deltaq": torch.quantile(pooled, torch.linspace(0, 1, delta.shape[1])),
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
    lags = torch.logspace(0, math.log10(MAX_LAG), logmel.shape[1]).round().long().unique()
    at_lags = torch.nn.functional.pad(correlation, (0, max(MAX_LAG + 1 - frames, 0)))[lags]
    even = torch.nn.functional.interpolate(at_lags[None, None], size=logmel.shape[1], mode="linear", align_corners=True)
    return {"bandcorr": torch.nn.functional.pad(together, (0, 1)), "modac": even[0, 0]}


def _dct(size: int) -> Tensor:
    """Orthonormal DCT-II matrix (coefficients, bands)."""
    index = torch.arange(size, dtype=torch.float32)
    matrix = torch.cos(math.pi / size * (index + 0.5) * index[:, None]) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix
