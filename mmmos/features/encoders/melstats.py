"""v0, to be replaced."""

import torch
from torch import Tensor

from mmmos.features.encoders.base import EncoderCard
from mmmos.features.spec import EncoderSpec


class MelStats:
    """v0."""

    def __init__(self, spec: EncoderSpec) -> None:
        from nnAudio.features import MelSpectrogram

        self.spec = spec
        self._mel = MelSpectrogram(sr=16000, n_fft=1024, hop_length=256, n_mels=64, verbose=False)

    @torch.inference_mode()
    def encode(self, waves: Tensor) -> Tensor:
        """v0."""
        logmel = 10 * torch.log10(self._mel(waves.cpu()).clamp_min(1e-10))
        mean = logmel.mean(2, keepdim=True)
        delta = torch.diff(logmel, dim=2, prepend=logmel[..., :1]).abs()
        return torch.stack([logmel, (logmel - mean).abs(), delta], dim=1).transpose(2, 3)


def load(card: EncoderCard, weights: str, revision: str, device: str) -> MelStats:
    """v0."""
    return MelStats(
        EncoderSpec("melstats", "melstats", 16000, 3, 64, 0.016, 1024, "MIT", layer_names=("mean", "mad", "delta"))
    )


MELSTATS = EncoderCard("melstats", "melstats", load, "MIT", rate=16_000, layers=3, dim=64, hop=0.016, minimum=1024)
