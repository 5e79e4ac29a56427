"""Clips brought to an end: what feature sets lack of them becomes tasks, which are carried out wherever they run."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from mmmos import audio, parallel, progress
from mmmos.features import devices, pooling
from mmmos.features.extraction import tally
from mmmos.features.extraction.clips import Clip, Reason, find
from mmmos.features.extraction.options import Options
from mmmos.features.extraction.status import Known
from mmmos.features.extraction.tasks import Report, Task, absolute, for_any_folder, plan_tasks
from mmmos.features.extraction.work import encode_chunk, feature_spec, load_encoders
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import FeatureSet
from mmmos.features.store.shard import DamagedShard
from mmmos.features.table import FeatureArray

log = logging.getLogger("mmmos")

CHUNK = 32
TOGETHER = 4
_ATTEMPTS = 3

Loaded = dict[str, tuple[list[str], FeatureArray]]


def settle(
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
