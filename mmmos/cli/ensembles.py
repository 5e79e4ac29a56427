"""``mmmos ensembles``: train heads, look at them, choose some, hand them on."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import App

from mmmos.cli.ablation import ablate
from mmmos.cli.bundles import export
from mmmos.cli.hub import push_bundle
from mmmos.cli.onnx import onnx
from mmmos.cli.output import number_with_interval, printable, put_table, say, shown_path, with_intervals
from mmmos.cli.shift import shift
from mmmos.cli.workers import workers_of
from mmmos.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

app = App(name="ensembles", help="Train many light heads on stored features, choose a few, hand them on.")
for command in (ablate, shift, export, onnx):
    app.command(command)
app.command(push_bundle, name="push")

# What a rule is compared with on clips it did not see.
_OTHERS = {"best": "the best head", "average": "the mean of all"}


@app.command
def train(
    recipe: str | None = None,
    /,
    *,
    challenge: Path = Path("challenge.toml"),
    jobs: int = 0,
    backend: str = "local",
    address: str | None = None,
    shard: str | None = None,
    logs: Path | None = None,
    device: str = "auto",
    exact: bool = False,
) -> int:
    """Train the heads of a recipe on a challenge's clips; trained heads are kept and skipped.

    Example: mmmos ensembles train quick

    Parameters
    ----------
    recipe
        An ensemble recipe (name or .toml); by default the challenge's own.
    challenge
        The challenge file that names the clips and the features.
    jobs
        Processes that train; 0: one for each core when it takes long, on a cluster all.
    backend
        Where they run: local, dask or ray.
    address
        Of a Dask scheduler or a Ray cluster; without it one is started on this machine.
    shard
        i/N: only this part of the work, for one of N machines; auto: as Slurm says.
    logs
        A folder for a log file of each worker.
    device
        Where clips are encoded and heads trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU).
    exact
        On a GPU, train each head alone, so that its bits do not depend on the others.
    """
    from mmmos import pipeline
    from mmmos.pipeline import shards

    workers = workers_of(backend, address, jobs, logs)
    if shard is not None:
        part = shards.train_shard(challenge, shard=shard, recipe=recipe, jobs=workers, device=device, exact=exact)
        say(str(part))
        return 0
    pool = pipeline.train_pool(challenge, recipe=recipe, jobs=workers, device=device, exact=exact)
    say(f"{len(pool)} heads in {shown_path(pool.folder)}/")
    return 0


@app.command
def tune(
    recipe: str | None = None,
    /,
    *,
    trials: int = 40,
    on: str = "pam",
    metric: str = "utt_SRCC",
    keep: int = 10,
    seed: int = 0,
    challenge: Path = Path("challenge.toml"),
    jobs: int = 0,
    device: str = "auto",
    json: bool = False,
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
    metric
        utt_SRCC, utt_LCC, utt_KTAU, utt_MSE, or the same with sys_.
    keep
        How many of the best are written.
    seed
        Of the proposals.
    challenge
        The challenge file that names the clips and the features.
    jobs
        Processes; 0: one for each core when it takes long.
    device
        Where clips are encoded and heads trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU).
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
    say(f"The {found.kept} best of {len(found.trials)} heads: {shown_path(found.recipe)}")
    return 0


@app.command
def show(
    recipe: str | None = None,
    /,
    *,
    intervals: int = 200,
    challenge: Path = Path("challenge.toml"),
    json: bool = False,
) -> int:
    """Every trained head of a recipe with its SRCC on each labelled set and the 95 % interval of that, best first.

    Example: mmmos ensembles show quick

    Parameters
    ----------
    recipe
        An ensemble recipe; by default the challenge's own.
    intervals
        Bootstrap resamples; 0 for no intervals.
    """
    from mmmos import pipeline
    from mmmos.ensembles.ensemble import select

    _check_resamples("--intervals", intervals)
    pool, wanted = pipeline.finished_pool(challenge, recipe=recipe)
    members = select(pool, "average").members(intervals).drop(columns=[f"weight_{axis}" for axis in pool.axes])
    by = next((f"{name}_utt_SRCC" for name in ("pam", "dev", "oof") if f"{name}_utt_SRCC" in members), "name")
    members = members.sort_values(by, ascending=by == "name", kind="stable")
    put_table(members if json else with_intervals(members), as_json=json)
    say(f"{len(pool)} of {wanted} heads are trained.")
    return 0


@app.command
def select(
    name: str | None = None,
    /,
    *,
    recipe: str | None = None,
    rule: str | None = None,
    on: list[str] | None = None,
    k: int | None = None,
    metric: list[str] | None = None,
    calibrate: str | None = None,
    option: list[str] | None = None,
    stability: int = 0,
    intervals: int = 200,
    challenge: Path = Path("challenge.toml"),
    json: bool = False,
) -> int:
    """Choose an ensemble and write it to ensembles/NAME.json; without a rule, the recipe's own.

    Example: mmmos ensembles select robust --rule intersect --on dev --on pam --k 8

    Parameters
    ----------
    name
        Name of the ensemble; by default the challenge's submission.
    recipe
        An ensemble recipe; by default the challenge's own.
    rule
        average, best, top_k, intersect, greedy, stack or a plug-in's.
    on
        Sets whose scores may be looked at: pam, dev, oof; repeatable, with a weight as pam=2.
    k
        How many heads; of greedy, how many picks.
    metric
        utt_SRCC, utt_LCC, utt_KTAU, utt_MSE, or the same with sys_; repeatable, with a weight as utt_SRCC=2.
    calibrate
        A set with scores, as pam, to whose scale the ensemble's predictions are brought.
    option
        A further parameter of the rule, as bags=20; repeatable.
    stability
        Resamples of the labelled clips that say how often each member is chosen again, and whether choosing helps.
    intervals
        Bootstrap resamples for the intervals of the members' SRCC; 0 for none.
    """
    from mmmos import pipeline
    from mmmos.ensembles.stability import resample

    given: dict[str, object] = {"on": on and _mix("--on", on), "k": k, "metric": metric and _mix("--metric", metric)}
    parameters = {key: value for key, value in given.items() if value is not None}
    parameters |= {} if calibrate is None else {"calibrate": calibrate}
    parameters |= {key: _value(text) for key, text in _pairs("--option", option or []).items()}
    _check_resamples("--stability", stability)
    _check_resamples("--intervals", intervals)
    ensemble, record = pipeline.choose(challenge, name=name, recipe=recipe, rule=rule, **parameters)
    members = ensemble.members(intervals)
    found = resample(ensemble.pool, ensemble.rule, resamples=stability, jobs=0) if stability else None
    if found is not None:
        members.insert(2, "chosen", found.stability().set_index("key")["chosen"].loc[members["key"]].to_numpy())
    put_table(members if json else with_intervals(members), as_json=json)
    if found is not None:
        _say_honest(found.honest(), ensemble.rule.rule, stability)
    say(f"{len(ensemble)} of {len(ensemble.pool)} heads: {shown_path(record)}")
    return 0


def _check_resamples(flag: str, number: int) -> None:
    if number < 0:
        raise UsageError(f"{flag} is a number of resamples, 0 for none; got {number}.")


def _say_honest(table: "pd.DataFrame", rule: str, resamples: int) -> None:
    """How good a rule is on clips it did not see, and what it gains over the best head and the mean of all."""
    say(f"On the clips that each of {resamples} resamples left out (mean, and the middle 95 %):")
    for name, rows in table.groupby("set", sort=False):
        by_ensemble = rows.set_index("ensemble")
        quality = number_with_interval(*by_ensemble.loc[rule, ["quality", "low", "high"]])
        gains = by_ensemble.drop(rule)[["gain", "gain_low", "gain_high"]].itertuples(name=None)
        told = [f"{number_with_interval(*gain)} more than {_OTHERS[other]}" for other, *gain in gains]
        say(f"  {printable(str(name))}: {', '.join([f'{rule} {quality}', *told])}")


def _mix(flag: str, texts: list[str]) -> str | list[str] | dict[str, float]:
    """One name, several, or weights by name where any has one."""
    if not any("=" in text for text in texts):
        return texts[0] if len(texts) == 1 else texts
    weights = _pairs(flag, [text if "=" in text else f"{text}=1" for text in texts])
    try:
        return {name: float(weight) for name, weight in weights.items()}
    except ValueError:
        raise UsageError(f"A weight of {flag} is a number, as in {next(iter(weights))}=2; got {texts}.") from None


def _pairs(flag: str, texts: list[str]) -> dict[str, str]:
    """Texts by name, of NAME=VALUE."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise UsageError(f"{flag} takes NAME=VALUE, as in bags=20; got {text!r}.")
        if name in pairs:
            raise UsageError(f"{flag} gives {name!r} twice.")
        pairs[name] = value
    return pairs


def _value(text: str) -> object:
    """A number, truth value or list as JSON writes it, otherwise the text itself."""
    try:
        return json_text.loads(text, parse_constant=lambda _: text)
    except ValueError:
        return text
