"""What a worker does for a pool: it trains a group of heads, or has a run predict; the files are in the runs' folder
when it answers with a small record.
"""

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from mmmos import parallel
from mmmos.ensembles import runs
from mmmos.ensembles.one_thread import one_thread
from mmmos.ensembles.runs import run_key
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import Data
from mmmos.ensembles.training.engine.groups import Group, plan, together
from mmmos.ensembles.training.fitting import fit
from mmmos.errors import StoreError, UsageError
from mmmos.features.devices import find_device
from mmmos.features.table import Features
from mmmos.parallel import Workers
from mmmos.parallel.job import LIMIT

log = logging.getLogger("mmmos")

# The key of a run, and what went wrong or None.
Outcome = tuple[str, str | None]

# Shows that workers live, where the heads that are left may be those that end them.
NO_HEADS = Group((), 1)
# What is said of a head or run whose process never comes to its end.
KILLED = f"the process at work on it was killed {LIMIT} times, most likely because memory ran out"


def plan_there(features: Features, exact: bool, device: str, specs: Sequence[HeadSpec]) -> tuple[str, list[Group]]:
    """What "auto" means for heads where this runs, "cuda" or "cpu"; on a GPU also the groups of all specs that suit it.

    ``features``: one clip is enough. Raises ``UsageError`` for a device that is not there.
    """
    found = "cpu" if device == "cpu" else find_device(device)
    if not found.startswith("cuda"):
        return "cpu", []
    return "cuda" if device == "auto" else device, plan(specs, features, found, exact=exact, jobs=1)


def train_groups(
    data: Data, folder: Path, device: str, groups: Sequence[Group], workers: Workers
) -> Generator[Outcome]:
    """What came of each head, as its group is ready.

    The heads of a group whose process was killed ``LIMIT`` times are tried one by one.
    """
    killed: list[Group] = []

    def set_aside(group: Group) -> list[Outcome]:
        killed.append(group)
        return []

    task = partial(train_group, data, folder, device)
    with closing(parallel.map(task, groups, jobs=workers, device=device, lost=set_aside)) as results:
        yield from (each for some in results for each in some)
    yield from ((_key(group.specs[0], data), KILLED) for group in killed if len(group.specs) == 1)
    alone = [each for group in killed if len(group.specs) > 1 for each in _alone(group)]
    if alone:
        # Not in this process, and with little else in memory.
        few = replace(workers, jobs=2) if workers.is_local else workers
        yield from train_groups(data, folder, device, [NO_HEADS, *alone], few)


def _alone(group: Group) -> list[Group]:
    return [Group((spec,), group.together) for spec in group.specs]


def train_group(data: Data, folder: Path, device: str, group: Group) -> list[Outcome]:
    """Train a group and write its runs; of several GPUs "cuda" is this worker's own.

    What a head raises costs that head only: if it breaks its group, the others are trained without it.
    """
    begun, device = time.perf_counter(), find_device(device)
    try:
        with one_thread():
            results = list(fit(group.specs, data, device=device, together=group.together))
    except Exception as error:
        if len(group.specs) > 1:
            return [each for one in _alone(group) for each in train_group(data, folder, device, one)]
        results = [(group.specs[0], error)]
    share = (time.perf_counter() - begun) / max(len(results), 1)
    for _, result in results:
        if isinstance(result, runs.Run):
            runs.save_run(result, folder, share)
    return [
        (result.key, None) if isinstance(result, runs.Run) else (_key(spec, data), _sentence(result))
        for spec, result in results
    ]


def _key(spec: HeadSpec, data: Data) -> str:
    return run_key(spec, data.digest(spec))


def _sentence(error: Exception) -> str:
    known = isinstance(error, ValueError | ArithmeticError | UsageError)
    return str(error) if known else f"{type(error).__name__}: {error}"


def predict(folder: Path, data: Data, digest: str, run: tuple[str, HeadSpec]) -> Outcome:
    """Write what a run predicts for all clips, whose features have this digest; a damaged run is trained again."""
    key, spec = run
    try:
        with one_thread():
            _predict(folder, data, digest, key, spec)
    except (ValueError, StoreError) as error:
        return key, str(error)
    return key, None


def _predict(folder: Path, data: Data, digest: str, key: str, spec: HeadSpec) -> None:
    try:
        runs.predictions(folder, key, data.features, digest)
        return
    except StoreError as error:
        log.warning("%s It is trained again.", str(error).partition(" Delete its folder")[0])
    runs.delete_run(folder, key)
    ((_, failure),) = train_group(data, folder, "cpu", Group((spec,), together(spec, data.features, "cpu")))
    if failure:
        raise ValueError(failure)
    runs.predictions(folder, key, data.features, digest)
