"""The frames of one feature set: chosen layers, as stored or pooled over time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmmos.ensembles.heads import Array
from mmmos.ensembles.heads.inputs import Rows
from mmmos.ensembles.spec import Layers
from mmmos.errors import UnknownName, UsageError
from mmmos.features import pooling
from mmmos.features.table import FeatureArray, Source

# Vectors of length 1 (frames, layers, dim) as stored, and their norms (frames, layers).
Stored = tuple[NDArray[np.floating], NDArray[np.float32]]


@dataclass(frozen=True)
class FrameSet:
    """One feature set: ``source`` of its frames; ``columns``, the chosen ones of the layers that keep frames, or with
    ``mean`` those whose mean is one layer; ``dim`` of its vectors.
    """

    source: Source
    columns: tuple[int, ...]
    dim: int
    mean: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, dim) of a frame."""
        return 1 if self.mean else len(self.columns), self.dim

    def stored(self, key: str, cells: Rows | None) -> Stored:
        """The frames of a clip; with ``cells``, of each window so many means, kept in the dtype of the store."""
        rows = self.source.frames(key)
        everything = self.columns == tuple(range(rows.unit.shape[1]))
        unit, norm = (each if everything else each[:, list(self.columns)] for each in (rows.unit, rows.norm))
        if cells is None and not self.mean:
            return unit, norm
        raw = unit.astype(np.float32) * norm[..., None]
        raw = raw.mean(axis=1, keepdims=True) if self.mean else raw
        raw = raw if cells is None else cell_means(raw, rows.windows, cells)
        return pooling.split(raw, unit.dtype.name)


def cell_means(values: Array, windows: Rows, cells: Rows) -> Array:
    """Adaptive average pooling over time of each window: values (frames, …) to (cells, …).

    Of F frames and C cells, cell c is the mean of the frames from ⌊cF/C⌋ up to ⌈(c + 1)F/C⌉, so that each frame is in
    one cell at least. ``windows``: offsets (windows + 1,) of their frames; ``cells`` (windows,).
    """
    frames, first = np.repeat(np.diff(windows), cells), np.repeat(windows[:-1], cells)
    count = np.repeat(cells, cells)
    cell = np.arange(len(count)) - np.repeat(np.cumsum(cells) - cells, cells)
    begin, end = first + cell * frames // count, first - (-(cell + 1) * frames // count)
    # Sums of the stretches between all bounds; every other one is a cell, the last ends with the values. A bound is no
    # place behind the values.
    if end[:-1].max(initial=0) == len(values):
        values = np.concatenate([values, np.zeros_like(values[:1])])
    sums = np.add.reduceat(values, np.stack([begin, end], axis=1).ravel()[:-1], axis=0)[::2]
    sums /= (end - begin).reshape(-1, *[1] * (values.ndim - 1))
    return sums


def frame_set(array: FeatureArray, choice: Layers) -> FrameSet:
    """The chosen layers of a feature set: "all" or "weighted" (those that keep frames), "mean" (their mean), "last" (of
    the encoder), or names.

    Raises ``UnknownName`` for a name of no layer, ``UsageError`` for a layer that keeps no frames.
    """
    name, kept, every = array.name, array.frame_layers, array.layer_names
    if array.source is None:
        raise UsageError(f"The features of {name} do not come from a store: their frames are not known.")
    if not kept:
        raise UsageError(
            f'{name} keeps no frames; write frames = "all", "last" or a list of layers for it in the feature recipe'
            " and extract it again."
        )
    if choice == "last":
        wanted: Sequence[str] = every[-1:]
    elif choice in ("all", "weighted", "mean"):
        wanted = kept
    else:
        wanted = [choice] if isinstance(choice, str) else choice
    for layer in wanted:
        if layer not in every:
            raise UnknownName(f"layer of {name}", layer, every)
        if layer not in kept:
            raise UsageError(
                f"The layer {layer} of {name} keeps no frames, only {', '.join(kept)}; write"
                f" frames = {_list([*kept, layer])} for it in the feature recipe and extract it again."
            )
    columns = tuple(kept.index(layer) for layer in wanted)
    return FrameSet(array.source, columns, array.raw.shape[2], choice == "mean")


def _list(names: Sequence[str]) -> str:
    """A TOML list of strings."""
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
