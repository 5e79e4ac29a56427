"""Log-mel filter bank energies as Kaldi computes them (``compute-fbank-feats``), without dither."""

import math

import torch
from torch import Tensor, nn

PREEMPHASIS = 0.97
LOWEST = 20.0
FLOOR = 2.0**-23


class Fbank(nn.Module):
    """Waves (batch, samples) in [−1, 1] to log energies (batch, frames, bins) float32.

    Frames of 25 ms every 10 ms, whole ones only; each without its mean, pre-emphasised, under a Povey window; powers in
    triangles on Kaldi's mel scale from 20 Hz to half of the rate, floored at 2⁻²³. Samples count as 16-bit integers.
    Bins over 60 dB below a frame's loudest hold the rounding of the machine's own Fourier transform (1e-4 and more).
    """

    window: Tensor
    bank: Tensor

    def __init__(self, rate: int = 16_000, bins: int = 128) -> None:
        super().__init__()
        self.length, self.hop = rate * 25 // 1000, rate // 100
        self.size = 1 << (self.length - 1).bit_length()
        self.register_buffer("window", torch.hann_window(self.length, periodic=False) ** 0.85, persistent=False)
        self.register_buffer("bank", mel_bank(rate, self.size, bins), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Log energies; samples behind the last whole frame are left out."""
        frames = (waves * 2**15).unfold(1, self.length, self.hop)
        frames = frames - frames.mean(-1, keepdim=True)
        before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
        frames = (frames - PREEMPHASIS * before) * self.window
        power = torch.fft.rfft(frames, n=self.size).abs().square()[..., :-1]
        return (power @ self.bank).clamp(min=FLOOR).log()

    def samples(self, frames: int) -> int:
        """The least number of samples that gives so many frames."""
        return self.length + (frames - 1) * self.hop


def mel_bank(rate: int, size: int, bins: int) -> Tensor:
    """Triangles (size / 2, bins) over the lines of a spectrum, the one at half of the rate left out.

    Their edges are even and their flanks straight in mel. In float32, whose rounding the trained models know.
    """
    lines = 1127.0 * (1.0 + rate / size * torch.arange(size // 2) / 700.0).log()[:, None]
    lowest, highest = (1127.0 * math.log(1.0 + hertz / 700.0) for hertz in (LOWEST, rate / 2))
    edges = lowest + (highest - lowest) / (bins + 1) * torch.arange(bins + 2.0)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    return torch.minimum((lines - left) / (centre - left), (right - lines) / (right - centre)).clamp(min=0)
