"""``train``: fit every head of a recipe's grid on stored features; finished runs are on disk at once, never repeated.

Each run is trained in one thread and
knows nothing of the others, so that its numbers do not depend on the grid, on ``jobs`` or on an interruption.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import manifest, parallel, progress
from mmmos.ensembles import runs
from mmmos.ensembles.data import SEALED, Data, gather
from mmmos.ensembles.fitting import fit
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.runs import run_key
from mmmos.ensembles.spec import EnsembleRecipe, HeadSpec, read_recipe
from mmmos.errors import StoreError, UsageError
from mmmos.features.table import Features
from mmmos.files import key_of

log = logging.getLogger("mmmos")


def train(
    recipe: str | EnsembleRecipe,
    features: Features,
    clips: pd.DataFrame,
    *,
    folder: str | Path = "ensembles",
    name: str | None = None,
    jobs: int = 1,
    workspace: str | Path = ".",
) -> Pool:
    """The pool of all heads of a recipe, trained on the clips of its ``train`` sets that have features and all scores.

    ``recipe``: a name, a path or an ``EnsembleRecipe``. ``clips``: a manifest, with a column ``set`` when it holds
    several. ``folder``: where runs are kept, under the recipe's name. ``jobs``: processes (0: one for each core).
    """
    name = name or (Path(recipe).stem if isinstance(recipe, str) else "recipe")
    recipe = read_recipe(recipe, str(workspace)) if isinstance(recipe, str) else recipe
    folder = Path(folder) / name
    data = gather(recipe, features, clips)
    specs = keyed_specs(recipe, data, name)
    todo = [spec for key, spec in specs.items() if not runs.is_done(folder, key)]
    results = parallel.map(partial(_train_one, data, folder), todo, jobs=jobs)
    failed = {key: error for key, error in progress.track(results, len(todo), "training heads") if error}
    for key, error in failed.items():
        log.warning("The head %r failed and is left out: %s", specs[key].name, error)
    done = {key: spec for key, spec in specs.items() if key not in failed}
    if not done:
        raise UsageError("No head could be trained; the warnings above say why.")
    return _pool(name, folder, recipe, data, done, clips)


def keyed_specs(recipe: EnsembleRecipe, data: Data, name: str = "recipe") -> dict[str, HeadSpec]:
    """The heads of a recipe by the names of their run folders."""
    specs = recipe.specs(list(data.features.sets), f"the ensemble recipe {name!r}")
    kinds = {(spec.features, spec.folds == 1): spec for spec in specs}
    digests = {kind: data.digest(spec) for kind, spec in kinds.items()}
    return {run_key(spec, digests[spec.features, spec.folds == 1]): spec for spec in specs}


def _train_one(data: Data, folder: Path, spec: HeadSpec) -> tuple[str, str | None]:
    """Train a run and write it; its key, and what went wrong or None."""
    try:
        with _one_thread():
            run = fit(spec, data)
        runs.save_run(run, folder)
    except (ValueError, ArithmeticError, UsageError) as error:
        return run_key(spec, data.digest(spec)), str(error)
    return run.key, None


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread in torch and in BLAS, so that sums have one order everywhere."""
    import torch
    from threadpoolctl import threadpool_limits

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _pool(
    name: str, folder: Path, recipe: EnsembleRecipe, data: Data, specs: dict[str, HeadSpec], clips: pd.DataFrame
) -> Pool:
    """Predictions of trained runs on every set of the manifest, and the truth of the sets that are not sealed."""
    features = data.features
    digest = features.digest(sorted(features.sets)) + key_of(list(features.ids))
    with _one_thread():
        everything = {key: _predictions(folder, key, spec, data, digest) for key, spec in specs.items()}
    scores = np.stack(list(everything.values()))
    clips = clips.loc[list(features.ids)]
    sets = (clips["set"] if "set" in clips else pd.Series("train", clips.index)).to_numpy()
    axes = list(recipe.axes)
    rows = {str(each): np.flatnonzero(sets == each) for each in dict.fromkeys(sets)}
    parts = {each: scores[:, part] for each, part in rows.items()}
    folded = [key for key, spec in specs.items() if spec.folds > 1]
    if len(folded) == len(specs):
        rows["oof"] = data.rows
        parts["oof"] = np.stack([runs.load_run(folder, key).out_of_fold for key in specs])
    open_sets = {each: part for each, part in rows.items() if each not in {*SEALED, *recipe.train}}
    truth = {each: clips.iloc[part][axes].to_numpy(np.float64) for each, part in open_sets.items()}
    truth = {each: values for each, values in truth.items() if np.isfinite(values).any()}
    systems = {each: _systems(clips.iloc[part]) for each, part in rows.items()}
    ids = {each: tuple(clips.index[part]) for each, part in rows.items()}
    learned = manifest.digest(clips.iloc[data.rows], axes)
    return Pool(name, folder, learned, tuple(axes), tuple(specs.values()), tuple(specs), ids, parts, truth, systems)


def _predictions(folder: Path, key: str, spec: HeadSpec, data: Data, digest: str) -> NDArray[np.float32]:
    """A run's scores for all clips; a damaged run is trained again."""
    try:
        return runs.predictions(folder, key, data.features, digest)
    except StoreError as error:
        log.warning("%s It is trained again.", error)
        runs.delete_run(folder, key)
        _train_one(data, folder, spec)
        return runs.predictions(folder, key, data.features, digest)


def _systems(clips: pd.DataFrame) -> NDArray[np.object_] | None:
    """System of each clip, None unless every clip has one."""
    if "system" not in clips or clips["system"].isna().any():
        return None
    return clips["system"].to_numpy(object)
