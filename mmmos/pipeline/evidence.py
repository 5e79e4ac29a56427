"""What the report shows beside leaderboards: ceilings, stability, contributions and excerpts, each computed once.

Results are kept beside the leaderboards of a recipe, under a digest of what they were made of; whether something is
computed at all depends on sizes alone, so that equal inputs give equal reports.
"""

import json
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mmmos
from mmmos import manifest, registry
from mmmos.axes import AXES
from mmmos.ensembles.ablation import contributions
from mmmos.ensembles.ensemble import Ensemble, looks_at
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.stability import stability
from mmmos.errors import UsageError
from mmmos.features.table import Features
from mmmos.files import key_of, write_atomic
from mmmos.submissions.report import tables
from mmmos.submissions.report.excerpts import Excerpt, excerpt

# Scores of a pool (runs × clips × axes over the labelled sets) up to which stability and contributions take seconds.
CHEAP = 400_000
RESAMPLES = 50

log = logging.getLogger("mmmos")


def kept(path: Path, made_of: dict[str, Any], compute: Callable[[], Any]) -> Any:
    """JSON values, read from ``path`` when they were made of the same; else computed and written there."""
    key = key_of({"mmmos": mmmos.__version__, **made_of})
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored["made_of"] == key:
            return stored["values"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    values = compute()
    write_atomic(path, json.dumps({"made_of": key, "values": values}))
    return values


def kept_table(path: Path, made_of: dict[str, Any], compute: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The same for a table with an index of no meaning."""
    return pd.DataFrame(kept(path, made_of, lambda: compute().to_dict("list")))


def digest(table: pd.DataFrame) -> str:
    """SHA-256 (hex) of the values of a table and its index."""
    values = [table.index.tolist(), *(table[name].tolist() for name in table)]
    return sha256(json.dumps(values).encode()).hexdigest()


def ceilings(folder: Path, name: str, truth: pd.DataFrame) -> pd.DataFrame:
    """What the raters' noise leaves room for on a set, see ``tables.ceilings_of``; no rows without ratings."""
    columns = [column for column in (*(f"{axis}_ratings" for axis in AXES), "system", "domain") if column in truth]
    if not any(column.endswith("_ratings") for column in columns):
        return pd.DataFrame()
    made_of = {"ceilings": digest(truth[columns])}
    return kept_table(folder / f"{name}.ceilings.json", made_of, lambda: tables.ceilings_of(truth))


def is_cheap(pool: Pool) -> bool:
    """True where a pool is small enough for resampling a selection during ``mmmos run``."""
    return sum(pool.scores[name].size for name in pool.labelled()) <= CHEAP


def chosen_again(folder: Path, ensemble: Ensemble) -> pd.DataFrame | None:
    """How often the rule chooses each run over resamples, None for large pools and rules that look at no scores."""
    if not is_cheap(ensemble.pool) or ensemble.rule.rule == "average":
        return None
    rule = ensemble.rule
    code = registry.code_of("selectors", rule.rule)
    made_of = {"pool": _of(ensemble.pool), "rule": rule.model_dump(mode="json"), "resamples": RESAMPLES, "code": code}
    return _allowed(
        lambda: kept_table(
            folder / "stability.json", made_of, lambda: stability(ensemble.pool, rule, resamples=RESAMPLES)
        )
    )


def contributed(folder: Path, ensemble: Ensemble) -> pd.DataFrame | None:
    """What the levels of each factor contribute on the set that the rule looks at first, None for large pools."""
    pool = ensemble.pool
    name = next((each for each in (*looks_at(ensemble.rule), *pool.labelled()) if each in pool.truth), None)
    if name is None or not is_cheap(pool):
        return None
    made_of = {"pool": _of(pool), "on": name, "resamples": RESAMPLES}

    def compute() -> pd.DataFrame:
        found = contributions(pool, on=name, by_domain=False, resamples=RESAMPLES)
        return found[found["effect"].notna()]

    return _allowed(lambda: kept_table(folder / "contributions.json", made_of, compute))


def _allowed(compute: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
    """A table, None where a rule or a pool does not allow it."""
    try:
        return compute()
    except UsageError as error:
        log.info("Left out of the report: %s", error)
        return None


def _of(pool: Pool) -> dict[str, Any]:
    """Digests of all that a selection on a pool depends on."""
    arrays = {f"{kind}.{name}": array for name in pool.labelled() for kind, array in _arrays(pool, name)}
    found = {name: sha256(np.ascontiguousarray(array).tobytes()).hexdigest() for name, array in arrays.items()}
    systems = {name: None if of is None else list(map(str, of)) for name, of in pool.systems.items()}
    return {"keys": list(pool.keys), "arrays": found, "systems": systems}


def _arrays(pool: Pool, name: str) -> list[tuple[str, Any]]:
    return [("scores", pool.scores[name]), ("truth", pool.truth[name])]


def excerpts(folder: Path, clips: pd.DataFrame, features: Features) -> dict[str, Excerpt]:
    """Excerpts of some clips, by id, as far as their audio is at hand; kept under the audio's own content."""
    key_by_id = dict(zip(features.ids, features.keys, strict=True))
    files = dict(zip(clips.index, manifest.locate(clips)["file"], strict=True))
    path, found = folder / "excerpts.json", {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stored = {}
    stored = stored if isinstance(stored, dict) else {}
    values: dict[str, Any] = {}
    for clip, row in clips.reindex(columns=["start", "end"]).iterrows():
        key = key_of({"audio": key_by_id.get(str(clip), str(clip)), "mmmos": mmmos.__version__})
        made = _read(stored.get(key))
        file = files[clip]
        if made is None and file is not None:
            start, end = (_time(row.get(name)) for name in ("start", "end"))
            made = excerpt(file, start, end)
        if made is not None:
            found[str(clip)], values[key] = made, made.as_json()
    if values and values != stored:
        write_atomic(path, json.dumps(values))
    return found


def _read(values: Any) -> Excerpt | None:
    try:
        return Excerpt.of_json(values)
    except (KeyError, ValueError, TypeError):
        return None


def _time(value: Any) -> float | None:
    return None if value is None or value != value else float(value)
