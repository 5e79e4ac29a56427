"""What became of each clip of a manifest: done, rejected or failed, the latter two with one reason, and its flags."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from mmmos import audio
from mmmos.features.extraction.clips import Clip, Reason
from mmmos.features.store import FeatureSet

# Flags of audio that is not what its container says; ``strict`` rejects it.
DAMAGE = ("truncated", "frames_mismatch")


@dataclass(frozen=True)
class Known:
    """What is known of clips, by key: reason and detail of those that are not done, flags, containers of the others."""

    reasons: dict[str, Reason] = field(default_factory=dict)
    flags: dict[str, set[str]] = field(default_factory=dict)
    containers: dict[str, float] = field(default_factory=dict)

    def listen(self, sets: Sequence[FeatureSet], keys: Sequence[str]) -> None:
        """Add what was measured of clips that are done in all sets; what an encoder needs decides some flags."""
        for each in sets:
            facts, measures = each.spec.encoder, each.measures(keys)
            for flag, clips in audio.flags(measures, rate=facts.rate, minimum=facts.minimum).items():
                for row in np.flatnonzero(clips).tolist():
                    self.flags.setdefault(keys[row], set()).add(flag)
            column = measures[:, audio.MEASURES.index("container")].tolist()
            self.containers.update((key, container) for key, container in zip(keys, column, strict=True))

    def table(
        self, clips: pd.DataFrame, found: Mapping[str, Clip], refused: Mapping[str, Reason], *, strict: bool = False
    ) -> pd.DataFrame:
        """Status of each clip of a manifest, indexed by id: columns status, reason, detail, flags.

        ``refused``: (reason, detail) by id of those whose file could not be read; ``strict`` rejects damaged audio.
        """
        rows = []
        for clip in clips.index:
            place = found.get(clip)
            key = place.key if place else ""
            flags = set(self.flags.get(key, ()))
            if place and place.file and audio.extension_mismatch(place.file, self.containers.get(key, math.nan)):
                flags.add("extension_mismatch")
            reason = refused.get(clip) or self.reasons.get(key)
            if strict and not reason:
                reason = next(((flag, audio.FLAGS[flag]) for flag in DAMAGE if flag in flags), None)
            state = "done" if not reason else "failed" if reason[0] in audio.FAILED else "rejected"
            rows.append((state, *(reason or ("", "")), ", ".join(flag for flag in audio.FLAGS if flag in flags)))
        return pd.DataFrame(rows, clips.index, ["status", "reason", "detail", "flags"], dtype=object)
