"""The encoder ``loudness``: how loud each octave is, frame by frame, and how much that changes. It has no weights."""

import torch
from torch import Tensor

from mmmos.features.spec import EncoderSpec

RATE, FRAME, BANDS = 16_000, 320, 8
EXPONENT = 0.3
FLOOR = 1e-10


class Loudness:
    """Loudness of frames of 20 ms in eight octave bands, by Stevens' power law.

    Layer ``loudness`` is the power of each band to 0.3, a full-scale sine being 0.5 ^ 0.3 (S. S. Stevens, "The
    measurement of loudness", JASA 27, 1955); layer ``change`` is how far it is from the frame before, 0 in the first.
    Bands end at 62.5, 125, 250, … 8000 Hz. Power below 1e-10 counts as that, since the store takes no row of zeros.
    """

    spec = EncoderSpec(
        "loudness",
        "loudness",
        rate=RATE,
        layers=2,
        dim=BANDS,
        hop=FRAME / RATE,
        minimum=FRAME,
        licence="MIT",
        layer_names=("loudness", "change"),
    )

    def __init__(self) -> None:
        self._window = torch.hann_window(FRAME)
        frequencies = torch.fft.rfftfreq(FRAME, 1 / RATE)
        ends = RATE / 2 / 2.0 ** torch.arange(BANDS - 1, -1, -1)
        self._bands = torch.nn.functional.one_hot(torch.bucketize(frequencies, ends), BANDS).float()
        # Each frequency but the lowest and the highest stands for two; the lowest, a constant, cannot be heard.
        self._bands *= torch.tensor([0.0, *[2.0] * (FRAME // 2 - 1), 1.0])[:, None]
        self._bands /= FRAME * self._window.square().sum()

    @torch.inference_mode()
    def encode(self, waves: Tensor) -> Tensor:
        """States (batch, 2, frames, 8) float32 of mono waves (batch, samples) at 16 kHz."""
        frames = waves.cpu().float().unfold(1, FRAME, FRAME) * self._window
        power = torch.fft.rfft(frames).abs().square() @ self._bands
        loudness = power.clamp_min(FLOOR).pow(EXPONENT)
        change = torch.diff(loudness, dim=1, prepend=loudness[:, :1]).abs()
        return torch.stack([loudness, change], dim=1)
