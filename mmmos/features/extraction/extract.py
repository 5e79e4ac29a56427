"""``extract``: embeddings of clips, computed where the store lacks them, read from it otherwise.

Every clip ends as done, rejected or failed, the latter two with one reason; a killed run goes on where it was.
"""

from pathlib import Path

import pandas as pd

from mmmos import parallel
from mmmos.features.extraction.clips import find
from mmmos.features.extraction.options import DEFAULTS, Options
from mmmos.features.extraction.settle import settle
from mmmos.features.extraction.status import Known
from mmmos.features.extraction.work import feature_spec, load_encoders
from mmmos.features.spec import EncoderRecipe, Encoders, resolve
from mmmos.features.store import FeatureSet
from mmmos.features.table import Features
from mmmos.parallel import Jobs, Shard


def extract(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    device: str = "auto",
    jobs: Jobs = 0,
    shard: str | Shard | None = None,
    strict: bool = False,
    retry: bool = False,
    rehash: bool = False,
    workspace: str | Path = ".",
) -> Features:
    """Embeddings of all clips under all encoders, computed once and read from the store after that.

    ``clips``: a manifest. ``encoders``: a feature recipe (name, path or object), an encoder's name, or a list of them.
    ``store``: a folder, or a URL. ``device``: auto, cpu, cuda, cuda:1, mps. ``jobs``: processes, 0 for this one with a
    thread on each core, or ``Workers``. ``shard``: only part i of N of the clips, as "i/N". ``strict``: reject audio
    that is not what its container says. ``retry``: try rejected clips again. ``rehash``: read every file again.

    Of each encoder ``features[name].raw`` holds the clips' embeddings, (clips, layers, dim) float32, in the order of
    ``features.ids``. Clips that cannot be used are in ``features.status`` with a reason.
    Raises ``UnknownName`` for an unknown encoder or recipe, ``RecipeError``, and ``SetupError`` where weights or the
    device are not to be had.

    >>> features = mmmos.extract(clips, "melstats", store="features")
    >>> features["melstats"].raw.shape, features["melstats"].raw.dtype
    ((64, 20, 64), dtype('float32'))
    """
    options, clips = Options(device, jobs, strict, retry, rehash), part(clips, shard)
    found, status, arrays = settle(clips, resolve(encoders, workspace), store, options, load=True)
    usable = status.index[status["status"] == "done"]
    keys = [found[clip].key for clip in usable]
    sets = {}
    for name, (done, array) in arrays.items():
        position = {key: row for row, key in enumerate(done)}
        sets[name] = array.rows([position[key] for key in keys])
    return Features(tuple(usable), tuple(keys), sets, status)


def complete(
    clips: pd.DataFrame,
    encoders: Encoders,
    *,
    store: str | Path = "features",
    options: Options = DEFAULTS,
    shard: str | Shard | None = None,
    workspace: str | Path = ".",
) -> pd.DataFrame:
    """Compute what the store lacks of clips, or of a shard of them, and read nothing of what it has.

    Returns their status, indexed by id: columns status ("done", "rejected" or "failed"), reason, detail, flags.
    """
    return settle(part(clips, shard), resolve(encoders, workspace), store, options, load=False)[1]


def part(clips: pd.DataFrame, shard: str | Shard | None) -> pd.DataFrame:
    """The clips of a shard ("i/N", "auto", None for all): each N-th audio file with all of its segments.

    Raises ``UsageError``.
    """
    return clips[clips["path"].isin(parallel.shard_of(shard).every(list(dict.fromkeys(clips["path"]))))]


def plan(
    clips: pd.DataFrame, encoders: Encoders, *, store: str | Path = "features", workspace: str | Path = "."
) -> pd.DataFrame:
    """How far extraction is: a row for each feature set with its readable clips and how many the store knows."""
    found, _ = find(clips, store)
    keys = [clip.key for clip in found.values()]
    rows = []
    for table in resolve(encoders, workspace).tables():
        absent = set(open_set(table, store).missing(keys))
        rows.append((table.set_name, len(keys), sum(key not in absent for key in keys)))
    return pd.DataFrame(rows, columns=["feature_set", "clips", "stored"])


def status(
    clips: pd.DataFrame, encoders: Encoders, *, store: str | Path = "features", workspace: str | Path = "."
) -> pd.DataFrame:
    """What the store knows of each clip, as ``complete`` would return it; "absent" for clips still to be computed."""
    found, refused = find(clips, store)
    sets = [open_set(table, store) for table in resolve(encoders, workspace).tables()]
    keys = [clip.key for clip in found.values()]
    known = Known({key: reason for each in sets for key, reason in each.rejections(keys).items()})
    absent = {key for each in sets for key in each.missing(keys)} - set(known.reasons)
    known.listen(sets, [key for key in dict.fromkeys(keys) if key not in absent and key not in known.reasons])
    table = known.table(clips, found, refused)
    table.loc[[clip in found and found[clip].key in absent for clip in table.index], "status"] = "absent"
    return table


def open_set(table: EncoderRecipe, store: str | Path, device: str = "cpu") -> FeatureSet:
    """The feature set of a recipe's table in a store; loads the encoder to know its weights."""
    return FeatureSet(store, feature_spec(table, load_encoders([table], device)[0]))
