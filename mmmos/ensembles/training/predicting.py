"""The pool of trained runs: each predicts every clip once, where the heads are trained, and its folder keeps that."""

import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmmos import manifest, parallel, progress
from mmmos.ensembles import runs
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.runs import Predictions
from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training.data import OUT_OF_FOLD, scores_of, sets_of
from mmmos.ensembles.training.wanted import Wanted
from mmmos.ensembles.training.work import KILLED, predict
from mmmos.errors import UsageError
from mmmos.files import key_of
from mmmos.parallel import Jobs

log = logging.getLogger("mmmos")

UNSEEN = (
    "what it predicts was written by a worker and is not to be seen in {folder}; all hosts have to share that folder"
)
NONE_TRAINED = "No head could be trained; the warnings above say why."
# s within which every host of a shared file system sees what another one wrote; NFS remembers for up to 60 s.
LAG = 60.0


def pool_of(wanted: Wanted, clips: pd.DataFrame, failed: dict[str, str], jobs: Jobs) -> Pool:
    """Predictions of trained runs on every set of the manifest, and the truth of the sets that are not sealed."""
    found, recipe, data = _everything(wanted, failed, jobs), wanted.recipe, wanted.data
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
    heads = tuple(wanted.specs[key] for key in found), tuple(found)
    return Pool(wanted.name, wanted.folder, learned, tuple(axes), *heads, ids, parts, truth, systems, domains)


def _everything(wanted: Wanted, failed: dict[str, str], jobs: Jobs) -> dict[str, Predictions]:
    """What each run predicts for all clips. Warns of the runs that failed, here or in ``failed``, and leaves them out.

    Raises ``UsageError`` when none is left.
    """
    folder, features, workers = wanted.folder, wanted.data.features, parallel.workers(jobs)
    digest = features.digest(sorted(features.sets)) + key_of(list(features.ids))
    left = {key: spec for key, spec in wanted.specs.items() if key not in failed}
    found = _stored(folder, left, digest)
    missing = [(key, spec) for key, spec in left.items() if key not in found]
    task = partial(predict, folder.absolute(), wanted.data, digest)
    with closing(parallel.map(task, missing, jobs=workers, lost=lambda run: (run[0], KILLED))) as results:
        said = dict(progress.track(results, len(missing), "predictions of heads"))
    written = [key for key, error in said.items() if error is None]
    found |= _stored(folder, written, digest, patience=0 if workers.is_local else LAG)
    failed = failed | {key: error for key, error in said.items() if error is not None}
    failed |= {key: UNSEEN.format(folder=folder) for key in written if key not in found}
    warn(wanted.specs, failed)
    if not found:
        raise UsageError(NONE_TRAINED)
    return {key: found[key] for key in left if key in found}


def _stored(folder: Path, keys: Iterable[str], digest: str, *, patience: float = 0.0) -> dict[str, Predictions]:
    """Predictions that are kept for this digest, by the keys of their runs; awaited for up to ``patience`` s."""
    found: dict[str, Predictions] = {}
    absent, until = list(keys), time.monotonic() + patience
    while True:
        found |= {key: each for key in absent if (each := runs.stored(folder, key, digest)) is not None}
        absent = [key for key in absent if key not in found]
        if not absent or time.monotonic() >= until:
            return found
        time.sleep(1)


def warn(specs: Mapping[str, HeadSpec], failed: Mapping[str, str]) -> None:
    """Name the heads that failed, once for each reason."""
    for reason in dict.fromkeys(failed.values()):
        names = [specs[key].name for key, other in failed.items() if other == reason]
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        log.warning("The head %r%s failed and is left out: %s", names[0], more, reason)


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
