"""What the classical heads share: options, and a state of plain arrays from which numpy predicts."""

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.heads import Array, Blocks, flat
from mmmos.recipe import Recipe

State = dict[str, NDArray[Any]]
Matrix = NDArray[np.float64]

# Clips that are predicted together, which bounds the memory for their distances to all training clips.
AT_ONCE = 1024


class Classical(ABC):
    """A regressor that scikit-learn fits. Subclasses turn (x, targets) into arrays and predict from ``self.arrays``.

    Predictions need numpy alone, so that a stored head does not depend on the version that fitted it. Warnings of
    scikit-learn, such as of a fit that stopped at its iteration limit, are not passed on: what a fit is worth is
    measured on clips that it has not seen.
    """

    Options: ClassVar[type[Recipe]]
    own_loss = True

    def __init__(self, *, options: dict[str, Any], weighted: bool = False, loss: str = "mse", seed: int = 0) -> None:
        self.options: Any = self.Options.model_validate(options)
        self.seed = seed
        self.arrays: State = {}

    def fit(self, blocks: Blocks, targets: Array, held_out: tuple[Blocks, Array]) -> Self:
        """Fit to (clips, axes) standardised targets; the held-out clips are not used."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.arrays = self._fit(flat(blocks).astype(np.float64), targets.astype(np.float64))
        return self

    def predict(self, blocks: Blocks) -> Array:
        """Standardised predictions (clips, axes) float32."""
        x = flat(blocks)
        parts = [self._predict(x[row : row + AT_ONCE].astype(np.float64)) for row in range(0, max(len(x), 1), AT_ONCE)]
        return np.concatenate(parts).astype(np.float32)

    def state(self) -> State:
        """The fitted arrays by name."""
        return self.arrays

    def restore(self, state: State) -> Self:
        """Take the arrays of a stored head."""
        self.arrays = state
        return self

    @abstractmethod
    def _fit(self, x: Matrix, y: Matrix) -> State: ...

    @abstractmethod
    def _predict(self, x: Matrix) -> Matrix: ...
