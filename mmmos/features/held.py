"""Features in memory: what a store would give of clips whose rows were just computed, without one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mmmos.errors import UsageError
from mmmos.features import pooling
from mmmos.features.spec import FeatureSpec
from mmmos.features.store.feature_set import Frames, Rows
from mmmos.features.store.shard import ClipRows
from mmmos.features.table import FeatureArray, Features


@dataclass(frozen=True)
class HeldSet:
    """The rows of one feature set by clip: what ``store.FeatureSet`` serves."""

    spec: FeatureSpec
    rows: Mapping[str, ClipRows]

    def gather(self, keys: Sequence[str]) -> Rows:
        """The windows of clips, in the order of the keys."""
        clips = [self.rows[key] for key in keys]
        unit, norm, frames, span = (
            np.concatenate([getattr(each, name) for each in clips]) for name in ("unit", "norm", "frames", "span")
        )
        return Rows(unit, norm, frames, span, np.repeat(np.arange(len(clips)), [len(each.frames) for each in clips]))

    def frames(self, key: str) -> Frames:
        """The frames of a clip. Raises ``UsageError`` where the feature set keeps none."""
        clip = self.rows[key]
        if clip.frame_unit is None or clip.frame_norm is None:
            raise UsageError(
                f"{self.spec.name} keeps no frames; ask for them in the feature recipe: frames = [layers]."
            )
        return Frames(clip.frame_unit, clip.frame_norm, np.concatenate([[0], np.cumsum(clip.frames)]))


def features(specs: Sequence[FeatureSpec], clips: Mapping[str, Sequence[ClipRows]]) -> Features:
    """Features of clips (at least one) by id: of each one its rows, whole, in the order of ``specs``.

    Arrays are those that ``extract`` gives of the same audio; a clip's key is its id.
    """
    ids = tuple(clips)
    sets = [HeldSet(spec, {id_: rows[number] for id_, rows in clips.items()}) for number, spec in enumerate(specs)]
    index = pd.Index(ids, dtype=object)
    rows = [("done", "", "", "")] * len(ids)
    status = pd.DataFrame(rows, index, ["status", "reason", "detail", "flags"], dtype=object)
    return Features(ids, ids, {each.spec.name: _array(each, ids) for each in sets}, status)


def _array(each: HeldSet, keys: Sequence[str]) -> FeatureArray:
    spec, rows = each.spec, each.gather(keys)
    raw = pooling.clip_means(rows.unit, rows.norm, rows.frames, rows.clip)
    return FeatureArray(
        spec.name, spec.fingerprint, spec.encoder.names(), raw, each, spec.frames, float(spec.encoder.hop)
    )


def part_of(rows: ClipRows, windows: Sequence[int], first: int, rate: int) -> ClipRows:
    """The rows of some windows, by position, of audio that begins at sample ``first`` of ``rate`` Hz."""
    places = np.asarray(windows, np.int64)
    span = (np.rint(rows.span[places] * rate).astype(np.int64) - first) / rate
    frame_norm = frame_unit = None
    if rows.frame_unit is not None and rows.frame_norm is not None:
        ends = np.cumsum(rows.frames)
        kept = np.concatenate([np.arange(ends[place] - rows.frames[place], ends[place]) for place in places.tolist()])
        frame_norm, frame_unit = rows.frame_norm[kept], rows.frame_unit[kept]
    return ClipRows(
        rows.key,
        rows.unit[places],
        rows.norm[places],
        rows.frames[places],
        span,
        frame_norm=frame_norm,
        frame_unit=frame_unit,
    )
