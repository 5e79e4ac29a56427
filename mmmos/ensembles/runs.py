"""A run: one trained ``HeadSpec`` in a folder of its own, written whole or not at all.

    <recipe>/<key>/run.json             spec, digest of the training data, scores of the scale, size
    <recipe>/<key>/head.safetensors     arrays of each fold's head, target scale, calibration, out-of-fold predictions
    <recipe>/<key>/predictions.safetensors   predictions for the clips last asked for

``key`` is the first 16 hex digits of the SHA-256 of the spec and the training data. Nothing stored is code.
"""

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from mmmos.ensembles import calibration, heads
from mmmos.ensembles.heads.inputs import Standardiser, blocks_of
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import StoreError
from mmmos.features.table import Features
from mmmos.files import pretty_json, sync_folder, tensor_bytes, write_atomic

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """A trained head, or one for each fold: scores are their mean, brought to the score scale and calibrated.

    ``scale`` (2, axes): mean and standard deviation of the training targets; ``line`` (2, axes): calibration;
    ``out_of_fold`` (training clips, axes) float32, calibrated, empty when ``folds`` is 1.
    """

    spec: HeadSpec
    data: str
    members: tuple[tuple[Standardiser, heads.Head], ...]
    scale: Array
    line: Array
    out_of_fold: NDArray[np.float32]

    @property
    def key(self) -> str:
        """Name of the run's folder."""
        return run_key(self.spec, self.data)

    def predict(self, features: Features) -> NDArray[np.float32]:
        """Scores (clips, axes) float32."""
        blocks = blocks_of(self.spec, features)
        standardised = np.mean([head.predict(standardise(blocks)) for standardise, head in self.members], axis=0)
        return calibration.apply(self.line, standardised * self.scale[1] + self.scale[0]).astype(np.float32)


def run_key(spec: HeadSpec, data: str) -> str:
    """Name of the folder of a spec trained on data with this digest."""
    return spec.key(data)[:16]


def save_run(run: Run, folder: Path) -> None:
    """Write a run under a temporary name and rename its folder."""
    arrays = {"scale": run.scale, "line": run.line, "out_of_fold": run.out_of_fold}
    for number, (standardise, head) in enumerate(run.members):
        for name, array in (standardise.state() | head.state()).items():
            arrays[f"{number}.{name}"] = array
    about = {"spec": run.spec.model_dump(mode="json"), "data": run.data, "members": len(run.members)}
    temporary = folder / f".{run.key}.{os.getpid()}-{secrets.token_hex(4)}.tmp"
    temporary.mkdir(parents=True)
    try:
        write_atomic(temporary / "head.safetensors", tensor_bytes(arrays))
        write_atomic(temporary / "run.json", pretty_json(about))
        if not is_done(folder, run.key):
            shutil.rmtree(folder / run.key, ignore_errors=True)
            temporary.rename(folder / run.key)
            sync_folder(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_done(folder: Path, key: str) -> bool:
    """True when the folder of a run is there and whole."""
    return (folder / key / "run.json").is_file() and (folder / key / "head.safetensors").is_file()


def delete_run(folder: Path, key: str) -> None:
    """Remove a run's folder."""
    shutil.rmtree(folder / key, ignore_errors=True)


def load_run(folder: Path, key: str) -> Run:
    """Read a run. Raises ``StoreError`` when it is damaged."""
    try:
        about = json.loads((folder / key / "run.json").read_text(encoding="utf-8"))
        spec = HeadSpec.model_validate(about["spec"])
        arrays = load_file(folder / key / "head.safetensors")
        members = tuple(_member(spec, number, arrays) for number in range(about["members"]))
        run = Run(spec, about["data"], members, arrays["scale"], arrays["line"], arrays["out_of_fold"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise StoreError(
            f"The run {folder / key} cannot be read: {error}. Delete its folder and train again."
        ) from None
    if run.key != key:
        raise StoreError(f"The run {folder / key} holds another run ({run.key}). Delete its folder and train again.")
    return run


def _member(spec: HeadSpec, number: int, arrays: dict[str, NDArray[np.generic]]) -> tuple[Standardiser, heads.Head]:
    own = {name.removeprefix(f"{number}."): array for name, array in arrays.items() if name.startswith(f"{number}.")}
    statistics = {name: array for name, array in own.items() if name.startswith(("mean.", "scale."))}
    learned = {name: array for name, array in own.items() if name not in statistics}
    head = heads.make(
        spec.head, options=spec.options, weighted=spec.layers == "weighted", loss=spec.loss, seed=spec.seed
    )
    return Standardiser.from_state(statistics), head.restore(learned)


def predictions(folder: Path, key: str, features: Features, digest: str) -> NDArray[np.float32]:
    """A run's scores (clips, axes) for features with this digest, from its folder when they are there."""
    path = folder / key / "predictions.safetensors"
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("digest") == digest:
                stored: NDArray[np.float32] = file.get_tensor("scores")
                return stored
    except (OSError, SafetensorError):
        pass
    scores = load_run(folder, key).predict(features)
    write_atomic(path, tensor_bytes({"scores": scores}, metadata={"digest": digest}))
    return scores
