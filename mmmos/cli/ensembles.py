"""``mmmos ensembles``: train heads, look at them, choose some, hand them on."""

from pathlib import Path

from cyclopts import App

from mmmos.cli.ablation import ablate
from mmmos.cli.bundles import export
from mmmos.cli.hub import push_bundle
from mmmos.cli.onnx import onnx
from mmmos.cli.options import (
    Address,
    Backend,
    ChallengeFile,
    EnsembleRecipe,
    Intervals,
    Jobs,
    Json,
    Logs,
    Metric,
    Shard,
    TrainingDevice,
)
from mmmos.cli.output import counted, put_table, say, shown_path, with_intervals
from mmmos.cli.selection import check_resamples, select
from mmmos.cli.shift import shift
from mmmos.cli.workers import workers_of

app = App(name="ensembles", help="Train many light heads on stored features, choose a few, hand them on.")


def train(
    recipe: EnsembleRecipe = None,
    /,
    *,
    challenge: ChallengeFile = Path("challenge.toml"),
    jobs: Jobs = 0,
    backend: Backend = "local",
    address: Address = None,
    shard: Shard = None,
    logs: Logs = None,
    device: TrainingDevice = "auto",
    exact: bool = False,
) -> int:
    """Train the heads of a recipe on a challenge's clips; trained heads are kept and skipped.

    Example: mmmos ensembles train quick

    Parameters
    ----------
    exact
        On a GPU, train each head alone, so that its bits do not depend on the others.
    """
    workers = workers_of(backend, address, jobs, logs)

    from mmmos import pipeline
    from mmmos.pipeline import shards

    if shard is not None:
        part = shards.train_shard(challenge, shard=shard, recipe=recipe, jobs=workers, device=device, exact=exact)
        say(str(part))
        return 0
    pool = pipeline.train_pool(challenge, recipe=recipe, jobs=workers, device=device, exact=exact)
    say(f"{counted(len(pool), 'head')} in {shown_path(pool.folder)}/")
    return 0


def tune(
    recipe: str | None = None,
    /,
    *,
    trials: int = 40,
    on: str = "pam",
    metric: Metric = "utt_SRCC",
    keep: int = 10,
    seed: int = 0,
    challenge: ChallengeFile = Path("challenge.toml"),
    jobs: Jobs = 0,
    device: TrainingDevice = "auto",
    json: Json = False,
) -> int:
    """Search for good heads in what a recipe leaves open, and write the best to ensembles/RECIPE-tuned.toml.

    Needs Optuna: pip install 'mmmos[tune]'. Interrupted, the same command goes on.

    Example: mmmos ensembles tune large --trials 40

    Parameters
    ----------
    recipe
        An ensemble recipe (name or .toml) with alternatives or ranges; by default the challenge's own.
    trials
        How many heads are tried, each with all seeds of its table.
    on
        The set that says what is good: pam, dev or oof.
    keep
        How many of the best are written.
    seed
        Of the proposals.
    """
    from mmmos import pipeline

    found = pipeline.tune(
        challenge,
        recipe=recipe,
        on=on,
        metric=metric,
        jobs=jobs,
        device=device,
        trials=trials,
        keep=keep,
        seed=seed,
    )
    put_table(found.table(), as_json=json)
    say(f"The {found.kept} best of {counted(len(found.trials), 'head')}: {shown_path(found.recipe)}")
    return 0


def show(
    recipe: EnsembleRecipe = None,
    /,
    *,
    intervals: Intervals = 200,
    challenge: ChallengeFile = Path("challenge.toml"),
    json: Json = False,
) -> int:
    """Every trained head of a recipe with its SRCC on each labelled set and the 95 % interval of that, best first.

    Example: mmmos ensembles show quick
    """
    from mmmos import pipeline
    from mmmos.ensembles.ensemble import select

    check_resamples("--intervals", intervals)
    pool, wanted = pipeline.finished_pool(challenge, recipe=recipe)
    members = select(pool, "average").members(intervals).drop(columns=[f"weight_{axis}" for axis in pool.axes])
    by = next((f"{name}_utt_SRCC" for name in ("pam", "dev", "oof") if f"{name}_utt_SRCC" in members), "name")
    members = members.sort_values(by, ascending=by == "name", kind="stable")
    put_table(members if json else with_intervals(members), as_json=json)
    say(f"{len(pool)} of {wanted} heads are trained.")
    return 0


for command in (train, tune, show, select, ablate, shift, export, onnx):
    app.command(command)
app.command(push_bundle, name="push")
