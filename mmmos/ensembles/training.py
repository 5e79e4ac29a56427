"""``train``: fit every head of a recipe's grid on stored features; finished runs are on disk at once, never repeated.

Each run is trained in one thread and knows nothing of the others, so that its numbers do not depend on the grid, on
``jobs`` or on an interruption.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import manifest, parallel, progress
from mmmos.ensembles import runs
from mmmos.ensembles.data import OUT_OF_FOLD, SEALED, Data, gather, scores_of, sets_of
from mmmos.ensembles.fitting import fit
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.runs import Predictions, run_key
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
    jobs: int = 0,
    workspace: str | Path = ".",
) -> Pool:
    """The pool of all heads of a recipe, trained on the clips of its ``train`` sets that have features and all scores.

    ``recipe``: a name, a path or an ``EnsembleRecipe``. ``clips``: a manifest, with a column ``set`` when it holds
    several. ``folder``: where runs are kept, under the recipe's name. ``jobs``: processes (0: one for each core when it
    takes long). A head that fails is left out with a warning. Raises ``UsageError`` when all of them do.
    """
    name = name or (Path(recipe).stem if isinstance(recipe, str) else "recipe")
    recipe = read_recipe(recipe, str(workspace)) if isinstance(recipe, str) else recipe
    folder = Path(folder) / name
    data = gather(recipe, features, clips)
    specs = keyed_specs(recipe, data, name)
    runs.sweep(folder)
    todo = [spec for key, spec in specs.items() if not runs.is_done(folder, key)]
    results = parallel.map(partial(_train_one, data.for_fitting(), folder), todo, jobs=jobs)
    failed = {}
    with closing(progress.track(results, len(todo), "training heads")) as finished:
        for number, (key, error) in enumerate(finished, start=len(specs) - len(todo) + 1):
            progress.saved(f"{number} of {len(specs)} heads are trained.")
            if error:
                failed[key] = error
    progress.saved("")
    return _pool(name, folder, recipe, data, specs, clips, failed)


def trained(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame, *, folder: Path, name: str) -> Pool:
    """The pool of the heads that are trained already. Raises ``UsageError`` when there are none."""
    data = gather(recipe, features, clips)
    specs = keyed_specs(recipe, data, name)
    done = {key: spec for key, spec in specs.items() if runs.is_done(folder / name, key)}
    if not done:
        raise UsageError(f"None of the {len(specs)} heads of {name!r} is trained on these clips; train them first.")
    return _pool(name, folder / name, recipe, data, done, clips, {})


def keyed_specs(recipe: EnsembleRecipe, data: Data, name: str = "recipe") -> dict[str, HeadSpec]:
    """The heads of a recipe by the names of their run folders."""
    layers = {name: array.layer_names for name, array in data.features.sets.items()}
    specs = recipe.specs(layers, f"the ensemble recipe {name!r}")
    kinds = {(spec.features, spec.folds == 1): spec for spec in specs}
    digests = {kind: data.digest(spec) for kind, spec in kinds.items()}
    return {run_key(spec, digests[spec.features, spec.folds == 1]): spec for spec in specs}


def _train_one(data: Data, folder: Path, spec: HeadSpec) -> tuple[str, str | None]:
    """Train a run and write it; its key, and what went wrong or None. Whatever a head raises costs that head only."""
    try:
        with _one_thread():
            run = fit(spec, data)
    except Exception as error:
        known = isinstance(error, ValueError | ArithmeticError | UsageError)
        return run_key(spec, data.digest(spec)), str(error) if known else f"{type(error).__name__}: {error}"
    runs.save_run(run, folder)
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
    name: str,
    folder: Path,
    recipe: EnsembleRecipe,
    data: Data,
    specs: dict[str, HeadSpec],
    clips: pd.DataFrame,
    failed: dict[str, str],
) -> Pool:
    """Predictions of trained runs on every set of the manifest, and the truth of the sets that are not sealed."""
    found = _everything(folder, specs, data, failed)
    specs = {key: specs[key] for key in found}
    scores = np.stack([each.scores for each in found.values()])
    clips = clips.loc[list(data.features.ids)]
    sets, axes = sets_of(clips).to_numpy(), list(recipe.axes)
    rows = {str(each): np.flatnonzero(sets == each) for each in dict.fromkeys(sets)}
    parts = {each: scores[:, part] for each, part in rows.items()}
    if all(spec.folds > 1 for spec in specs.values()):
        rows[OUT_OF_FOLD] = data.rows
        parts[OUT_OF_FOLD] = np.stack([each.out_of_fold for each in found.values()])
    open_sets = {each: part for each, part in rows.items() if each not in {*SEALED, *recipe.train}}
    truth = {each: scores_of(clips.iloc[part], axes) for each, part in open_sets.items()}
    truth = {each: values for each, values in truth.items() if np.isfinite(values).any()}
    systems = {each: _systems(clips.iloc[part]) for each, part in rows.items()}
    ids = {each: tuple(clips.index[part]) for each, part in rows.items()}
    learned = manifest.digest(clips.iloc[data.rows], axes)
    return Pool(name, folder, learned, tuple(axes), tuple(specs.values()), tuple(specs), ids, parts, truth, systems)


def _everything(folder: Path, specs: dict[str, HeadSpec], data: Data, failed: dict[str, str]) -> dict[str, Predictions]:
    """What each run predicts for all clips. Warns of the runs that failed, here or in ``failed``, and leaves them out.

    Raises ``UsageError`` when none is left.
    """
    digest = data.features.digest(sorted(data.features.sets)) + key_of(list(data.features.ids))
    found, failed = {}, dict(failed)
    with _one_thread():
        for key, spec in progress.track(specs.items(), len(specs), "reading heads"):
            if key in failed:
                continue
            try:
                found[key] = _predictions(folder, key, spec, data, digest)
            except (ValueError, StoreError) as error:
                failed[key] = str(error)
    for reason in dict.fromkeys(failed.values()):
        names = [specs[key].name for key, other in failed.items() if other == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("The head %r%s failed and is left out: %s", names[0], more, reason)
    if not found:
        raise UsageError("No head could be trained; the warnings above say why.")
    return found


def _predictions(folder: Path, key: str, spec: HeadSpec, data: Data, digest: str) -> Predictions:
    """What a run predicts for all clips; a damaged run is trained again."""
    try:
        return runs.predictions(folder, key, data.features, digest)
    except StoreError as error:
        log.warning("%s It is trained again.", str(error).partition(" Delete its folder")[0])
    runs.delete_run(folder, key)
    _, failure = _train_one(data, folder, spec)
    if failure:
        raise ValueError(failure)
    return runs.predictions(folder, key, data.features, digest)


def _systems(clips: pd.DataFrame) -> NDArray[np.object_] | None:
    """System of each clip, None unless every clip has one."""
    if "system" not in clips or clips["system"].isna().any():
        return None
    return clips["system"].to_numpy(object)
