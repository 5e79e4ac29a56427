"""The answer of a challenge: written once for an ensemble, and known again by what it is made of."""

import json
from pathlib import Path
from typing import Any

import pandas as pd

import mmmos
from mmmos import manifest
from mmmos.axes import AXES
from mmmos.challenge import Inputs
from mmmos.ensembles.ensemble import Ensemble
from mmmos.ensembles.recipe import SEALED
from mmmos.ensembles.training.data import gather
from mmmos.errors import InputError
from mmmos.features.table import Features
from mmmos.files import sha256_file
from mmmos.submissions.check import check_submission
from mmmos.submissions.write import PROVENANCE, write_submission


def submit(inputs: Inputs, features: Features, ensemble: Ensemble, absent: list[str]) -> Path:
    """Write the answer for every clip of the evaluation set unless it is there, and check what was written.

    Everything that an earlier ensemble left in the folder is removed first, so that its report never stands beside
    another one's answer.
    """
    settings = inputs.challenge.submission
    clips = inputs.clips[inputs.clips["set"] == "eval"]
    if absent and settings.missing == "error":
        listed = [f"{clip}: {features.status.at[clip, 'detail']!s}" for clip in absent[:20]]
        advice = (
            f"No submission is written: {len(absent)} of {len(clips)} clips to predict are unusable."
            ' Mend them, or answer them with the training mean: [submission] missing = "mean".'
        )
        raise InputError([advice, *listed], more=max(len(absent) - 20, 0))
    made_of = provenance(inputs, features, ensemble)
    if not is_current(inputs, made_of):
        scores = _answers(inputs, features, ensemble, absent)
        clear(inputs)
        write_submission(
            scores,
            clips,
            format=inputs.format,
            to=inputs.submission,
            header=settings.header,
            outside="clip",
            provenance=made_of,
        )
    problems = check_submission(inputs.submission, format=inputs.format, clips=clips)
    if problems:
        raise InputError(problems)
    return inputs.submission / inputs.format.file


def _answers(inputs: Inputs, features: Features, ensemble: Ensemble, absent: list[str]) -> pd.DataFrame:
    """Scores of every clip of the evaluation set in order, the training mean for unusable ones."""
    clips = inputs.clips.index[inputs.clips["set"] == "eval"]
    lacking = clips.isin(absent)
    scores = ensemble.predict(list(clips[~lacking])).reindex(clips)
    if absent:
        scores.loc[lacking] = gather(inputs.ensembles, features, inputs.clips).targets.mean(axis=0)
    return scores


def unusable(inputs: Inputs, features: Features) -> list[str]:
    """Clips of the evaluation set without features."""
    clips = inputs.clips[inputs.clips["set"] == "eval"]
    return [clip for clip in clips.index if features.status.at[clip, "status"] != "done"]


def provenance(inputs: Inputs, features: Features, ensemble: Ensemble) -> dict[str, Any]:
    """What an answer is made of: recipes, feature sets, ensemble, digests of the manifests; no paths, no times."""
    digests = {
        str(name): manifest.digest(part, list(AXES) if name not in SEALED else [])
        for name, part in inputs.clips.groupby("set")
    }
    made_of = {
        "mmmos": mmmos.__version__,
        "recipes": {
            "features": _without_folders(inputs.features.model_dump(mode="json")),
            "ensembles": inputs.ensembles.model_dump(mode="json"),
        },
        "feature_sets": {name: array.fingerprint for name, array in features.sets.items()},
        "audio": features.digest([]),
        "ensemble": ensemble.record(),
        "manifests": digests,
        "format": inputs.format.model_dump(mode="json"),
        "header": inputs.challenge.submission.header,
        "answered_with_training_mean": unusable(inputs, features),
    }
    plain: dict[str, Any] = json.loads(json.dumps(made_of))
    return plain


def _without_folders(recipe: dict[str, Any]) -> dict[str, Any]:
    """A feature recipe whose local weights go by their file name; what they hold is in the fingerprints."""
    for entry in recipe["encoders"]:
        if isinstance(entry, dict) and entry.get("weights") and Path(entry["weights"]).is_absolute():
            entry["weights"] = Path(entry["weights"]).name
    return recipe


def is_of(folder: Path, ensemble: Ensemble) -> bool:
    """True when the answer in a folder was made by this ensemble."""
    return bool(_recorded(folder).get("made_from", {}).get("ensemble") == ensemble.record())


def is_current(inputs: Inputs, made_of: dict[str, Any]) -> bool:
    """True when the answer in the submission's folder is made of exactly this, and is the one that was written."""
    record, answer = _recorded(inputs.submission), inputs.submission / inputs.format.file
    if record.get("made_from") != made_of or not answer.is_file():
        return False
    if sha256_file(answer) != record["answer"]["sha256"]:
        return False
    clips = inputs.clips[inputs.clips["set"] == "eval"]
    return not check_submission(inputs.submission, format=inputs.format, clips=clips)


def _recorded(folder: Path) -> dict[str, Any]:
    """What ``provenance.json`` says, empty where it is absent or damaged."""
    try:
        record = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("made_from"), dict) else {}


def clear(inputs: Inputs) -> None:
    """Remove the files that a run leaves in the submission's folder."""
    names = ["report.html", *(f"leaderboard.{kind}" for kind in ("csv", "md", "html"))]
    names += [PROVENANCE, inputs.format.archive or "", inputs.format.file]
    for name in filter(None, names):
        (inputs.submission / name).unlink(missing_ok=True)
