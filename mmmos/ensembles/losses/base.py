"""The loss contract."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """A training criterion.

    ``function`` maps predictions and targets (…, B) to (…). ``anchored`` is False when a constant added to all
    predictions changes nothing, or the optimum leaves the scale: such heads are calibrated before they are averaged.
    """

    name: str
    function: Callable[[Tensor, Tensor], Tensor]
    anchored: bool = True

    def __call__(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean over axes, a scalar, of predictions and targets (B, axes)."""
        return self.function(prediction.T, target.T).mean()


def pairs(values: Tensor) -> Tensor:
    """All differences: (…, B) to (…, B, B), entry i, j being v_i − v_j."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)
