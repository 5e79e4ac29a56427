"""``train``: fit every head of a recipe's grid on stored features; finished runs are on disk at once, never repeated.

On a CPU a run has the same bits whatever is trained with it, so that nothing depends on the grid, on the machines and
processes, on shards or on an interruption. On a GPU groups are planned from the whole grid and trained whole: the same
grid gives the same bits.
"""

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from mmmos import parallel, progress
from mmmos.ensembles import runs
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.engine.groups import Group, plan
from mmmos.ensembles.training.predicting import NONE_TRAINED, pool_of, warn
from mmmos.ensembles.training.wanted import Wanted, wanted_heads
from mmmos.ensembles.training.work import NO_HEADS, plan_there, train_groups
from mmmos.errors import UsageError
from mmmos.features.devices import processes
from mmmos.features.table import Features
from mmmos.parallel import Jobs, Shard, Workers, shard_of

# Processes that groups are cut for on a cluster that does not say how many it has.
PROCESSES = 32


@dataclass(frozen=True)
class Part:
    """How far a shard of a recipe's heads is: ``trained`` of its own, and of the ``wanted`` heads of all shards those
    that are ``there``.
    """

    name: str
    shard: Shard
    trained: int
    there: int
    wanted: int

    def __str__(self) -> str:
        return (
            f"shard {self.shard}: {self.trained} heads trained; {self.there} of {self.wanted} heads of {self.name} are"
            " there."
        )


def train(
    recipe: str | EnsembleRecipe,
    features: Features,
    clips: pd.DataFrame,
    *,
    folder: str | Path = "ensembles",
    name: str | None = None,
    jobs: Jobs = 0,
    device: str = "cpu",
    exact: bool = False,
    workspace: str | Path = ".",
) -> Pool:
    """The pool of all heads of a recipe, trained on the clips of its ``train`` sets that have features and all scores.

    ``recipe``: a name, a path or an ``EnsembleRecipe``. ``clips``: a manifest, with a column ``set`` when it holds
    several. ``folder``: where runs are kept, under the recipe's name. ``jobs``: processes (0: one for each core when it
    takes long), or ``parallel.Workers`` of a cluster, which see the folder and the store at the same paths. ``device``:
    where neural heads are trained, a CUDA GPU or the CPU ("auto": a GPU if there is one; "mps" is for encoders, heads
    then take the CPU). ``exact``: every head alone, so that its bits depend on nothing else on a GPU either. A head
    that fails is left out with a warning.

    ``pool.scores`` of each set are (runs, clips, axes) float32, in score units; of "oof", the training clips, each is
    predicted by heads that did not see it. Raises ``RecipeError`` for a recipe that does not fit the features,
    ``UsageError`` when all heads fail.

    >>> pool = mmmos.train("quick", features, clips)
    >>> pool.scores["pam"].shape
    (36, 12, 4)
    """
    wanted = wanted_heads(recipe, features, clips, folder=folder, name=name, workspace=workspace)
    _, failed = _train_missing(wanted, Shard(), jobs, device, exact)
    return pool_of(wanted, clips, failed, jobs)


def train_shard(
    recipe: str | EnsembleRecipe,
    features: Features,
    clips: pd.DataFrame,
    *,
    shard: str | Shard,
    folder: str | Path = "ensembles",
    name: str | None = None,
    jobs: Jobs = 0,
    device: str = "cpu",
    exact: bool = False,
    workspace: str | Path = ".",
) -> Part:
    """Train one part of a recipe's heads and write their runs; ``train`` finds them there when all parts are done.

    ``shard``: "i/N", or "auto" inside a Slurm job; the machines of all shards have a GPU of one kind, or none. The rest
    is as in ``train``. Raises ``UsageError`` when all heads of the shard fail.
    """
    shard = shard_of(shard)
    wanted = wanted_heads(recipe, features, clips, folder=folder, name=name, workspace=workspace)
    own, failed = _train_missing(wanted, shard, jobs, device, exact)
    warn(wanted.specs, failed)
    there = wanted.done() | own - set(failed)
    if own and own <= set(failed):
        raise UsageError(NONE_TRAINED)
    return Part(wanted.name, shard, len(own - set(failed)), len(there), len(wanted.specs))


def trained(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame, *, folder: Path, name: str) -> Pool:
    """The pool of the heads that are trained already. Raises ``UsageError`` when there are none."""
    wanted = wanted_heads(recipe, features, clips, folder=folder, name=name)
    there = wanted.done()
    done = {key: spec for key, spec in wanted.specs.items() if key in there}
    if not done:
        raise UsageError(
            f"None of the {len(wanted.specs)} heads of {name!r} is trained on these clips; train them first."
        )
    return pool_of(replace(wanted, specs=done), clips, {}, 0)


@dataclass(frozen=True)
class _Planned:
    """The part of a shard: the keys of its heads, and the groups in which any is missing, on ``device``."""

    device: str
    own: set[str]
    groups: list[Group]


def _train_missing(
    wanted: Wanted, shard: Shard, jobs: Jobs, device: str, exact: bool
) -> tuple[set[str], dict[str, str]]:
    """Train the heads of a shard that are not there. Returns its keys, and what went wrong with those that failed."""
    runs.sweep(wanted.folder)
    workers, done = parallel.workers(jobs), wanted.done()
    part = _planned(wanted, shard, done, workers, device, exact)
    if part.device != "cpu" and workers.is_local:
        gpus = processes(part.device)
        workers = replace(workers, jobs=min(workers.jobs or gpus, gpus))
    missing, failed = part.own - done, {}
    groups = [NO_HEADS, *part.groups] if done and part.groups else part.groups
    outcomes = train_groups(wanted.data.for_fitting(), wanted.folder.absolute(), part.device, groups, workers)
    with closing(outcomes):
        trained_heads = (outcome for outcome in outcomes if outcome[0] in missing)
        with closing(progress.track(trained_heads, len(missing), "training heads")) as finished:
            for number, (key, error) in enumerate(finished, start=len(done) + 1):
                progress.saved(f"{number} of {len(wanted.specs)} heads are trained.")
                if error:
                    failed[key] = error
    progress.saved("")
    return part.own, failed


def _planned(wanted: Wanted, shard: Shard, done: set[str], workers: Workers, device: str, exact: bool) -> _Planned:
    """On a CPU a shard is a part of the list of heads, on a GPU of the groups of all of them."""
    specs = wanted.specs
    found, groups = _asked_there(wanted.data.features, list(specs.values()), workers, device, exact)
    if found == "cpu":
        own = shard.every(list(specs))
        several = workers.jobs or (parallel.cores() if workers.is_local else PROCESSES)
        missing = [specs[key] for key in own if key not in done]
        return _Planned(found, set(own), plan(missing, wanted.data.features, found, exact=exact, jobs=several))
    keys = {spec: key for key, spec in specs.items()}
    by_group = [({keys[spec] for spec in group.specs}, group) for group in shard.every(groups)]
    own_keys = {key for some, _ in by_group for key in some}
    return _Planned(found, own_keys, [group for some, group in by_group if not some <= done])


def _asked_there(
    features: Features, specs: list[HeadSpec], workers: Workers, device: str, exact: bool
) -> tuple[str, list[Group]]:
    """``plan_there`` where the heads will be trained: on this machine, or in a worker of the cluster at an address."""
    task = partial(plan_there, features.of(features.ids[:1]), exact, device)
    if device == "cpu" or workers.address is None:
        return task(specs)
    with closing(parallel.map(task, [specs], jobs=workers, device=device)) as answers:
        return next(answers)
