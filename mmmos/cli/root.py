"""Commands without a noun: run, score, init, demo, doctor, evaluate, app."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmmos.cli.app import app
from mmmos.cli.options import Address, Backend, Intervals, Jobs, Json, Logs, Shard, TrainingDevice
from mmmos.cli.output import counted, put_table, say, show_outcome, shown_path
from mmmos.cli.score import score
from mmmos.cli.workers import workers_of
from mmmos.errors import UsageError

if TYPE_CHECKING:
    from mmmos.pipeline.shards import Share


def run(
    challenge: Path = Path("challenge.toml"),
    /,
    *,
    jobs: Jobs = 0,
    backend: Backend = "local",
    address: Address = None,
    shard: Shard = None,
    logs: Logs = None,
    device: TrainingDevice = "auto",
    dry_run: bool = False,
) -> int:
    """Carry out a challenge file from manifests to a checked submission, skipping what is done.

    Example: mmmos run challenge.toml

    Parameters
    ----------
    challenge
        The file; its folder is the workspace.
    dry_run
        Say what would be done and what is there already.
    """
    workers = workers_of(backend, address, jobs, logs)

    from mmmos import pipeline
    from mmmos.pipeline import shards

    if dry_run:
        put_table(pipeline.plan(challenge))
        return 0
    if shard is not None:
        _say_share(shards.run_shard(challenge, shard=shard, jobs=workers, device=device))
        return 0
    return show_outcome(pipeline.run(challenge, jobs=workers, device=device))


def _say_share(share: "Share") -> None:
    """How far a shard is, and what finishes the run."""
    say(f"shard {share.shard}: its {share.clips} clips have features, or a reason why not.")
    if share.heads is None:
        say(
            f"The other shards' features of {share.lacking} clips are still to come; the same command goes on with the"
            " heads when they are done."
        )
        return
    say(str(share.heads))
    if share.heads.there < share.heads.wanted:
        say("The other shards' heads are still to come; when they are done, mmmos run without --shard finishes.")
    else:
        say("Nothing is missing: mmmos run without --shard finishes.")


def init(folder: Path = Path(), /) -> int:
    """Lay out a workspace: the three shelves with their recipes, and a challenge.toml to fill in.

    Files that exist are left as they are. Example: mmmos init my-challenge

    Parameters
    ----------
    folder
        The workspace; by default the current folder.
    """
    _check_folder(folder)
    from mmmos import workspace

    written, kept = workspace.lay_out(folder)
    say(f"{counted(len(written), 'file')} written to {shown_path(folder)}/, {len(kept)} left as they were.")
    challenge = shown_path(folder / "challenge.toml")
    command = "mmmos run" if challenge == "challenge.toml" else f"mmmos run {shlex.quote(challenge)}"
    say(f"Next: name your manifests in {challenge}, then type {command}")
    return 0


def demo(
    folder: Path = Path("demo"), /, *, size: Literal["tiny", "small"] = "small", seed: int = 0, jobs: Jobs = 0
) -> int:
    """Synthesize a small rated corpus, run the whole pipeline on it and keep a scorer of new audio.

    Audio and ratings are synthetic: the numbers show that the pipeline works and say nothing about people.
    Example: mmmos demo

    Parameters
    ----------
    folder
        The workspace to make.
    size
        Tiny takes seconds, small about a minute.
    seed
        Another seed makes another corpus.
    """
    _check_folder(folder)
    from mmmos import workspace
    from mmmos.demo import make_corpus
    from mmmos.pipeline import run as run_pipeline
    from mmmos.pipeline.bundles import export

    say(f"A synthesized corpus with simulated ratings (size {size}, seed {seed}) in {shown_path(folder)}/")
    challenge = make_corpus(folder, seed=seed, size=size)
    workspace.lay_out(folder)
    code = show_outcome(run_pipeline(challenge, jobs=jobs))
    bundle = shown_path(export(challenge, overwrite=True).path)
    say(f"{'bundle':<12} {bundle}")
    say(f"Next: mmmos score FILES --bundle {shlex.quote(bundle)}")
    return code


def _check_folder(folder: Path) -> None:
    """Raise ``UsageError`` where a file has the name of a folder that is to be made."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{shown_path(folder)} is a file; name a folder to make or to fill.")


def doctor(*, json: Json = False) -> int:
    """Say what this machine has and what is missing; exit code 5 when MMMOS cannot work here.

    Example: mmmos doctor
    """
    from mmmos import doctor as examination

    findings = examination.examine()
    put_table(findings, as_json=json)
    return 5 if (findings["state"] == "broken").any() else 0


def evaluate(
    predictions: Path,
    truth: Path,
    /,
    *,
    by: str | None = None,
    intervals: Intervals = 1000,
    method: Literal["auto", "jackknife", "bca", "percentile"] = "auto",
    unit: Literal["system", "clip"] = "system",
    seed: int = 0,
    json: Json = False,
) -> int:
    """The 32 challenge metrics of an answer file against a manifest with scores, with 95 % intervals.

    Example: mmmos evaluate submissions/demo/answer.txt demo/test.csv

    Parameters
    ----------
    predictions
        An answer file: id and one column for each axis.
    truth
        A manifest with the same clips and their scores.
    by
        A column of the manifest, such as domain: the metrics also for each of its values, and their mean.
    method
        Of the intervals.
    unit
        What the intervals take as drawn at random: a system with all its clips, or a clip.
    seed
        Of the resamples.
    """
    from mmmos.metrics import evaluate as measure

    table = measure(str(predictions), str(truth), by=by, intervals=intervals, method=method, unit=unit, seed=seed)
    put_table(table, as_json=json)
    return 0


COMMANDS = (run, score, init, demo, doctor, evaluate, app)
