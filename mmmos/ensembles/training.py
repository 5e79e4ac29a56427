"""``train``: fit every head of a recipe's grid on stored features; finished runs are on disk at once, never repeated.

On a CPU a run has the same bits whatever is trained with it, so that nothing depends on the grid, on ``jobs`` or on an
interruption. On a GPU groups are planned from the whole grid and trained whole: the same grid gives the same bits.
"""

import logging
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import manifest, parallel, progress
from mmmos.ensembles import runs
from mmmos.ensembles.data import OUT_OF_FOLD, Data, gather, scores_of, sets_of
from mmmos.ensembles.engine.groups import Group, plan, together
from mmmos.ensembles.fitting import fit
from mmmos.ensembles.heads import columns
from mmmos.ensembles.one_thread import one_thread
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.recipe import EnsembleRecipe, read_recipe
from mmmos.ensembles.runs import Predictions, run_key
from mmmos.ensembles.spec import HeadSpec
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
    device: str = "cpu",
    exact: bool = False,
    workspace: str | Path = ".",
) -> Pool:
    """The pool of all heads of a recipe, trained on the clips of its ``train`` sets that have features and all scores.

    ``recipe``: a name, a path or an ``EnsembleRecipe``. ``clips``: a manifest, with a column ``set`` when it holds
    several. ``folder``: where runs are kept, under the recipe's name. ``jobs``: processes (0: one for each core when it
    takes long). ``device``: where neural heads are trained, a CUDA GPU or the CPU ("auto": a GPU if there is one; "mps"
    is for encoders, heads then take the CPU). ``exact``: every head alone, so that its bits depend on nothing else on a
    GPU either. A head that fails is left out with a warning. Raises ``UsageError`` when all of them do.
    """
    name = name or (Path(recipe).stem if isinstance(recipe, str) else "recipe")
    recipe = read_recipe(recipe, str(workspace)) if isinstance(recipe, str) else recipe
    folder, device = Path(folder) / name, _device(device)
    data = gather(recipe, features, clips)
    specs = keyed_specs(recipe, data, name)
    runs.sweep(folder)
    missing = {key: spec for key, spec in specs.items() if not runs.is_done(folder, key)}
    planned = missing if device == "cpu" else specs
    workers = 1 if device != "cpu" else jobs or parallel.cores()
    groups = plan(planned.values(), features, device, exact=exact, jobs=workers)
    wanted = frozenset(missing.values())
    groups = [group for group in groups if not wanted.isdisjoint(group.specs)]
    task = partial(_train_group, data.for_fitting(), folder, device)
    failed, there = {}, len(specs) - len(missing)
    with closing(parallel.map(task, groups, jobs=jobs if device == "cpu" else 1)) as results:
        trained_heads = (each for some in results for each in some if each[0] in missing)
        with closing(progress.track(trained_heads, len(missing), "training heads")) as finished:
            for number, (key, error) in enumerate(finished, start=there + 1):
                progress.saved(f"{number} of {len(specs)} heads are trained.")
                if error:
                    failed[key] = error
    progress.saved("")
    return _pool(name, folder, recipe, data, specs, clips, failed, jobs)


def trained(recipe: EnsembleRecipe, features: Features, clips: pd.DataFrame, *, folder: Path, name: str) -> Pool:
    """The pool of the heads that are trained already. Raises ``UsageError`` when there are none."""
    data = gather(recipe, features, clips)
    specs = keyed_specs(recipe, data, name)
    done = {key: spec for key, spec in specs.items() if runs.is_done(folder / name, key)}
    if not done:
        raise UsageError(f"None of the {len(specs)} heads of {name!r} is trained on these clips; train them first.")
    return _pool(name, folder / name, recipe, data, done, clips, {}, 0)


def keyed_specs(recipe: EnsembleRecipe, data: Data, name: str = "recipe") -> dict[str, HeadSpec]:
    """The heads of a recipe by the names of their run folders."""
    layers = {name: array.layer_names for name, array in data.features.sets.items()}
    specs = recipe.specs(layers, f"the ensemble recipe {name!r}")
    kinds = {spec: (spec.features, spec.folds == 1, columns(spec), spec.target, spec.importance) for spec in specs}
    of_kind = {kind: spec for spec, kind in kinds.items()}
    digests = {kind: data.digest(spec) for kind, spec in of_kind.items()}
    return {run_key(spec, digests[kind]): spec for spec, kind in kinds.items()}


def _device(device: str) -> str:
    """Where heads are trained."""
    if device == "cpu":
        return device
    from mmmos.features.encoders import find_device

    found = find_device(device)
    return found if found.startswith("cuda") else "cpu"


Outcome = tuple[str, str | None]


def _train_group(data: Data, folder: Path, device: str, group: Group) -> list[Outcome]:
    """Train a group and write its runs; the key of each, and what went wrong or None.

    What a head raises costs that head only: if it breaks its group, the others are trained without it.
    """
    begun = time.perf_counter()
    try:
        with one_thread():
            results = list(fit(group.specs, data, device=device, together=group.together))
    except Exception as error:
        if len(group.specs) > 1:
            alone = [Group((spec,), group.together) for spec in group.specs]
            return [each for one in alone for each in _train_group(data, folder, device, one)]
        results = [(group.specs[0], error)]
    share = (time.perf_counter() - begun) / len(results)
    for _, result in results:
        if isinstance(result, runs.Run):
            runs.save_run(result, folder, share)
    return [(_key(spec, result, data), _sentence(result)) for spec, result in results]


def _key(spec: HeadSpec, result: runs.Run | Exception, data: Data) -> str:
    return result.key if isinstance(result, runs.Run) else run_key(spec, data.digest(spec))


def _sentence(result: runs.Run | Exception) -> str | None:
    """What went wrong, None for a run."""
    if isinstance(result, runs.Run):
        return None
    known = isinstance(result, ValueError | ArithmeticError | UsageError)
    return str(result) if known else f"{type(result).__name__}: {result}"


def _pool(
    name: str,
    folder: Path,
    recipe: EnsembleRecipe,
    data: Data,
    specs: dict[str, HeadSpec],
    clips: pd.DataFrame,
    failed: dict[str, str],
    jobs: int,
) -> Pool:
    """Predictions of trained runs on every set of the manifest, and the truth of the sets that are not sealed."""
    found = _everything(folder, specs, data, failed, jobs)
    specs = {key: specs[key] for key in found}
    scores = np.stack([each.scores for each in found.values()])
    clips = clips.loc[pd.Index(data.features.ids, dtype=object)]
    sets, axes = sets_of(clips).to_numpy(), list(recipe.axes)
    rows = {str(each): np.flatnonzero(sets == each) for each in dict.fromkeys(sets)}
    parts = {each: scores[:, part] for each, part in rows.items()}
    open_sets = recipe.open_sets(rows)
    if recipe.kept_out_of_folds():
        out_of_fold = np.stack([each.out_of_fold for each in found.values()])
        # Clips that were trained on are predicted by the heads that did not see them, in every set.
        scores = scores.copy()
        scores[:, data.rows] = out_of_fold
        parts = {each: scores[:, part] for each, part in rows.items()}
        rows[OUT_OF_FOLD], parts[OUT_OF_FOLD] = data.rows, out_of_fold
        open_sets.append(OUT_OF_FOLD)
    truth = {each: scores_of(clips.iloc[rows[each]], axes) for each in open_sets}
    truth = {each: values for each, values in truth.items() if np.isfinite(values).any()}
    systems = {each: _systems(clips.iloc[part]) for each, part in rows.items()}
    ids = {each: tuple(clips.index[part]) for each, part in rows.items()}
    domains = {each: _domains(clips.iloc[part]) for each, part in rows.items()}
    learned = manifest.digest(clips.iloc[data.rows], axes)
    heads = tuple(specs.values()), tuple(specs)
    return Pool(name, folder, learned, tuple(axes), *heads, ids, parts, truth, systems, domains)


def _everything(
    folder: Path, specs: dict[str, HeadSpec], data: Data, failed: dict[str, str], jobs: int
) -> dict[str, Predictions]:
    """What each run predicts for all clips. Warns of the runs that failed, here or in ``failed``, and leaves them out.

    Raises ``UsageError`` when none is left.
    """
    digest = data.features.digest(sorted(data.features.sets)) + key_of(list(data.features.ids))
    left = [(key, spec) for key, spec in specs.items() if key not in failed]
    with closing(parallel.map(partial(_predictions, folder, data, digest), left, jobs=jobs)) as results:
        said = dict(progress.track(results, len(left), "reading heads"))
    found = {key: each for key, _ in left if isinstance(each := said[key], Predictions)}
    failed = failed | {key: each for key, each in said.items() if isinstance(each, str)}
    for reason in dict.fromkeys(failed.values()):
        names = [specs[key].name for key, other in failed.items() if other == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("The head %r%s failed and is left out: %s", names[0], more, reason)
    if not found:
        raise UsageError("No head could be trained; the warnings above say why.")
    return found


def _predictions(folder: Path, data: Data, digest: str, run: tuple[str, HeadSpec]) -> tuple[str, Predictions | str]:
    """The key of a run, and what it predicts for all clips or a sentence about what went wrong."""
    key, spec = run
    kept = runs.stored(folder, key, digest)
    if kept is not None:
        return key, kept
    try:
        with one_thread():
            return key, _repaired(folder, data, digest, key, spec)
    except (ValueError, StoreError) as error:
        return key, str(error)


def _repaired(folder: Path, data: Data, digest: str, key: str, spec: HeadSpec) -> Predictions:
    """What a run predicts for all clips; a damaged run is trained again."""
    try:
        return runs.predictions(folder, key, data.features, digest)
    except StoreError as error:
        log.warning("%s It is trained again.", str(error).partition(" Delete its folder")[0])
    runs.delete_run(folder, key)
    ((_, failure),) = _train_group(data, folder, "cpu", Group((spec,), together(spec, data.features, "cpu")))
    if failure:
        raise ValueError(failure)
    return runs.predictions(folder, key, data.features, digest)


def _systems(clips: pd.DataFrame) -> NDArray[np.object_] | None:
    """System of each clip, None unless every clip has one."""
    if "system" not in clips or clips["system"].isna().any():
        return None
    return clips["system"].to_numpy(object)


def _domains(clips: pd.DataFrame) -> NDArray[np.object_]:
    """Domain of each clip, "" where it is unknown."""
    if "domain" not in clips:
        return np.full(len(clips), "", object)
    return clips["domain"].map(lambda name: "" if pd.isna(name) else str(name)).to_numpy(object)
