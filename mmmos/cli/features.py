"""``mmmos features``: encoders, and the store of what they gave."""

from typing import TYPE_CHECKING, Literal

from cyclopts import App

from mmmos.cli import store as store_commands
from mmmos.cli.encoders import fetch, list_encoders
from mmmos.cli.inputs import encoders_and_inputs, refuse_options
from mmmos.cli.options import (
    Address,
    Backend,
    Device,
    EncoderNames,
    FeatureRecipe,
    Input,
    Logs,
    Root,
    Shard,
    Store,
    Strict,
)
from mmmos.cli.output import agreeing, counted, printable, put_table, say, say_unusable
from mmmos.cli.workers import workers_of
from mmmos.errors import UsageError
from mmmos.parallel import shard_of

if TYPE_CHECKING:
    import pandas as pd

    from mmmos.features.spec import Encoders

app = App(name="features", help="Encode once, keep on disk: encoders and the store.")
app.command(list_encoders, name="list")
app.command(fetch)


@app.command
def extract(
    recipe: FeatureRecipe = None,
    /,
    *inputs: Input,
    encoder: EncoderNames = None,
    weights: str | None = None,
    precision: Literal["float32", "bfloat16"] | None = None,
    store: Store = "features",
    root: Root = None,
    device: Device = "auto",
    jobs: int = 0,
    backend: Backend = "local",
    address: Address = None,
    shard: Shard = None,
    logs: Logs = None,
    strict: Strict = False,
    retry_rejected: bool = False,
    rehash: bool = False,
    dry_run: bool = False,
) -> int:
    """Encode clips into the store; what is there already is not computed again.

    Example: mmmos features extract melstats train.csv dev.csv --root /your_path=/data

    Parameters
    ----------
    weights
        Weights for one encoder: a hub id, a file or a folder.
    precision
        Of one encoder; bfloat16 is another feature set.
    jobs
        Processes that decode and encode; 0: this one with a thread on each core, or one for each of several GPUs.
    retry_rejected
        Try again what was rejected before.
    rehash
        Read every file again, whatever the file system says of it.
    dry_run
        Say how many clips are there and how many are missing.
    """
    refuse_options(inputs, extract)
    chosen, sources = encoders_and_inputs(recipe, inputs, encoder, "mmmos features extract")
    workers, piece = workers_of(backend, address, jobs, logs), shard_of(shard)

    from mmmos.features.extraction import extract as extraction
    from mmmos.features.extraction.options import Options
    from mmmos.features.spec import resolve
    from mmmos.manifest import read_manifest

    encoders = resolve(_with(chosen, weights, precision))
    everything = read_manifest(sources, root=root, labels=False)
    clips = extraction.part(everything, piece)
    if shard:
        say(f"shard {piece}: {len(clips):,} of {len(everything):,} clips.")
    if dry_run:
        put_table(extraction.plan(clips, encoders, store=store))
        return 0
    options = Options(device, workers, strict, retry_rejected, rehash)
    status = extraction.complete(clips, encoders, store=store, options=options)
    names = ", ".join(table.set_name for table in encoders.tables())
    place = store_commands.shown_store(store)
    say(f"{(status['status'] == 'done').sum()} of {len(clips)} clips are in {place} ({names}).")
    _say_flagged(status, "mmmos features show RECIPE INPUT… lists them")
    return say_unusable(status[status["status"] != "done"])


def _with(chosen: str | list[str], weights: str | None, precision: str | None) -> "Encoders":
    """What encodes, with weights and precision where they are given for a single encoder."""
    from mmmos.features.spec import EncoderRecipe

    if not (weights or precision):
        return chosen
    single = chosen if isinstance(chosen, list) else [chosen]
    if len(single) > 1:
        raise UsageError(f"--weights and --precision are of one encoder; got {', '.join(single)}. Use a recipe.")
    return [EncoderRecipe.model_validate({"encoder": single[0], "weights": weights, "precision": precision})]


def _say_flagged(status: "pd.DataFrame", more: str) -> None:
    """How many of the clips that are done are flagged, by flag."""
    from mmmos.features.table import flag_counts

    count = ((status["flags"] != "") & (status["status"] == "done")).sum()
    if count:
        listed = ", ".join(f"{row.clips} {row.flag}" for row in flag_counts(status).itertuples())
        say(f"{counted(count, 'clip')} {agreeing(count, 'are')} flagged: {listed}; {more}.")


@app.command
def show(
    recipe: FeatureRecipe = None,
    /,
    *inputs: Input,
    encoder: EncoderNames = None,
    store: Store = "features",
    root: Root = None,
    rejected: bool = False,
    flagged: bool = False,
    manifest: list[str] | None = None,
    json: bool = False,
) -> int:
    """What a store holds; with a recipe and inputs, what became of each of their clips.

    Of clips it counts how many are done, flagged, rejected, failed and absent, and lists the rejected, failed and
    flagged ones. Example: mmmos features show melstats train.csv --root /your_path=/data

    Parameters
    ----------
    rejected
        List the rejected and failed clips; without a recipe, every rejected clip of the store.
    flagged
        List the flagged clips.
    manifest
        A manifest: how many of its clips exist on disk, and which do not; repeatable.
    json
        Rows as JSON; of clips, all of them.
    """
    import pandas as pd

    from mmmos.features.store import upkeep

    refuse_options(inputs, show)
    if manifest:
        if recipe or encoder or rejected or flagged:
            raise UsageError("--manifest looks for audio on disk and takes no recipe; leave one of them out.")
        return _show_audio(manifest, root, json)
    if recipe or encoder:
        chosen, sources = encoders_and_inputs(recipe, inputs, encoder, "mmmos features show")
        return _show_clips(chosen, sources, store, root, rejected, flagged, json)
    if flagged:
        raise UsageError("Flags depend on the encoder: mmmos features show RECIPE INPUT… --flagged.")
    if rejected:
        put_table(upkeep.rejections(store), as_json=json)
    else:
        put_table(pd.DataFrame([each.as_dict() for each in upkeep.summaries(store)]), as_json=json, decimals=1)
    return 0


def _show_clips(
    encoders: str | list[str],
    inputs: list[str],
    store: str,
    root: list[str] | None,
    rejected: bool,
    flagged: bool,
    json: bool,
) -> int:
    import pandas as pd

    from mmmos.features.extraction.extract import status as status_of
    from mmmos.manifest import read_manifest

    status = status_of(read_manifest(inputs, root=root, labels=False), encoders, store=store)
    counts = status["status"].value_counts()
    listed = ", ".join(f"{counts.get(name, 0)} {name}" for name in ("done", "rejected", "failed", "absent"))
    say(f"Of {len(status)} clips: {listed}.")
    _say_flagged(status, "a flagged clip is used like any other")
    is_unusable, is_flagged = status["status"].isin(["rejected", "failed"]), status["flags"] != ""
    chosen = (is_unusable & rejected) | (is_flagged & flagged)
    if not (rejected or flagged):
        chosen = is_unusable | is_flagged | json
    table = pd.concat([status.index.to_frame(name="id"), status], axis=1)[chosen]
    if json or not table.empty:
        put_table(table, as_json=json)
    return 3 if is_unusable.any() else 0


def _show_audio(manifest: list[str], root: list[str] | None, json: bool) -> int:
    from mmmos.manifest import describe, locate, read_manifest

    clips = read_manifest(manifest, root=root)
    found = locate(clips)
    put_table(describe(clips), as_json=json)
    missing = clips.loc[found["how"] == "missing", "path"]
    other = int((found["how"] == "other extension").sum())
    say(f"{len(clips) - len(missing)} of {len(clips)} clips exist ({other} with another extension).")
    for clip, path in missing.head(20).items():
        say(f"  missing: {printable(str(clip))}: {printable(path)}")
    if len(missing) > 20:
        say(f"  … and {len(missing) - 20} more")
    return 3 if len(missing) else 0


for name, command in store_commands.COMMANDS.items():
    app.command(command, name=name)
