"""A run: one trained ``HeadSpec`` in a folder of its own, written whole or not at all.

    <recipe>/<key>/run.json                  spec, digest of the training data, epochs of each head, SHA-256 of arrays
    <recipe>/<key>/head.safetensors          arrays of each fold's head, target scale, calibration, out-of-fold scores
    <recipe>/<key>/predictions.safetensors   scores of the clips last asked for, and the out-of-fold scores
    <recipe>/<key>/times.json                s of wall time: fit, and predict for a number of clips

``key`` is the first 16 hex digits of the SHA-256 of the spec and the training data. Nothing stored is
code. Times are no part of a run: no key, record or answer depends on them, and without them it is whole.
"""

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from mmmos import registry
from mmmos.ensembles import heads
from mmmos.ensembles.calibration import Calibration
from mmmos.ensembles.heads.inputs import Pooled, Standardiser, pooled
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import MmmosError, StoreError, UsageError
from mmmos.features.table import Features
from mmmos.files import pretty_json, sync_folder, tensor_bytes, write_atomic

Array = NDArray[np.float64]
Scores = NDArray[np.float32]
Inputs = Any  # Pooled, or frames.Frames, whose module is loaded when a head reads them

ABOUT, ARRAYS, PREDICTIONS, TIMES = "run.json", "head.safetensors", "predictions.safetensors", "times.json"
# Seconds after which a temporary file is of a killed process; writing one takes far less.
STALE = 3600


@dataclass(frozen=True)
class FoldHead:
    """The head of one fold: what standardises its inputs, what is taken from its scores (axes,), its best epoch and how
    many it was trained, counted from 1, zeros for a head that is not trained in epochs.
    """

    standardise: Standardiser
    head: heads.Head
    offset: Array
    epochs: tuple[int, int] = (0, 0)

    def predict(self, inputs: Inputs) -> Scores:
        """Standardised scores (clips, axes) float32; with windows, the means of theirs."""
        if isinstance(inputs, Pooled):
            scores = inputs.means(self.head.predict(self.standardise(inputs.blocks)))
        else:
            scores = self.head.predict(inputs.standardised(self.standardise))
        return (scores - self.offset).astype(np.float32)


@dataclass(frozen=True)
class Run:
    """A trained head, or one for each fold: scores are their mean, brought to the score scale and calibrated.

    ``scale`` (2, axes): mean and standard deviation of the training targets; ``out_of_fold`` (training clips, axes)
    float32, calibrated on the other folds, empty when ``folds`` is 1.
    """

    spec: HeadSpec
    data: str
    members: tuple[FoldHead, ...]
    scale: Array
    calibration: Calibration
    out_of_fold: Scores

    @property
    def key(self) -> str:
        """Name of the run's folder."""
        return run_key(self.spec, self.data)

    def predict(self, features: Features) -> Scores:
        """Scores (clips, axes) float32."""
        return self.scores(np.mean(self.standardised(features), axis=0))

    def standardised(self, features: Features) -> Scores:
        """What each member says (members, clips, axes) float32, standardised."""
        inputs = inputs_of(self.spec, features)
        return np.stack([member.predict(inputs) for member in self.members])

    def scores(self, standardised: Scores) -> Scores:
        """Standardised scores (…, axes) brought to the score scale and calibrated, float32."""
        return self.calibration(standardised.astype(np.float64) * self.scale[1] + self.scale[0]).astype(np.float32)


def inputs_of(spec: HeadSpec, features: Features) -> Inputs:
    """What the head of a spec reads of all clips: pooled vectors or frames."""
    if heads.reads(spec.head) == "pooled":
        return pooled(spec, features)
    from mmmos.ensembles.heads.frames import frames_of

    return frames_of(spec, features)


class Predictions(NamedTuple):
    """What a run says: ``scores`` (clips, axes) of the clips asked for, ``out_of_fold`` as in ``Run``."""

    scores: Scores
    out_of_fold: Scores


def run_key(spec: HeadSpec, data: str) -> str:
    """Name of the folder of a spec trained on data with this digest."""
    return spec.key(data)[:16]


def save_run(run: Run, folder: Path, seconds: float | None = None) -> None:
    """Write a run under a temporary name and rename its folder; ``seconds``: how long it was trained.

    Where another process has written the same run meanwhile, that one stays. Raises ``UsageError`` where the local file
    of its head or its loss is another one than it was trained by.
    """
    _check_code(run)
    arrays = learned_arrays(run) | {"out_of_fold": run.out_of_fold}
    data = tensor_bytes(arrays)
    about = {
        "spec": run.spec.model_dump(mode="json"),
        "data": run.data,
        "epochs": [list(member.epochs) for member in run.members],
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    temporary = folder / f".{run.key}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        write_atomic(temporary / ARRAYS, data)
        write_atomic(temporary / ABOUT, pretty_json(about))
        if seconds is not None:
            write_atomic(temporary / TIMES, pretty_json({"fit": round(seconds, 6)}))
        if not is_done(folder, run.key):
            delete_run(folder, run.key)
            try:
                temporary.rename(folder / run.key)
            except OSError:
                if not is_done(folder, run.key):
                    raise
            sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_code(run: Run) -> None:
    """Raise ``UsageError`` for a run that was trained by a local file that has been edited since."""
    spec, head = run.spec, run.members[0].head
    edited = []
    if registry.is_local(spec.head):
        edited += [spec.head] if registry.load("heads", spec.head) is not type(head) else []
    if registry.is_local(spec.loss) and hasattr(head, "criterion") and not heads.own_loss(spec.head):
        found = registry.load("losses", spec.loss)
        edited += [spec.loss] if found.function is not head.criterion().function else []
    if edited:
        raise UsageError(f"{edited[0]} was edited while a head was being trained by it; train again.")


def learned_arrays(run: Run) -> dict[str, NDArray[Any]]:
    """Everything that a run predicts from, as arrays by name."""
    arrays: dict[str, NDArray[Any]] = {"scale": run.scale}
    arrays |= {f"calibration.{name}": array for name, array in run.calibration.state().items()}
    for number, member in enumerate(run.members):
        arrays[f"{number}.offset"] = member.offset
        arrays |= {f"{number}.standardise.{name}": array for name, array in member.standardise.state().items()}
        arrays |= {f"{number}.head.{name}": array for name, array in member.head.state().items()}
    return arrays


def restored(spec: HeadSpec, data: str, epochs: Sequence[Sequence[int]], arrays: Mapping[str, NDArray[Any]]) -> Run:
    """The run of ``learned_arrays``, without out-of-fold scores where they are not among them. Raises ``KeyError``."""
    members = tuple(_member(spec, part(arrays, str(number)), each) for number, each in enumerate(epochs))
    calibrated = Calibration.from_state(part(arrays, "calibration"))
    out_of_fold = arrays.get("out_of_fold", np.zeros((0, len(spec.axes)), np.float32))
    return Run(spec, data, members, arrays["scale"], calibrated, out_of_fold)


def is_done(folder: Path, key: str) -> bool:
    """True when the folder of a run holds its files."""
    return (folder / key / ABOUT).is_file() and (folder / key / ARRAYS).is_file()


def delete_run(folder: Path, key: str) -> None:
    """Remove a run's folder."""
    shutil.rmtree(folder / key, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished: temporary files and folders that are an hour old."""
    for path in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        try:
            if time.time() - path.stat().st_mtime < STALE:
                continue
        except FileNotFoundError:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def load_run(folder: Path, key: str) -> Run:
    """Read a run. Raises ``StoreError`` when it is damaged."""
    advice = "Delete its folder and train again."
    try:
        about = json.loads((folder / key / ABOUT).read_text(encoding="utf-8"))
        spec = HeadSpec.model_validate(about["spec"])
        data = (folder / key / ARRAYS).read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise StoreError(f"The run {folder / key} is damaged: {ARRAYS} has another checksum. {advice}")
        run = restored(spec, about["data"], about["epochs"], load(data))
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, MmmosError) as error:
        raise StoreError(f"The run {folder / key} cannot be read: {error}. {advice}") from None
    if run.key != key:
        raise StoreError(f"The run {folder / key} holds another run ({run.key}). {advice}")
    return run


def _member(spec: HeadSpec, arrays: dict[str, NDArray[Any]], epochs: Sequence[int]) -> FoldHead:
    best, trained = map(int, epochs)
    standardise = Standardiser.from_state(part(arrays, "standardise"))
    return FoldHead(standardise, heads.make_of(spec).restore(part(arrays, "head")), arrays["offset"], (best, trained))


def part(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """The arrays whose names begin with ``name.``, without it."""
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}


def predictions(folder: Path, key: str, features: Features, digest: str) -> Predictions:
    """What a run predicts for features with this digest, from its folder when it is there.

    Raises ``StoreError`` for a damaged run, ``ValueError`` for scores that are not finite.
    """
    kept = stored(folder, key, digest)
    if kept is not None:
        return kept
    run = load_run(folder, key)
    begun = time.perf_counter()
    found = Predictions(run.predict(features), run.out_of_fold)
    seconds = time.perf_counter() - begun
    if not np.isfinite(found.scores).all():
        raise ValueError("its predictions are not finite; try a lower lr or another normalise")
    write_atomic(
        folder / key / PREDICTIONS, tensor_bytes(found._asdict(), metadata={"of": f"{digest} {_checksum(found)}"})
    )
    taken = times(folder, key) | {"predict": round(seconds, 6), "clips": len(found.scores)}
    write_atomic(folder / key / TIMES, pretty_json(taken))
    return found


def times(folder: Path, key: str) -> dict[str, float]:
    """How long a run took, as far as it is known: ``fit`` and ``predict`` (s of wall time, features being there), the
    latter for ``clips``. Heads that are trained together share their time equally.
    """
    try:
        taken = json.loads((folder / key / TIMES).read_text(encoding="utf-8"))
        return {name: float(taken[name]) for name in ("fit", "predict", "clips") if name in taken}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def stored(folder: Path, key: str, digest: str) -> Predictions | None:
    """Predictions of a run that were written for this digest, None when there are none or they are damaged."""
    try:
        with safe_open(folder / key / PREDICTIONS, framework="numpy") as file:
            written_for, _, checksum = (file.metadata() or {}).get("of", "").partition(" ")
            if written_for != digest:
                return None
            found = Predictions(*(file.get_tensor(name) for name in Predictions._fields))
    except (OSError, SafetensorError):
        return None
    return found if checksum == _checksum(found) else None


def _checksum(found: Predictions) -> str:
    """SHA-256 (hex) of both arrays; it shares one entry with the digest, since safetensors orders several at random."""
    return hashlib.sha256(found.scores.tobytes() + found.out_of_fold.tobytes()).hexdigest()
