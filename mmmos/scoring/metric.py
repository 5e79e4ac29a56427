"""A torchmetrics class: the mean scores of generated audio, batch by batch, while a generator is trained."""

from pathlib import Path
from typing import Any

from torch import Tensor, tensor

from mmmos.errors import SetupError, UsageError
from mmmos.scoring import load
from mmmos.scoring.inputs import Clip
from mmmos.scoring.scorer import Scorer

try:
    from torchmetrics import Metric
except ImportError:
    raise SetupError("The class Aesthetics needs torchmetrics: pip install 'mmmos[metrics]'") from None


class Aesthetics(Metric):
    """Mean scores by axis over all waves: a scorer, or what ``mmmos.load`` takes with the same options.

    Waves that cannot be scored, such as NaN ones, are left out and counted in ``rejected``. Scores have no gradient.
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    totals: Tensor
    scored: Tensor
    rejected: Tensor

    def __init__(self, scorer: Scorer | str | Path, **options: Any) -> None:
        super().__init__()
        self._scorer = scorer if isinstance(scorer, Scorer) else load(scorer, **options)
        self.add_state("totals", tensor([0.0] * len(self._scorer.axes)).double(), dist_reduce_fx="sum")
        for name in ("scored", "rejected"):
            self.add_state(name, tensor(0), dist_reduce_fx="sum")

    def update(self, waves: Tensor, rate: int) -> None:
        """Take mono waves (batch, samples), or one (samples,), at ``rate`` Hz; full scale is 1."""
        if waves.ndim not in (1, 2):
            raise UsageError(f"Waves are (batch, samples) or (samples,); got {tuple(waves.shape)}.")
        table = waves.detach().cpu().float().reshape(-1, waves.shape[-1]).numpy()
        clips = (Clip(str(row), samples=wave, rate=rate) for row, wave in enumerate(table))
        for score in self._scorer.stream(clips):
            if score.reason:
                self.rejected += 1
            else:
                self.scored += 1
                self.totals += tensor([score.scores[axis] for axis in self._scorer.axes]).to(self.totals)

    def compute(self) -> dict[str, Tensor]:
        """Mean score by axis. Raises ``UsageError`` where nothing was scored."""
        if not self.scored:
            raise UsageError(f"Nothing was scored yet, and {int(self.rejected)} waves could not be.")
        return dict(zip(self._scorer.axes, (self.totals / self.scored).float().unbind(), strict=True))
