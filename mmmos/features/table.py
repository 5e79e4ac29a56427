"""Features in memory: the pooled embeddings of a list of clips, one array for each feature set."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos.audio import FLAGS
from mmmos.errors import UnknownName, UsageError
from mmmos.files import key_of


class WindowRows(Protocol):
    """The windows of several clips as stored, so that raw = unit × norm."""

    @property
    def unit(self) -> NDArray[np.floating]:
        """Unit vectors (rows, layers, dim)."""

    @property
    def norm(self) -> NDArray[np.float32]:
        """Their lengths (rows, layers)."""

    @property
    def span(self) -> NDArray[np.float64]:
        """Begin and end (rows, 2) in s."""

    @property
    def clip(self) -> NDArray[np.int64]:
        """Position (rows,) of each row's clip, ascending."""


class FrameRows(Protocol):
    """The frames of one clip as stored, so that raw = unit × norm."""

    @property
    def unit(self) -> NDArray[np.floating]:
        """Unit vectors (frames, layers, dim)."""

    @property
    def norm(self) -> NDArray[np.float32]:
        """Their lengths (frames, layers)."""

    @property
    def windows(self) -> NDArray[np.int64]:
        """Offsets (windows + 1,) of the windows' frames."""


class Source(Protocol):
    """Where the windows and frames of a feature set are read, by the store keys of clips: a ``store.FeatureSet``."""

    def gather(self, keys: Sequence[str]) -> WindowRows:
        """The windows of clips, in the order of the keys."""
        ...

    def frames(self, key: str) -> FrameRows:
        """The frames of a clip."""
        ...


@dataclass(frozen=True)
class FeatureArray:
    """Raw clip embeddings of one feature set: ``raw`` (clips, layers, dim) float32, a name for each layer.

    ``source``: where its windows and frames are read; ``frame_layers``: names of the layers that keep frames, which are
    ``hop`` s apart.
    """

    name: str
    fingerprint: str
    layer_names: tuple[str, ...]
    raw: NDArray[np.float32]
    source: Source | None = None
    frame_layers: tuple[str, ...] = ()
    hop: float = 0.0

    def layers(self, choice: str | Sequence[str | int]) -> NDArray[np.float32]:
        """Chosen layers (clips, layers, dim): "all", "last", "mean" (their mean), or layer names or indices.

        Raises ``UnknownName`` for a name of no layer.
        """
        if choice == "all":
            return self.raw
        if choice == "last":
            return self.raw[:, -1:]
        if choice == "mean":
            return self.raw.mean(axis=1, keepdims=True)
        wanted = [choice] if isinstance(choice, str) else [str(name) for name in choice]
        for name in wanted:
            if name not in self.layer_names:
                raise UnknownName(f"layer of {self.name}", name, self.layer_names)
        return self.raw[:, [self.layer_names.index(name) for name in wanted]]

    def rows(self, rows: Sequence[int]) -> "FeatureArray":
        """The embeddings of some clips, by position."""
        return replace(self, raw=self.raw[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class WindowTable:
    """The windows of clips under several feature sets, row by row the same pieces of audio.

    ``arrays``: a ``FeatureArray`` over windows for each set; the rows of clip c are those from ``first[c]`` up to
    ``first[c + 1]``; ``share`` (rows,) float32 is each one's part of its clip's seconds.
    """

    arrays: list[FeatureArray]
    first: NDArray[np.int64]
    share: NDArray[np.float32]


@dataclass(frozen=True)
class Features:
    """Embeddings of the clips that are usable in every feature set.

    ``ids`` clip ids; ``keys`` store keys of their audio; ``sets`` by feature set name, rows in the order of ``ids``;
    ``status`` of every clip asked for, indexed by id: columns status ("done", "rejected" or "failed"), reason, detail,
    flags. ``features[name]`` is a feature set's ``FeatureArray``; raises ``UnknownName``.
    """

    ids: tuple[str, ...]
    keys: tuple[str, ...]
    sets: dict[str, FeatureArray]
    status: pd.DataFrame

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> FeatureArray:
        if name not in self.sets:
            raise UnknownName("feature set", name, sorted(self.sets))
        return self.sets[name]

    def of(self, ids: Sequence[str]) -> "Features":
        """The features of some clips, in the order of ``ids``. Raises ``UsageError`` for a clip without features."""
        position = {clip: row for row, clip in enumerate(self.ids)}
        absent = [clip for clip in ids if clip not in position]
        if absent:
            raise UsageError(f"{len(absent)} clips have no features, among them {absent[0]!r}.")
        rows = [position[clip] for clip in ids]
        sets = {name: array.rows(rows) for name, array in self.sets.items()}
        return Features(tuple(ids), tuple(self.keys[row] for row in rows), sets, self.status)

    def windows(self, names: Sequence[str]) -> WindowTable:
        """The windows of all clips under some feature sets, read from the store.

        Raises ``UsageError`` for features that no store backs, and for feature sets with other windows.
        """
        read = [(self[name], self._source(name).gather(self.keys)) for name in names]
        spans = read[0][1].span
        for array, rows in read:
            if rows.span.shape != spans.shape or np.abs(rows.span - spans).max(initial=0) > 0.1:
                raise UsageError(
                    f"{names[0]} and {array.name} cut clips into different windows, which cannot be samples together;"
                    " give their encoders the same window and hop in the feature recipe."
                )
        clip = read[0][1].clip
        first = np.searchsorted(clip, np.arange(len(self) + 1))
        seconds = spans[:, 1] - spans[:, 0]
        whole = np.add.reduceat(seconds, first[:-1]) if len(self) else seconds
        arrays = [replace(array, raw=rows.unit.astype(np.float32) * rows.norm[..., None]) for array, rows in read]
        return WindowTable(arrays, first.astype(np.int64), (seconds / whole[clip]).astype(np.float32))

    def frames(self, name: str, clip: int) -> FrameRows:
        """The frames of a clip, by position, under a feature set.

        Raises ``UsageError`` for features that no store backs, and for a feature set that keeps no frames.
        """
        return self._source(name).frames(self.keys[clip])

    def _source(self, name: str) -> Source:
        source = self[name].source
        if source is None:
            raise UsageError(f"The features of {name} come from no store: their windows and frames are unknown.")
        return source

    def digest(self, names: Sequence[str], rows: Iterable[int] | None = None) -> str:
        """SHA-256 (hex) of what embeddings are computed from: audio keys in order (of all ``rows``), fingerprints."""
        keys = self.keys if rows is None else [self.keys[row] for row in rows]
        audio = hashlib.sha256("\n".join(keys).encode()).hexdigest()
        return key_of({"audio": audio, "sets": {name: self[name].fingerprint for name in names}})

    def flagged(self) -> pd.DataFrame:
        """The flags of the clips that are used: as ``flag_counts``."""
        return flag_counts(self.status)

    def rejected(self) -> pd.DataFrame:
        """The clips without embeddings, rejected or failed: reason and detail, indexed by id."""
        return self.status.loc[self.status["status"] != "done", ["reason", "detail"]]


def flag_counts(status: pd.DataFrame) -> pd.DataFrame:
    """The flags of clips that are done, by their status: a row for each with flag, clips, meaning, example (an id)."""
    flags = status.loc[status["status"] == "done", "flags"].str.split(", ").explode()
    having = {flag: flags.index[flags == flag] for flag in FLAGS}
    rows = [(flag, len(ids), FLAGS[flag], ids[0]) for flag, ids in having.items() if len(ids)]
    return pd.DataFrame(rows, columns=["flag", "clips", "meaning", "example"], dtype=object).astype({"clips": int})
