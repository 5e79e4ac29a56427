"""``export``: a recorded ensemble as a bundle. Nothing is trained or encoded, and no score of a sealed set is read."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mmmos
from mmmos import challenge, manifest, registry
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles.bundle import About, Bundle, files_of, read_bundle, write_bundle
from mmmos.ensembles.bundle.about import QUANTILES, FeatureSet, encoder_facts
from mmmos.ensembles.bundle.container import MOST_BYTES
from mmmos.ensembles.bundle.encoders import is_published
from mmmos.ensembles.bundle.write import is_written, quantiles_of, refuse_taken
from mmmos.ensembles.ensemble import Ensemble, looks_at
from mmmos.ensembles.recipe import SEALED, SelectRecipe
from mmmos.ensembles.runs import Run, load_run
from mmmos.ensembles.selectors.selection import Selection
from mmmos.ensembles.shift.anchoring import FEWEST, anchoring
from mmmos.ensembles.training.data import OUT_OF_FOLD, gather
from mmmos.errors import StoreError, UnknownName, UsageError
from mmmos.features.encoders import card
from mmmos.features.spec import EncoderRecipe, FeatureSpec
from mmmos.features.store import FeatureSet as StoredSet
from mmmos.features.table import Features
from mmmos.pipeline import finished
from mmmos.submissions.leaderboard import leaderboard

# Resamples for the intervals of the metrics; clips of each set on which what was written is compared.
INTERVALS, COMPARED = 1000, 4
# Largest difference between a bundle's scores and the ensemble's.
TOLERANCE = 1e-5

_METRICS = ("SRCC", "LCC", "KTAU", "MSE")


@dataclass(frozen=True)
class Exported:
    """A bundle: where, bytes of all files, name of the ensemble, what ``bundle.json`` says, if it was there before."""

    path: Path
    size: int
    name: str
    about: About
    was_there: bool


def export(
    path: str | Path = challenge.FILE,
    name: str | None = None,
    *,
    to: str | Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the ensemble that ``ensembles/<name>.json`` records as a bundle.

    ``name``: by default the challenge's submission. ``to``: a folder, or a zip where it ends in .zip; by default
    ``submissions/<name>/bundle`` of the workspace. The bundle of the same ensemble stays as it is, another one is
    replaced only with ``overwrite``. Raises ``UnknownName`` for an ensemble that is not recorded, ``UsageError`` where
    its runs or features are not there, or where ``to`` is taken.
    """
    inputs = challenge.read(path)
    name = name or inputs.challenge.submission.name
    record = _record(inputs, name)
    target = Path(to) if to is not None else inputs.workspace / "submissions" / name / "bundle"
    refuse_taken(target.expanduser().absolute(), overwrite=True)
    if record["recipe"] != inputs.recipe_name:
        inputs = challenge.read(path, ensembles=record["recipe"])
    features, pool = finished(inputs)
    ensemble = _ensemble(record, pool, name)
    members, weights, rule = ensemble.selection.members, ensemble.selection.weights, ensemble.rule
    runs = [load_run(pool.folder, pool.keys[member]) for member in members]
    _refuse_local(runs)
    lines = None
    if rule.calibrate is not None:
        lines = anchoring(pool, members, weights, rule.calibrate, by_domain=rule.calibrate_by == "domain")
    files = files_of(_facts(name, inputs, features, ensemble), runs, weights, lines, rule.calibrate)
    size = sum(map(len, files.values()))
    if size > MOST_BYTES:
        raise UsageError(
            f"The heads of {name!r} take {size / 1e9:.1f} GB, and a bundle holds {MOST_BYTES / 1e9:g} GB at most."
            " Choose fewer members, or heads that do not keep their training clips as svr, kernel_ridge and knn do."
        )
    bundle = read_bundle(files)
    _compare(bundle, ensemble, features, inputs)
    was_there = is_written(files, target)
    if not was_there:
        write_bundle(files, target, overwrite=overwrite)
    return Exported(target.expanduser().absolute(), size, name, bundle.about, was_there)


def _record(inputs: Inputs, name: str) -> dict[str, Any]:
    """What was chosen under a name."""
    path = inputs.runs / f"{name}.json"
    known = sorted(each.stem for each in inputs.runs.glob("*.json"))
    if name not in known:
        if not known:
            raise UsageError(
                f"{inputs.runs} holds no chosen ensemble; type mmmos run, or mmmos ensembles select {name}."
            )
        raise UnknownName("chosen ensemble", name, known)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        keys = {"recipe": str, "rule": dict, "training_data": str, "members": list}
        if not record["members"] or any(not isinstance(record[key], kind) for key, kind in keys.items()):
            raise ValueError("it names no members, recipe, rule or data")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path} is no record of an ensemble: {error}. Type mmmos ensembles select {name}.") from None
    return dict(record)


def _ensemble(record: dict[str, Any], pool: Any, name: str) -> Ensemble:
    """The recorded ensemble of the runs at hand. Raises ``UsageError`` where they are others."""
    again = f"type mmmos run, or mmmos ensembles select {name}"
    if record["training_data"] != pool.data:
        raise UsageError(
            f"The ensemble {name!r} was chosen from heads that were trained on other clips or scores than the challenge"
            f" now names; {again}."
        )
    position = {key: run for run, key in enumerate(pool.keys)}
    try:
        keys = [each["key"] for each in record["members"]]
        weights = np.array([[float(each["weights"][axis]) for axis in pool.axes] for each in record["members"]])
        rule = SelectRecipe.model_validate(record["rule"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"The record of {name!r} is damaged: {error}; {again}.") from None
    absent = [key for key in keys if key not in position]
    if absent:
        raise UsageError(
            f"{len(absent)} of the {len(keys)} runs of {name!r} are not in {pool.folder}, or are of other features"
            f" (among them {absent[0]}); {again}."
        )
    return Ensemble(pool, Selection(np.array([position[key] for key in keys], dtype=np.int64), weights), rule)


def _refuse_local(runs: Sequence[Run]) -> None:
    """Raise ``UsageError`` for a head or a loss that is a file of this machine."""
    for run in runs:
        for kind, used in (("heads", run.spec.head), ("losses", run.spec.loss)):
            if used not in registry.names(kind):
                raise _local(registry.KINDS[kind], used)


def _local(kind: str, name: str) -> UsageError:
    return UsageError(
        f"The {kind} {name!r} is a file of this machine, which a bundle cannot hold: it holds no code. Make a package"
        f" that registers the {kind}, and train again under its name."
    )


def _facts(name: str, inputs: Inputs, features: Features, ensemble: Ensemble) -> dict[str, Any]:
    """The fields of ``About`` that are known beside the runs."""
    pool = ensemble.pool
    used = {each for member in ensemble.selection.members for each in pool.specs[member].features}
    tables = [table for table in inputs.features.tables() if table.set_name in used]
    encoders = [_encoder(table, features) for table in tables]
    counts = inputs.clips["set"].value_counts(sort=False)
    return {
        "name": name,
        "mmmos": mmmos.__version__,
        "axes": list(pool.axes),
        "recipe": pool.name,
        "pool": len(pool),
        "rule": ensemble.rule.model_dump(mode="json"),
        "encoders": [each.model_dump(mode="json") for each in encoders],
        "licences": {each.name: each.facts.licence for each in encoders},
        "metrics": _metrics(inputs, ensemble),
        "clips": {str(key): int(value) for key, value in counts.items()},
        "training_data": pool.data,
        "manifests": {
            str(key): manifest.digest(part, list(AXES) if key not in SEALED else [])
            for key, part in inputs.clips.groupby("set")
        },
        "reference": _reference(inputs, features),
    }


def _encoder(table: EncoderRecipe, features: Features) -> FeatureSet:
    """A feature set and how its encoder is loaded elsewhere; local weights go by their base name."""
    if table.encoder not in registry.names("encoders"):
        raise _local("encoder", table.encoder)
    spec = _spec(features, table.set_name)
    weights = spec.encoder.weights
    local = bool(weights) and (Path(weights).expanduser().exists() or not is_published(weights))
    weights = Path(weights).expanduser().resolve().name if local else weights
    return FeatureSet(
        name=spec.name,
        encoder=table.encoder,
        weights=weights,
        revision="" if local else spec.encoder.revision,
        precision=table.precision,
        options=table.options,
        window=spec.window,
        hop=spec.hop,
        dtype=table.dtype or "float16",
        frames=spec.frames,
        facts=encoder_facts(spec.encoder, weights),
        fingerprint=spec.fingerprint,
        commercial=card(table.encoder).commercial,
    )


def _spec(features: Features, name: str) -> FeatureSpec:
    source = features[name].source
    assert isinstance(source, StoredSet), "features of a challenge come from its store"
    return source.spec


def _metrics(inputs: Inputs, ensemble: Ensemble) -> list[dict[str, Any]]:
    """How good the ensemble is on each labelled set, as ``Quality``."""
    axes, found = list(ensemble.pool.axes), []
    seen = {*looks_at(ensemble.rule), ensemble.rule.calibrate}
    for name in ensemble.pool.labelled():
        truth = inputs.clips.loc[ensemble.pool.index(name)]
        truth = truth[truth[axes].notna().all(axis=1)]
        if len(truth) < 2:
            continue
        systems = truth["system"] if truth["system"].notna().all() else None
        predicted = {"ensemble": ensemble.predict(name).loc[truth.index]}
        board = leaderboard(predicted, truth[axes], systems=systems, intervals=INTERVALS).iloc[0]
        levels = ("utt", "sys") if systems is not None else ("utt",)
        scores = {
            f"{level}_{metric}": {axis: _number(board, axis, f"{level}_{metric}") for axis in ("mean", *axes)}
            for level in levels
            for metric in _METRICS
        }
        counts = {"clips": int(board["n_clips"]), "systems": int(board["n_systems"])}
        found.append({"set": name, **counts, "seen": name in seen, "scores": scores})
    return found


def _number(board: "pd.Series[Any]", axis: str, metric: str) -> dict[str, float | None]:
    column = metric if axis == "mean" else f"{axis}_{metric}"
    ends = {"value": column, "low": f"{column}_low", "high": f"{column}_high"}
    values = {end: float(board.get(each, math.nan)) for end, each in ends.items()}
    return {end: value if math.isfinite(value) else None for end, value in values.items()}


def _reference(inputs: Inputs, features: Features) -> dict[str, dict[str, list[float]]]:
    """Quantiles of the training clips' ratings, of all ("") and of each domain with 10 clips."""
    data = gather(inputs.ensembles, features, inputs.clips)
    axes, domains = inputs.ensembles.axes, np.array(data.domains(), object)
    rows = {"": np.ones(len(domains), bool)} | {str(each): domains == each for each in sorted(set(domains) - {""})}
    return {
        domain: {axis: quantiles_of(data.targets[own, column], QUANTILES) for column, axis in enumerate(axes)}
        for domain, own in rows.items()
        if domain == "" or own.sum() >= FEWEST
    }


def _compare(bundle: Bundle, ensemble: Ensemble, features: Features, inputs: Inputs) -> None:
    """Raise ``StoreError`` unless a bundle scores some clips as the ensemble does."""
    pool, rule = ensemble.pool, ensemble.rule
    for name in [each for each in pool.ids if each not in (*inputs.ensembles.train, rule.calibrate, OUT_OF_FOLD)]:
        ids = pool.index(name)[:COMPARED]
        domains = [str(domain) for domain in pool.domains[name][:COMPARED]]
        wanted = ensemble.predict(name).loc[ids].to_numpy()
        apart = np.abs(bundle.predict(features.of(list(ids)), domains).scores - wanted).max()
        if not apart <= TOLERANCE:
            raise StoreError(
                f"The bundle would score clips of {name} {apart:g} apart from the ensemble, and is not written. This is"
                " a fault of MMMOS: please report it with what mmmos doctor says."
            )
