"""The tasks of extraction: small records that say what feature sets lack of some clips, and what came of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmmos.features.extraction.clips import Clip, Reason
from mmmos.features.extraction.tally import Tally
from mmmos.features.spec import EncoderRecipe
from mmmos.features.store import FeatureSet


@dataclass(frozen=True)
class Lack:
    """What a feature set lacks of a task: its fingerprint, the keys, and which parts of begun clips it has."""

    fingerprint: str
    keys: frozenset[str]
    begun: Mapping[str, frozenset[int]]


@dataclass(frozen=True)
class Task:
    """Clips, and for each encoder its table and what its feature set lacks; all paths are absolute.

    ``device`` is found where the task is carried out. ``threads`` encode on a CPU, elsewhere they decode; 0: one on a
    CPU, for a GPU its share of the machine's cores.
    """

    tables: tuple[EncoderRecipe, ...]
    lacking: tuple[Lack, ...]
    clips: tuple[Clip, ...]
    store: str
    device: str
    threads: int = 1

    @property
    def label(self) -> str:
        """A few words that name it."""
        first = Path(self.clips[0].file).name
        return first if len(self.clips) == 1 else f"{len(self.clips)} clips from {first}"

    def apart(self) -> list["Task"]:
        """The same as tasks of one clip and one encoder, encoder by encoder."""
        return [
            replace(self, tables=(table,), lacking=(lack,), clips=(clip,))
            for table, lack in zip(self.tables, self.lacking, strict=True)
            for clip in self.clips
            if clip.key in lack.keys
        ]


@dataclass(frozen=True)
class Report:
    """What came of a task: (reason, detail) of the clips to be tried again, by key, and what it took."""

    unsettled: Mapping[str, Reason] = field(default_factory=dict)
    tally: Tally = field(default_factory=Tally)


def plan_tasks(
    sets: Sequence[FeatureSet],
    tables: Sequence[EncoderRecipe],
    clips: Sequence[Clip],
    missing: Sequence[frozenset[str]],
    size: int,
    store: str,
    device: str,
    threads: int,
) -> list[Task]:
    """What some feature sets lack, in tasks of ``size`` clips each.

    ``tables`` and ``missing`` (keys) are those of each set; the rest is as in ``Task``.
    """
    chunks = [clips[first : first + size] for first in range(0, len(clips), size)]
    return [
        Task(
            tables=tuple(tables),
            lacking=tuple(_lack(each, chunk, keys) for each, keys in zip(sets, missing, strict=True)),
            clips=tuple(replace(clip, file=absolute(clip.file)) for clip in chunk),
            store=store,
            device=device,
            threads=threads,
        )
        for chunk in chunks
    ]


def _lack(each: FeatureSet, chunk: Sequence[Clip], missing: frozenset[str]) -> Lack:
    keys = [clip.key for clip in chunk if clip.key in missing]
    return Lack(each.spec.fingerprint, frozenset(keys), each.index.begun(keys))


def absolute(path: str | Path) -> str:
    """A path as it is understood in any folder; a URL is."""
    return str(path) if "://" in str(path) else os.path.abspath(path)  # noqa: PTH100


def for_any_folder(table: EncoderRecipe) -> EncoderRecipe:
    """A table whose plug-in file and weights are found from any folder."""
    file, colon, name = table.encoder.rpartition(".py:")
    weights = Path(table.weights or "").expanduser()
    update = {"encoder": absolute(Path(file).expanduser()) + colon + name} if colon else {}
    if table.weights and weights.exists():
        update["weights"] = absolute(weights)
    return table.model_copy(update=update)
