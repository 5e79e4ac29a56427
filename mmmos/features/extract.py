"""``extract``: embeddings of clips, computed where the store lacks them, read from it otherwise.

Every clip ends as done, rejected or failed, the latter two with one reason; a killed run goes on where it was.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import ValidationError

from mmmos import audio, parallel, progress, registry
from mmmos.errors import UnknownName, UsageError
from mmmos.features import pooling, spec
from mmmos.features.clips import Clip, Reason, find
from mmmos.features.encoders import find_device
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import FeatureSet
from mmmos.features.store.shard import DamagedShard
from mmmos.features.table import FeatureArray, Features
from mmmos.features.work import Lack, Task, encode_chunk, feature_spec, load_encoders
from mmmos.recipe import names, sentences

log = logging.getLogger("mmmos")

CHUNK = 32
TOGETHER = 4
_ATTEMPTS = 3

# Flags of audio that is not what its container says; ``strict`` rejects it.
DAMAGE = ("truncated", "frames_mismatch")

Encoders = str | FeatureRecipe | Iterable[str | EncoderRecipe]


@dataclass(frozen=True)
class Options:
    """How extraction goes about it; none of these changes a number.

    ``device``: where encoders run. ``jobs``: processes that encode, 0 for this one with a thread on each core.
    ``strict``: reject audio that is not what its container says. ``retry``: try rejected clips again. ``rehash``: read
    every file again, whatever the file system says of it.
    """

    device: str = "auto"
    jobs: int = 0
    strict: bool = False
    retry: bool = False
    rehash: bool = False


def extract(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    device: str = "auto",
    jobs: int = 0,
    strict: bool = False,
    retry: bool = False,
    rehash: bool = False,
    workspace: str | Path = ".",
) -> Features:
    """Embeddings of all clips under all encoders, computed once and read from the store after that.

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object), an encoder's name, or a list of them.
    The other options are those of ``Options``. Clips that cannot be used are in ``status``.
    """
    options = Options(device, jobs, strict, retry, rehash)
    found, status, arrays = _settle(clips, resolve(encoders, workspace), store, options, load=True)
    usable = status.index[status["status"] == "done"]
    keys = [found[clip].key for clip in usable]
    sets = {}
    for name, (done, array) in arrays.items():
        position = {key: row for row, key in enumerate(done)}
        sets[name] = array.rows([position[key] for key in keys])
    return Features(tuple(usable), tuple(keys), sets, status)


def complete(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    options: Options = Options(),
    workspace: str | Path = ".",
) -> pd.DataFrame:
    """Compute what the store lacks of clips, and read nothing of what it has.

    Returns their status, indexed by id: columns status ("done", "rejected" or "failed"), reason, detail, flags.
    """
    return _settle(clips, resolve(encoders, workspace), store, options, load=False)[1]


def plan(
    clips: pd.DataFrame, encoders: Encoders, *, store: str | Path = "features", workspace: str | Path = "."
) -> pd.DataFrame:
    """How far extraction is: a row for each feature set with its readable clips and how many the store knows."""
    found, _ = find(clips, store)
    keys = [clip.key for clip in found.values()]
    rows = []
    for table in resolve(encoders, workspace).tables():
        absent = set(open_set(table, store).missing(keys))
        rows.append((table.set_name, len(keys), sum(key not in absent for key in keys)))
    return pd.DataFrame(rows, columns=["feature_set", "clips", "stored"])


def status(
    clips: pd.DataFrame, encoders: Encoders, *, store: str | Path = "features", workspace: str | Path = "."
) -> pd.DataFrame:
    """What the store knows of each clip, as ``complete`` would return it; "absent" for clips still to be computed."""
    found, refused = find(clips, store)
    sets = [open_set(table, store) for table in resolve(encoders, workspace).tables()]
    keys = [clip.key for clip in found.values()]
    known = _Known({key: reason for each in sets for key, reason in each.rejections(keys).items()})
    absent = {key for each in sets for key in each.missing(keys)} - set(known.reasons)
    _listen(known, sets, [key for key in dict.fromkeys(keys) if key not in absent and key not in known.reasons])
    table = _status(clips, found, refused, known, strict=False)
    table.loc[[clip in found and found[clip].key in absent for clip in table.index], "status"] = "absent"
    return table


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


@dataclass(frozen=True)
class _Known:
    """What is known of clips, by key: reason and detail of those that are not done, flags, containers of the others."""

    reasons: dict[str, Reason] = field(default_factory=dict)
    flags: dict[str, set[str]] = field(default_factory=dict)
    containers: dict[str, float] = field(default_factory=dict)


Loaded = dict[str, tuple[list[str], FeatureArray]]


def _settle(
    clips: pd.DataFrame, recipe: FeatureRecipe, store: str | Path, options: Options, *, load: bool
) -> tuple[dict[str, Clip], pd.DataFrame, Loaded]:
    """Bring every clip to an end under every encoder of a recipe.

    Returns the clips with a readable file by id, the status of all, and, if they are to be loaded, for each feature set
    the keys and embeddings of the clips that are done in it.
    """
    device = find_device(options.device)
    found, refused = find(clips, store, rehash=options.rehash)
    wanted = {clip.key: clip for clip in found.values()}
    known = _Known()
    arrays: Loaded = {}
    for tables in _groups(recipe.tables()):
        loaded = load_encoders(tables, device)
        sets = [FeatureSet(store, feature_spec(table, each)) for table, each in zip(tables, loaded, strict=True)]
        settled = _complete(sets, tables, wanted, device, options.jobs, options.retry)
        for attempt in range(_ATTEMPTS if load else 0):
            try:
                for each in sets:
                    done = [key for key in wanted if key not in settled]
                    arrays[each.spec.name] = done, _array(each, done)
                break
            except DamagedShard as error:
                if attempt == _ATTEMPTS - 1:
                    raise
                log.warning("%s What is lost is computed again.", error)
                settled |= _complete(sets, tables, wanted, device, options.jobs, False)
        known.reasons.update(settled)
        _listen(known, sets, [key for key in wanted if key not in settled])
    return found, _status(clips, found, refused, known, options.strict), arrays


def _groups(tables: list[EncoderRecipe]) -> list[list[EncoderRecipe]]:
    """Tables whose encoders run side by side, so that each clip is decoded once for all of them."""
    return [tables[first : first + TOGETHER] for first in range(0, len(tables), TOGETHER)]


def _complete(
    sets: Sequence[FeatureSet],
    tables: list[EncoderRecipe],
    wanted: Mapping[str, Clip],
    device: str,
    jobs: int,
    retry: bool,
) -> dict[str, Reason]:
    """Compute what the feature sets lack. Returns (reason, detail) of the clips that are not done, by key."""
    missing = [frozenset(each.missing(wanted, retry=retry)) for each in sets]
    lacking = [clip for key, clip in wanted.items() if any(key in keys for keys in missing)]
    todo = [clip for clip in lacking if clip.file]
    label = ", ".join(each.spec.name for each in sets)
    absent = "missing", f"there is no audio, and the import does not hold its embedding under {label}"
    unsettled: dict[str, Reason] = {clip.key: absent for clip in lacking if not clip.file}
    if todo:
        for each in sets:
            each.prepare()
    chunks = [tuple(todo[first : first + CHUNK]) for first in range(0, len(todo), CHUNK)]
    tasks = [
        Task(
            tables=tuple(tables),
            lacking=tuple(_lack(each, chunk, keys) for each, keys in zip(sets, missing, strict=True)),
            clips=chunk,
            store=str(sets[0].store),
            device=device,
            threads=1 if jobs else parallel.cores(),
            progress=progress.is_shown(),
        )
        for chunk in chunks
    ]
    stored = len(wanted) - len(todo)
    progress.saved(f"{stored} of {len(wanted)} clips are stored under {label}.")
    done = parallel.map(encode_chunk, tasks, jobs=jobs or 1)
    with closing(progress.track(done, len(tasks), f"{label}: {CHUNK} clips each")) as results:
        for some in results:
            unsettled |= some
            stored = min(stored + CHUNK, len(wanted))
            progress.saved(f"{stored} of {len(wanted)} clips are stored under {label}.")
    progress.saved("")
    for each in sets:
        each.refresh()
    keys = list(wanted)
    return {key: reason for each in sets for key, reason in each.rejections(keys).items()} | unsettled


def _lack(each: FeatureSet, chunk: Sequence[Clip], missing: frozenset[str]) -> Lack:
    keys = [clip.key for clip in chunk if clip.key in missing]
    return Lack(each.spec.fingerprint, frozenset(keys), each.index.begun(keys))


def _array(each: FeatureSet, keys: Sequence[str]) -> FeatureArray:
    rows = each.gather(keys)
    raw = pooling.clip_means(rows.unit, rows.norm, rows.frames, rows.clip)
    facts = each.spec.encoder
    return FeatureArray(
        each.spec.name, each.spec.fingerprint, facts.names(), raw, each, each.spec.frames, float(facts.hop)
    )


def _listen(known: _Known, sets: Sequence[FeatureSet], keys: Sequence[str]) -> None:
    """Add what was measured of clips that are done in all sets; what an encoder needs decides some flags."""
    for each in sets:
        facts, measures = each.spec.encoder, each.measures(keys)
        for flag, clips in audio.flags(measures, rate=facts.rate, minimum=facts.minimum).items():
            for row in np.flatnonzero(clips).tolist():
                known.flags.setdefault(keys[row], set()).add(flag)
        column = measures[:, audio.MEASURES.index("container")].tolist()
        known.containers.update((key, container) for key, container in zip(keys, column, strict=True))


def _status(
    clips: pd.DataFrame, found: Mapping[str, Clip], refused: Mapping[str, Reason], known: _Known, strict: bool
) -> pd.DataFrame:
    """Status of each clip; ``refused``: (reason, detail) by id of those whose file could not be read."""
    rows = []
    for clip in clips.index:
        place = found.get(clip)
        key = place.key if place else ""
        flags = set(known.flags.get(key, ()))
        if place and place.file and audio.extension_mismatch(place.file, known.containers.get(key, math.nan)):
            flags.add("extension_mismatch")
        reason = refused.get(clip) or known.reasons.get(key)
        if strict and not reason:
            reason = next(((flag, audio.FLAGS[flag]) for flag in DAMAGE if flag in flags), None)
        state = "done" if not reason else "failed" if reason[0] in audio.FAILED else "rejected"
        rows.append((state, *(reason or ("", "")), ", ".join(flag for flag in audio.FLAGS if flag in flags)))
    return pd.DataFrame(rows, clips.index, ["status", "reason", "detail", "flags"], dtype=object)
