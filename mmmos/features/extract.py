"""``extract``: run encoders over clips, keep the embeddings in a store, give them back as arrays.

Every clip ends as done or rejected with one reason; a killed run goes on where it was. On a CPU windows are encoded
one at a time, so that a clip's embedding does not depend on its neighbours; elsewhere equal lengths share a batch.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import audio, parallel, progress
from mmmos.errors import Rejected, StoreError
from mmmos.features import pooling, spec
from mmmos.features.encoders import Encoder, encoder, find_device
from mmmos.features.shard import ClipRows
from mmmos.features.spec import EncoderRecipe, FeatureRecipe, FeatureSpec
from mmmos.features.store import FeatureSet, clip_key
from mmmos.features.table import FeatureArray, Features
from mmmos.manifest import locate

log = logging.getLogger("mmmos")

CHUNK = 32
BATCH = 16
_TRANSIENT = {"missing", "unreadable"}


@dataclass(frozen=True)
class Clip:
    """A clip to encode: store key, audio file, segment in s (None: to either end of the file)."""

    key: str
    file: str
    start: float | None
    end: float | None


def extract(
    clips: pd.DataFrame,
    encoders: str | FeatureRecipe | Iterable[str | EncoderRecipe],
    *,
    store: str | Path = "features",
    device: str = "auto",
    jobs: int = 1,
    workspace: str | Path = ".",
) -> Features:
    """Embeddings of all clips under all encoders, computed once and read from the store after that.

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object) or a list of encoder names.
    ``jobs``: processes that decode and encode (0: one for each core). Clips that cannot be used are in ``status``.
    """
    recipe = resolve(encoders, workspace)
    device = find_device(device)
    found, rejected = _find(clips)
    sets: dict[str, FeatureSet] = {}
    for table in recipe.tables():
        sets[table.set_name], refused = _complete(table, list(found.values()), Path(store), device, jobs)
        rejected |= {clip: refused[place.key] for clip, place in found.items() if place.key in refused}
    usable = [clip for clip in clips.index if clip not in rejected]
    keys = [found[clip].key for clip in usable]
    try:
        arrays = {name: _array(feature_set, keys) for name, feature_set in sets.items()}
    except StoreError as error:
        log.warning("%s It is set aside and its clips are computed again.", error)
        return extract(clips, recipe, store=store, device=device, jobs=jobs)
    return Features(tuple(usable), tuple(keys), arrays, _status(clips.index, rejected))


def plan(
    clips: pd.DataFrame,
    encoders: str | FeatureRecipe | Iterable[str | EncoderRecipe],
    *,
    store: str | Path = "features",
    workspace: str | Path = ".",
) -> pd.DataFrame:
    """How far extraction is: a row for each feature set with its readable clips and how many the store knows."""
    found, _ = _find(clips)
    rows = []
    for table in resolve(encoders, workspace).tables():
        keys = [clip.key for clip in found.values()]
        absent = set(open_set(table, store).missing(keys))
        rows.append((table.set_name, len(keys), sum(key not in absent for key in keys)))
    return pd.DataFrame(rows, columns=["feature_set", "clips", "stored"])


def resolve(
    encoders: str | FeatureRecipe | Iterable[str | EncoderRecipe], workspace: str | Path = "."
) -> FeatureRecipe:
    """A feature recipe from its name or path, or from a list of encoders."""
    if isinstance(encoders, FeatureRecipe):
        return encoders
    if isinstance(encoders, str):
        return spec.read_recipe(encoders, str(workspace))
    return FeatureRecipe(encoders=list(encoders))


def open_set(table: EncoderRecipe, store: str | Path, device: str = "cpu") -> FeatureSet:
    """The feature set of a recipe's table in a store; loads the encoder to know its weights."""
    loaded = _load(table, device)
    settings = {"window": table.window or 10.0, "hop": table.hop or 10.0, "dtype": table.dtype or "float16"}
    return FeatureSet(store, FeatureSpec(table.set_name, loaded.spec, **settings))  # type: ignore[arg-type]


def _find(clips: pd.DataFrame) -> tuple[dict[str, Clip], dict[str, tuple[str, str]]]:
    """Audio file and store key of each clip, by id; (reason, detail) of the clips without a readable file."""
    found: dict[str, Clip] = {}
    rejected: dict[str, tuple[str, str]] = {}
    files = locate(clips)["file"]
    hashes: dict[str, str] = {}
    starts, ends = (clips[name] if name in clips else pd.Series(np.nan, clips.index) for name in ("start", "end"))
    rows = zip(clips.index, clips["path"], files, starts, ends, strict=True)
    for clip, path, file, start, end in progress.track(rows, len(clips), "looking at audio files"):
        try:
            if not isinstance(file, str):
                raise Rejected("missing", f"there is no file {path}, nor one of that name with another extension")
            if file not in hashes:
                hashes[file] = audio.content_hash(file)
            segment = [None if pd.isna(edge) else float(edge) for edge in (start, end)]
            found[clip] = Clip(clip_key(hashes[file], *segment), file, *segment)
        except Rejected as error:
            rejected[clip] = (error.reason, error.detail)
    return found, rejected


def _complete(
    table: EncoderRecipe, clips: list[Clip], store: Path, device: str, jobs: int
) -> tuple[FeatureSet, dict[str, tuple[str, str]]]:
    """The feature set with every clip done or rejected, and (reason, detail) of the rejected ones by store key."""
    feature_set = open_set(table, store, device)
    by_key = {clip.key: clip for clip in clips}
    missing = [by_key[key] for key in feature_set.missing(by_key)]
    chunks = [tuple(missing[i : i + CHUNK]) for i in range(0, len(missing), CHUNK)]
    tasks = [_Task(table, str(store), device, chunk, jobs != 1) for chunk in chunks]
    refused: dict[str, tuple[str, str]] = {}
    label = f"{table.set_name}, {CHUNK} clips each"
    for vanished in progress.track(parallel.map(_encode_chunk, tasks, jobs=jobs), len(tasks), label):
        refused |= vanished
    feature_set.refresh()
    refused |= {key: reason for key in by_key if (reason := feature_set.rejection(key))}
    return feature_set, refused


@dataclass(frozen=True)
class _Task:
    table: EncoderRecipe
    store: str
    device: str
    clips: tuple[Clip, ...]
    single: bool


def _encode_chunk(task: _Task) -> dict[str, tuple[str, str]]:
    """Encode some clips and store them in one shard.

    Returns (reason, detail) of clips whose file has gone since: these are not stored, so that the next run tries again.
    """
    if task.single:
        import torch

        torch.set_num_threads(1)
    feature_set = open_set(task.table, task.store, task.device)
    loaded = _load(task.table, task.device)
    signals: dict[str, NDArray[np.float32]] = {}
    rejected: dict[str, tuple[str, str]] = {}
    for clip in task.clips:
        try:
            samples, rate = audio.read(clip.file, clip.start, clip.end)
            signals[clip.key] = audio.resample(audio.mono(samples), rate, loaded.spec.rate)
        except Rejected as error:
            rejected[clip.key] = (error.reason, error.detail)
    done = []
    for key, rows in _encode(signals, feature_set.spec, loaded, 1 if task.device == "cpu" else BATCH).items():
        if rows is None:
            rejected[key] = ("bad_embedding", audio.REASONS["bad_embedding"])
        else:
            done.append(rows)
    vanished = {key: value for key, value in rejected.items() if value[0] in _TRANSIENT}
    feature_set.write(done, {key: value for key, value in rejected.items() if key not in vanished})
    return vanished


def _encode(
    signals: dict[str, NDArray[np.float32]], spec: FeatureSpec, loaded: Encoder, batch: int
) -> dict[str, ClipRows | None]:
    """Window rows of each signal at the encoder's rate; None for a clip whose vectors are not sound."""
    import torch

    rate, minimum = spec.encoder.rate, spec.encoder.minimum
    places: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for key, signal in signals.items():
        for start, stop in audio.windows(len(signal), round(spec.window * rate), round(spec.hop * rate), minimum):
            places[max(stop - start, minimum)].append((key, start, stop))
    rows: dict[str, list[tuple[int, int, NDArray[np.float32], int]]] = defaultdict(list)
    for members in places.values():
        for first in range(0, len(members), batch):
            group = members[first : first + batch]
            waves = np.stack([audio.pad(signals[key][start:stop], minimum) for key, start, stop in group])
            states = loaded.encode(torch.from_numpy(waves))
            means = states.mean(dim=2, dtype=torch.float32).cpu().numpy()
            for (key, start, stop), raw in zip(group, means, strict=True):
                rows[key].append((start, stop, raw, states.shape[2]))
    return {key: _clip_rows(key, sorted(rows[key], key=lambda row: row[0]), spec) for key in signals}


def _clip_rows(
    key: str, rows: Sequence[tuple[int, int, NDArray[np.float32], int]], spec: FeatureSpec
) -> ClipRows | None:
    raw = np.stack([row[2] for row in rows])
    if not all(pooling.is_sound(window) for window in raw):
        return None
    unit, norm = pooling.split(raw, spec.dtype)
    frames = np.array([row[3] for row in rows], dtype=np.int32)
    span = np.array([[row[0], row[1]] for row in rows], dtype=np.float64) / spec.encoder.rate
    return ClipRows(key, unit, norm, frames, span)


@lru_cache(maxsize=1)
def _load(table: EncoderRecipe, device: str) -> Encoder:
    """One encoder at a time stays in memory."""
    return encoder(table.encoder, table.weights, revision=table.revision, device=device)


def _array(feature_set: FeatureSet, keys: list[str]) -> FeatureArray:
    names = feature_set.spec.encoder.names()
    if not keys:
        empty = np.zeros((0, len(names), feature_set.spec.encoder.dim), np.float32)
        return FeatureArray(feature_set.spec.name, feature_set.spec.fingerprint, names, empty)
    rows = feature_set.gather(keys)
    raw = pooling.clip_means(rows.unit, rows.norm, rows.frames, rows.clip)
    return FeatureArray(feature_set.spec.name, feature_set.spec.fingerprint, names, raw)


def _status(index: pd.Index, rejected: dict[str, tuple[str, str]]) -> pd.DataFrame:
    rows = [("rejected", *rejected[clip]) if clip in rejected else ("done", "", "") for clip in index]
    return pd.DataFrame(rows, index=index, columns=["status", "reason", "detail"])
