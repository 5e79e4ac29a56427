"""``extract``: embeddings of clips, computed where the store lacks them, read from it otherwise.

Every clip ends as done or rejected with one reason; a killed run goes on where it was.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mmmos import audio, parallel, progress, registry
from mmmos.errors import Rejected, UnknownName, UsageError
from mmmos.features import pooling, spec
from mmmos.features.encoders import find_device
from mmmos.features.shard import DamagedShard
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import FeatureSet, clip_key
from mmmos.features.table import FeatureArray, Features
from mmmos.features.work import Clip, Reason, Task, encode_chunk, feature_spec, load_encoders
from mmmos.manifest import locate
from mmmos.recipe import names, sentences

log = logging.getLogger("mmmos")

CHUNK = 32
TOGETHER = 4
_ATTEMPTS = 3

Encoders = str | FeatureRecipe | Iterable[str | EncoderRecipe]


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

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object), an encoder's name, or a list of them.
    ``jobs``: processes that decode and encode, 0 for this one with a thread on each core; the numbers are the same.
    Clips that cannot be used are in ``status``.
    """
    recipe = resolve(encoders, workspace)
    device = find_device(device)
    found, rejected = _find(clips)
    wanted = {clip.key: clip for clip in found.values()}
    arrays: dict[str, FeatureArray] = {}
    positions: dict[str, dict[str, int]] = {}
    for tables in _groups(recipe.tables()):
        found_arrays, done, refused = _stored(tables, wanted, store, device, jobs)
        arrays |= found_arrays
        positions |= {name: {key: row for row, key in enumerate(keys)} for name, keys in done.items()}
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
    """A feature recipe from its name or path, from an encoder's name, or from a list of encoders."""
    if isinstance(encoders, FeatureRecipe):
        return encoders
    if isinstance(encoders, str):
        recipes, known = names("features", workspace), registry.names("encoders")
        if encoders.endswith(".toml") or encoders in recipes:
            return spec.read_recipe(encoders, str(workspace))
        if encoders not in known and ".py:" not in encoders:
            raise UnknownName("feature recipe or encoder", encoders, dict.fromkeys([*recipes, *known]))
        encoders = [encoders]
    try:
        return FeatureRecipe(encoders=list(encoders))
    except ValidationError as error:
        raise UsageError(" ".join(sentences(error, FeatureRecipe, "extract"))) from None


def open_set(table: EncoderRecipe, store: str | Path, device: str = "cpu") -> FeatureSet:
    """The feature set of a recipe's table in a store; loads the encoder to know its weights."""
    return FeatureSet(store, feature_spec(table, load_encoders([table], device)[0]))


def _groups(tables: list[EncoderRecipe]) -> list[list[EncoderRecipe]]:
    """Tables whose encoders run side by side, so that each clip is decoded once for all of them."""
    return [tables[first : first + TOGETHER] for first in range(0, len(tables), TOGETHER)]


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
    tables: list[EncoderRecipe], wanted: dict[str, Clip], store: str | Path, device: str, jobs: int
) -> tuple[dict[str, FeatureArray], dict[str, list[str]], dict[str, Reason]]:
    """Feature sets over all clips, computed where they are absent or damaged.

    Returns embeddings and the store keys of their rows, each by the set's name, and (reason, detail) of the rejected
    clips by store key.
    """
    specs = [feature_spec(table, loaded) for table, loaded in zip(tables, load_encoders(tables, device), strict=True)]
    sets = [FeatureSet(store, each) for each in specs]
    for attempt in range(_ATTEMPTS):
        refused = _complete(sets, tables, wanted, device, jobs)
        refused |= {key: reason for each in sets for key in wanted if (reason := each.rejection(key))}
        done = {each.spec.name: [key for key in wanted if key not in refused] for each in sets}
        try:
            return {each.spec.name: _array(each, done[each.spec.name]) for each in sets}, done, refused
        except DamagedShard as error:
            if attempt == _ATTEMPTS - 1:
                raise
            log.warning("%s It is set aside and its clips are computed again.", error)
    raise AssertionError("unreachable")


def _complete(
    sets: Sequence[FeatureSet], tables: list[EncoderRecipe], wanted: dict[str, Clip], device: str, jobs: int
) -> dict[str, Reason]:
    """Compute what the feature sets lack. Returns (reason, detail) of clips to be tried again, by key."""
    lacking = []
    for each in sets:
        each.clear()
        lacking.append(frozenset(each.missing(wanted)))
    missing = [clip for key, clip in wanted.items() if any(key in keys for keys in lacking)]
    chunks = [tuple(missing[first : first + CHUNK]) for first in range(0, len(missing), CHUNK)]
    tasks = [
        Task(
            tables=tuple(tables),
            fingerprints=tuple(each.spec.fingerprint for each in sets),
            lacking=tuple(keys.intersection(clip.key for clip in chunk) for keys in lacking),
            clips=chunk,
            store=str(sets[0].store),
            device=device,
            threads=1 if jobs else parallel.cores(),
            progress=progress.is_shown(),
        )
        for chunk in chunks
    ]
    vanished: dict[str, Reason] = {}
    label = f"{', '.join(each.spec.name for each in sets)}: {CHUNK} clips each"
    for some in progress.track(parallel.map(encode_chunk, tasks, jobs=jobs or 1), len(tasks), label):
        vanished |= some
    for each in sets:
        each.refresh()
    return vanished


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
