"""``extract``: run encoders over clips, keep the embeddings in a store, give them back as arrays.

Every clip ends as done or rejected with one reason; a killed run goes on where it was.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mmmos import audio, parallel, progress
from mmmos.errors import Rejected, StoreError, UsageError
from mmmos.features import encoding, pooling, spec, weights
from mmmos.features import store as storage
from mmmos.features.encoders import Encoder, encoder, find_device
from mmmos.features.shard import ClipRows, DamagedShard
from mmmos.features.spec import EncoderRecipe, FeatureRecipe, FeatureSpec
from mmmos.features.store import FeatureSet, clip_key
from mmmos.features.table import FeatureArray, Features
from mmmos.manifest import locate
from mmmos.recipe import sentences

log = logging.getLogger("mmmos")

CHUNK = 32
_ATTEMPTS = 3

# Reasons that say something of the file system and nothing of the audio: never stored, so the next run tries again.
_TRANSIENT = {"missing", "not_a_file", "unreadable", "empty_file", "changed"}

Encoders = str | FeatureRecipe | Iterable[str | EncoderRecipe]
Reason = tuple[str, str]


@dataclass(frozen=True)
class Clip:
    """A clip to encode: store key, audio file and its stamp, segment in s (None: to either end of the file)."""

    key: str
    file: str
    stamp: tuple[int, int]
    start: float | None
    end: float | None


def extract(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    device: str = "auto",
    jobs: int = 0,
    workspace: str | Path = ".",
) -> Features:
    """Embeddings of all clips under all encoders, computed once and read from the store after that.

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object) or a list of encoder names.
    ``jobs``: processes that decode and encode (0: on a CPU one for each core when it takes long, elsewhere one).
    Clips that cannot be used are in ``status``.
    """
    recipe = resolve(encoders, workspace)
    device = find_device(device)
    jobs = 1 if jobs == 0 and device != "cpu" else jobs
    found, rejected = _find(clips)
    wanted = {clip.key: clip for clip in found.values()}
    arrays: dict[str, FeatureArray] = {}
    positions: dict[str, dict[str, int]] = {}
    for table in recipe.tables():
        arrays[table.set_name], done, refused = _stored(table, wanted, store, device, jobs)
        positions[table.set_name] = {key: row for row, key in enumerate(done)}
        rejected |= {clip: refused[place.key] for clip, place in found.items() if place.key in refused}
    usable = [clip for clip in clips.index if clip not in rejected]
    keys = [found[clip].key for clip in usable]
    sets = {name: array.rows([positions[name][key] for key in keys]) for name, array in arrays.items()}
    return Features(tuple(usable), tuple(keys), sets, _status(clips.index, rejected))


def plan(
    clips: pd.DataFrame, encoders: Encoders, *, store: str | Path = "features", workspace: str | Path = "."
) -> pd.DataFrame:
    """How far extraction is: a row for each feature set with its readable clips and how many the store knows."""
    found, _ = _find(clips)
    rows = []
    for table in resolve(encoders, workspace).tables():
        keys = [clip.key for clip in found.values()]
        absent = set(open_set(table, store).missing(keys))
        rows.append((table.set_name, len(keys), sum(key not in absent for key in keys)))
    return pd.DataFrame(rows, columns=["feature_set", "clips", "stored"])


def resolve(encoders: Encoders, workspace: str | Path = ".") -> FeatureRecipe:
    """A feature recipe from its name or path, or from a list of encoders."""
    if isinstance(encoders, FeatureRecipe):
        return encoders
    if isinstance(encoders, str):
        return spec.read_recipe(encoders, str(workspace))
    try:
        return FeatureRecipe(encoders=list(encoders))
    except ValidationError as error:
        raise UsageError(" ".join(sentences(error, FeatureRecipe, "extract"))) from None


def open_set(table: EncoderRecipe, store: str | Path, device: str = "cpu") -> FeatureSet:
    """The feature set of a recipe's table in a store; loads the encoder to know its weights."""
    return FeatureSet(store, _feature_spec(table, _load(table, device)))


def _feature_spec(table: EncoderRecipe, loaded: Encoder) -> FeatureSpec:
    window = table.window or spec.WINDOW
    if window * loaded.spec.rate < loaded.spec.minimum:
        least = loaded.spec.minimum / loaded.spec.rate
        raise UsageError(f"A window of {window:g} s is too short for {table.encoder}: it needs {least:g} s.")
    return FeatureSpec(table.set_name, loaded.spec, window, table.hop or window, table.dtype or "float16")


def _find(clips: pd.DataFrame) -> tuple[dict[str, Clip], dict[str, Reason]]:
    """Audio file and store key of each clip, by id; (reason, detail) of the clips without a readable file."""
    found: dict[str, Clip] = {}
    rejected: dict[str, Reason] = {}
    files = locate(clips)["file"]
    seen: dict[str, tuple[tuple[int, int], str]] = {}
    starts, ends = (clips[name] if name in clips else pd.Series(np.nan, clips.index) for name in ("start", "end"))
    rows = zip(clips.index, clips["path"], files, starts, ends, strict=True)
    for clip, path, file, start, end in progress.track(rows, len(clips), "looking at audio files"):
        try:
            if not isinstance(file, str):
                raise Rejected("missing", f"there is no file {path}, nor one of that name with another extension")
            if file not in seen:
                seen[file] = audio.stamp(file), audio.content_hash(file)
            stamp, content = seen[file]
            segment = [None if pd.isna(edge) else float(edge) for edge in (start, end)]
            found[clip] = Clip(clip_key(content, *segment), file, stamp, *segment)
        except Rejected as error:
            rejected[clip] = (error.reason, error.detail)
    return found, rejected


def _stored(
    table: EncoderRecipe, wanted: dict[str, Clip], store: str | Path, device: str, jobs: int
) -> tuple[FeatureArray, list[str], dict[str, Reason]]:
    """One feature set over all clips, computed where it is absent or damaged.

    Returns embeddings, the store keys of their rows, and (reason, detail) of the rejected clips by store key.
    """
    feature_set = open_set(table, store, device)
    for attempt in range(_ATTEMPTS):
        vanished = _complete(feature_set, table, wanted, device, jobs)
        refused = vanished | {key: reason for key in wanted if (reason := feature_set.rejection(key))}
        done = [key for key in wanted if key not in refused]
        try:
            return _array(feature_set, done), done, refused
        except DamagedShard as error:
            if attempt == _ATTEMPTS - 1:
                raise
            log.warning("%s It is set aside and its clips are computed again.", error)
    raise AssertionError("unreachable")


def _complete(
    feature_set: FeatureSet, table: EncoderRecipe, wanted: dict[str, Clip], device: str, jobs: int
) -> dict[str, Reason]:
    """Compute what the feature set lacks. Returns (reason, detail) of clips to be tried again, by key."""
    feature_set.clear()
    missing = [wanted[key] for key in feature_set.missing(wanted)]
    chunks = [tuple(missing[first : first + CHUNK]) for first in range(0, len(missing), CHUNK)]
    tasks = [_Task(table, feature_set.spec.fingerprint, str(feature_set.store), device, chunk) for chunk in chunks]
    vanished: dict[str, Reason] = {}
    label = f"{table.set_name}, {CHUNK} clips each"
    for some in progress.track(parallel.map(_encode_chunk, tasks, jobs=jobs), len(tasks), label):
        vanished |= some
    feature_set.refresh()
    return vanished


@dataclass(frozen=True)
class _Task:
    table: EncoderRecipe
    fingerprint: str
    store: str
    device: str
    clips: tuple[Clip, ...]


def _encode_chunk(task: _Task) -> dict[str, Reason]:
    """Encode some clips and store them in one shard. Returns (reason, detail) of clips to be tried again, by key."""
    loaded = _load(task.table, task.device)
    feature_spec = _feature_spec(task.table, loaded)
    if feature_spec.fingerprint != task.fingerprint:
        raise StoreError(f"The weights of {task.table.encoder!r} changed while they were in use. Start again.")
    done: list[ClipRows] = []
    rejected: dict[str, Reason] = {}
    # On a CPU one signal is in memory at a time; elsewhere the windows of all of them share batches.
    for group in [(clip,) for clip in task.clips] if task.device == "cpu" else [task.clips]:
        signals = {}
        for clip in group:
            try:
                signals[clip.key] = _signal(clip, loaded.spec.rate)
            except Rejected as error:
                rejected[clip.key] = (error.reason, error.detail)
        for key, rows in encoding.encode(signals, feature_spec, loaded, task.device).items():
            if rows is None:
                rejected[key] = ("bad_embedding", audio.REASONS["bad_embedding"])
            else:
                done.append(rows)
    vanished = {key: reason for key, reason in rejected.items() if reason[0] in _TRANSIENT}
    lasting = {key: reason for key, reason in rejected.items() if key not in vanished}
    storage.write(task.store, feature_spec, done, lasting)
    return vanished


def _signal(clip: Clip, rate: int) -> audio.Samples:
    """A clip as a mono signal at a rate; a file written to since its content was hashed is refused, sound or not."""
    try:
        samples, own_rate = audio.read(clip.file, clip.start, clip.end)
    except Rejected as error:
        if error.reason in _TRANSIENT or audio.stamp(clip.file) == clip.stamp:
            raise
        samples = None
    if samples is None or audio.stamp(clip.file) != clip.stamp:
        raise Rejected("changed", f"{clip.file} was written to while it was being read; it is tried again next time")
    return audio.resample(audio.mono(samples), own_rate, rate)


def _load(table: EncoderRecipe, device: str) -> Encoder:
    """The encoder of a table; it is loaded again when its local weights have changed."""
    return _loaded(table, device, weights.stamps(table.weights))


@lru_cache(maxsize=1)
def _loaded(table: EncoderRecipe, device: str, _: object) -> Encoder:
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


def _status(index: pd.Index, rejected: dict[str, Reason]) -> pd.DataFrame:
    rows = [("rejected", *rejected[clip]) if clip in rejected else ("done", "", "") for clip in index]
    return pd.DataFrame(rows, index=index, columns=["status", "reason", "detail"])
