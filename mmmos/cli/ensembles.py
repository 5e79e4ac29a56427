"""``mmmos ensembles``: train heads, look at them, choose some."""

from pathlib import Path

from cyclopts import App

from mmmos.cli.output import put_table, say, shown_path

app = App(name="ensembles", help="Train many light heads on stored features, choose a few.")


@app.command
def train(
    recipe: str | None = None,
    /,
    *,
    challenge: Path = Path("challenge.toml"),
    jobs: int = 0,
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
        Processes; 0: one for each core when it takes long.
    device
        Where clips are encoded and heads trained: auto, cpu, cuda, cuda:1, mps (heads then on the CPU).
    exact
        On a GPU, train each head alone, so that its bits do not depend on the others.
    """
    from mmmos import pipeline

    pool = pipeline.train_pool(challenge, recipe=recipe, jobs=jobs, device=device, exact=exact)
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
def show(recipe: str | None = None, /, *, challenge: Path = Path("challenge.toml"), json: bool = False) -> int:
    """Every trained head of a recipe with its SRCC on each labelled set, best first.

    Example: mmmos ensembles show quick

    Parameters
    ----------
    recipe
        An ensemble recipe; by default the challenge's own.
    """
    from mmmos import pipeline
    from mmmos.ensembles.ensemble import select

    pool, wanted = pipeline.finished_pool(challenge, recipe=recipe)
    members = select(pool, "average").members().drop(columns=[f"weight_{axis}" for axis in pool.axes])
    by = next((f"{name}_utt_SRCC" for name in ("pam", "dev", "oof") if f"{name}_utt_SRCC" in members), "name")
    put_table(members.sort_values(by, ascending=by == "name", kind="stable"), as_json=json)
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
    metric: str | None = None,
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
        average, best, top_k, intersect or a plug-in's.
    on
        Sets whose scores may be looked at: pam, dev, oof; repeatable.
    k
        How many heads.
    metric
        utt_SRCC, utt_LCC, utt_KTAU, utt_MSE, or the same with sys_.
    """
    from mmmos import pipeline

    sets = on[0] if on and len(on) == 1 else on
    given = {"on": sets, "k": k, "metric": metric}
    parameters = {key: value for key, value in given.items() if value is not None}
    ensemble, record = pipeline.choose(challenge, name=name, recipe=recipe, rule=rule, **parameters)
    put_table(ensemble.members(), as_json=json)
    say(f"{len(ensemble)} of {len(ensemble.pool)} heads: {shown_path(record)}")
    return 0
