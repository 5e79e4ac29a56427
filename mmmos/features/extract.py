"""``extract``: embeddings of clips, computed where the store lacks them, read from it otherwise.

Every clip ends as done, rejected or failed, the latter two with one reason; a killed run goes on where it was.
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from mmmos import audio, parallel, progress, registry
from mmmos.errors import UnknownName, UsageError
from mmmos.features import devices, pooling, spec, tally
from mmmos.features.clips import Clip, Reason, find
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.status import Known
from mmmos.features.store import FeatureSet
from mmmos.features.store.shard import DamagedShard
from mmmos.features.table import FeatureArray, Features
from mmmos.features.tasks import Report, Task, absolute, for_any_folder, plan_tasks
from mmmos.features.work import encode_chunk, feature_spec, load_encoders
from mmmos.parallel import Jobs, Shard, Workers
from mmmos.recipe import names, sentences

log = logging.getLogger("mmmos")

CHUNK = 32
TOGETHER = 4
_ATTEMPTS = 3

Encoders = str | FeatureRecipe | Iterable[str | EncoderRecipe]


@dataclass(frozen=True)
class Options:
    """How extraction goes about it; none of these changes a number.

    ``device``: where encoders run. ``jobs``: processes that encode, here or on a cluster; 0 for this one with a thread
    on each core, or for one process on each of several GPUs. ``strict``: reject audio that is not what its container
    says. ``retry``: try rejected clips again. ``rehash``: read every file again, whatever the file system says of it.
    """

    device: str = "auto"
    jobs: Jobs = 0
    strict: bool = False
    retry: bool = False
    rehash: bool = False

    def workers(self) -> Workers:
        """Where tasks run; what 0 stands for is said."""
        where = parallel.workers(self.jobs)
        return replace(where, jobs=devices.processes(self.device)) if where.is_local and not where.jobs else where

    def are_here(self) -> bool:
        """Whether tasks run in this process."""
        where = self.workers()
        return where.is_local and where.jobs == 1

    def threads(self) -> int:
        """Threads of each task; 0: as its worker decides."""
        where = parallel.workers(self.jobs)
        if where.is_local and where.jobs:
            return 1
        return parallel.cores() if self.are_here() else 0


def extract(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    device: str = "auto",
    jobs: Jobs = 0,
    shard: str | Shard | None = None,
    strict: bool = False,
    retry: bool = False,
    rehash: bool = False,
    workspace: str | Path = ".",
) -> Features:
    """Embeddings of all clips under all encoders, computed once and read from the store after that.

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object), an encoder's name, or a list of them.
    ``shard``: only these clips, as ``part`` picks them. The other options are those of ``Options``. Clips that cannot
    be used are in ``status``.
    """
    options, clips = Options(device, jobs, strict, retry, rehash), part(clips, shard)
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
    shard: str | Shard | None = None,
    workspace: str | Path = ".",
) -> pd.DataFrame:
    """Compute what the store lacks of clips, or of a shard of them, and read nothing of what it has.

    Returns their status, indexed by id: columns status ("done", "rejected" or "failed"), reason, detail, flags.
    """
    return _settle(part(clips, shard), resolve(encoders, workspace), store, options, load=False)[1]


def part(clips: pd.DataFrame, shard: str | Shard | None) -> pd.DataFrame:
    """The clips of a shard ("i/N", "auto", None for all): each N-th audio file with all of its segments.

    Raises ``UsageError``.
    """
    return clips[clips["path"].isin(parallel.shard_of(shard).every(list(dict.fromkeys(clips["path"]))))]


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
    known = Known({key: reason for each in sets for key, reason in each.rejections(keys).items()})
    absent = {key for each in sets for key in each.missing(keys)} - set(known.reasons)
    known.listen(sets, [key for key in dict.fromkeys(keys) if key not in absent and key not in known.reasons])
    table = known.table(clips, found, refused)
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


Loaded = dict[str, tuple[list[str], FeatureArray]]


def _settle(
    clips: pd.DataFrame, recipe: FeatureRecipe, store: str | Path, options: Options, *, load: bool
) -> tuple[dict[str, Clip], pd.DataFrame, Loaded]:
    """Bring every clip to an end under every encoder of a recipe.

    Returns the clips with a readable file by id, the status of all, and, if they are to be loaded, for each feature set
    the keys and embeddings of the clips that are done in it.
    """
    # A GPU is left to the workers; what an encoder is does not depend on the device.
    device = devices.find_device(options.device) if parallel.workers(options.jobs).is_local else "cpu"
    found, refused = find(clips, store, rehash=options.rehash)
    wanted = {clip.key: clip for clip in found.values()}
    known = Known()
    arrays: Loaded = {}
    for tables in _groups(recipe.tables()):
        loaded = load_encoders(tables, device if options.are_here() else "cpu")
        sets = [FeatureSet(store, feature_spec(table, each)) for table, each in zip(tables, loaded, strict=True)]
        settled = _complete(sets, tables, wanted, store, options)
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
                settled |= _complete(sets, tables, wanted, store, replace(options, retry=False))
        known.reasons.update(settled)
        known.listen(sets, [key for key in wanted if key not in settled])
    return found, known.table(clips, found, refused, strict=options.strict), arrays


def _groups(tables: list[EncoderRecipe]) -> list[list[EncoderRecipe]]:
    """Tables whose encoders run side by side, so that each clip is decoded once for all of them."""
    return [tables[first : first + TOGETHER] for first in range(0, len(tables), TOGETHER)]


def _complete(
    sets: Sequence[FeatureSet],
    tables: list[EncoderRecipe],
    wanted: Mapping[str, Clip],
    store: str | Path,
    options: Options,
) -> dict[str, Reason]:
    """Compute what the feature sets lack. Returns (reason, detail) of the clips that are not done, by key."""
    missing = [frozenset(each.missing(wanted, retry=options.retry)) for each in sets]
    lacking = [clip for key, clip in wanted.items() if any(key in keys for keys in missing)]
    todo = [clip for clip in lacking if clip.file]
    label = ", ".join(each.spec.name for each in sets)
    absent = "missing", f"there is no audio, and the import does not hold its embedding under {label}"
    unsettled: dict[str, Reason] = {clip.key: absent for clip in lacking if not clip.file}
    if todo:
        for each in sets:
            each.prepare()
        told = tables if options.are_here() else list(map(for_any_folder, tables))
        planned = plan_tasks(sets, told, todo, missing, CHUNK, absolute(store), options.device, options.threads())
        unsettled |= _carry_out(planned, sets, len(wanted) - len(todo), options)
        for each in sets:
            each.refresh()
    keys = list(wanted)
    return {key: reason for each in sets for key, reason in each.rejections(keys).items()} | unsettled


def _carry_out(tasks: list[Task], sets: Sequence[FeatureSet], stored: int, options: Options) -> dict[str, Reason]:
    """Have tasks carried out; what ends its processes again and again is taken apart to find the clip that does it.

    ``stored``: clips that are there already. Returns (reason, detail) of the clips to be tried again, by key.
    """
    begun, total = time.monotonic(), tally.Tally()
    wanted, what = stored + sum(len(task.clips) for task in tasks), f"{CHUNK} clips each"
    label = ", ".join(each.spec.name for each in sets)
    unsettled: dict[str, Reason] = {}
    while tasks:
        apart: list[Task] = []
        lost = partial(_lost, sets, apart)
        reports = parallel.map(encode_chunk, tasks, jobs=options.workers(), device=options.device, lost=lost)
        progress.saved(f"{stored} of {wanted} clips are stored under {label}.")
        with closing(progress.track(reports, len(tasks), f"{label}: {what}")) as tracked:
            for report in tracked:
                unsettled |= report.unsettled
                total += report.tally
                stored = min(stored + report.tally.clips, wanted)
                progress.saved(f"{stored} of {wanted} clips are stored under {label}.")
        tasks, what = apart, "one clip each"
    progress.saved("")
    tally.tell(total, label, time.monotonic() - begun)
    return unsettled


def _lost(sets: Sequence[FeatureSet], apart: list[Task], task: Task) -> Report:
    """What stands for a task that ended its processes: ``apart`` takes its parts; the only clip of one is rejected."""
    parts = task.apart()
    if len(parts) > 1:
        log.warning("%s ended three processes; each clip is now tried by itself.", task.label)
        apart += parts
        return Report()
    (clip,), (lack,) = task.clips, task.lacking
    for each in sets:
        if each.spec.fingerprint == lack.fingerprint:
            each.write([], {clip.key: ("worker_killed", audio.REASONS["worker_killed"], Path(clip.file).name)})
    return Report(tally=tally.Tally(clips=1))


def _array(each: FeatureSet, keys: Sequence[str]) -> FeatureArray:
    rows = each.gather(keys)
    raw = pooling.clip_means(rows.unit, rows.norm, rows.frames, rows.clip)
    facts = each.spec.encoder
    return FeatureArray(
        each.spec.name, each.spec.fingerprint, facts.names(), raw, each, each.spec.frames, float(facts.hop)
    )
