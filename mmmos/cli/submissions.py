"""``mmmos submissions``: write, check and compare answer files."""

from pathlib import Path
from typing import Literal

from cyclopts import App

from mmmos.cli.options import Format, Json
from mmmos.cli.output import put, put_table, say, show_outcome, shown_path, with_intervals

app = App(name="submissions", help="Answer files that are checked before they are sent; leaderboards and reports.")

FORMAT = "audiomos2025-track2"


@app.command
def write(
    predictions: Path,
    /,
    *,
    to: Path,
    clips: Path | None = None,
    format: Format = FORMAT,
    no_header: bool = False,
    outside: Literal["error", "clip"] | None = None,
) -> int:
    """Write predictions (a table with an id and the format's scores) as a checked submission.

    Example: mmmos submissions write scores.csv --clips eval_list.txt --to submissions/mine

    Parameters
    ----------
    predictions
        A table with an id and the format's scores: CSV, or an answer file.
    to
        The folder to write to.
    clips
        The manifest or id list that must be answered, in its order.
    no_header
        Leave the header out, where the format allows it.
    outside
        Scores out of range: "error" refuses them, "clip" moves them to its ends; by default as the format says.
    """
    from mmmos.manifest import read_manifest
    from mmmos.predictions import read_predictions
    from mmmos.submissions.formats import read_format
    from mmmos.submissions.write import write_submission

    rules = read_format(format)
    listed = None if clips is None else read_manifest(str(clips), labels=False)
    header = False if no_header else None
    scores = read_predictions(predictions, rules.axes, rules.axis_of)
    path = write_submission(scores, listed, format=format, to=to, header=header, outside=outside)
    say(f"Written: {shown_path(path)}")
    return 0


@app.command
def check(path: Path, /, *, clips: Path | None = None, format: Format = FORMAT) -> int:
    """Name everything that is wrong with an answer file, its zip or its folder; exit code 4 when something is.

    Example: mmmos submissions check submissions/first --clips eval_list.txt

    Parameters
    ----------
    path
        The answer file, its zip, or the folder that it is in.
    clips
        The manifest or id list that must be answered.
    """
    from mmmos.manifest import read_manifest
    from mmmos.submissions.check import check_submission

    listed = None if clips is None else read_manifest(str(clips), labels=False)
    problems = check_submission(path, format=format, clips=listed)
    for problem in problems:
        put(str(problem))
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    say(f"{count}: not to be sent as it is." if problems else f"{shown_path(path)} is valid ({format}).")
    return 4 if problems else 0


@app.command
def formats(*, json: Json = False) -> int:
    """The formats at hand: what each is for, its columns, how many rows it has, and the file that holds its rules.

    Example: mmmos submissions formats
    """
    import pandas as pd

    from mmmos import recipe
    from mmmos.errors import UsageError
    from mmmos.submissions.formats import format_names, read_format

    rows, code, shelf = [], 0, recipe.names("submissions")
    for name in format_names():
        try:
            rules = read_format(name)
        except UsageError as error:
            say(str(error))
            code = 3
            continue
        rows.append(
            {
                "format": name,
                "title": rules.title,
                "columns": list(rules.columns) if json else ",".join(rules.columns),
                "rows": rules.rows if json else str(rules.rows or "–"),
                "path": shown_path(recipe.find("submissions", name)) if name in shelf else "a plug-in",
            }
        )
    put_table(pd.DataFrame(rows, dtype=object), as_json=json)
    return code


@app.command
def leaderboard(
    *answers: Path,
    truth: Path | None = None,
    challenge: Path | None = None,
    on: str = "pam",
    recipe: str | None = None,
    top: int = 20,
    to: Path | None = None,
    intervals: int = 1000,
    json: Json = False,
) -> int:
    """Compare answer files with the truth, or the runs of a challenge, best first, with intervals and tests.

    Example: mmmos submissions leaderboard a/answer.txt b/answer.txt --truth test.csv --to boards

    Parameters
    ----------
    answers
        Answer files; with --challenge, those that answer the clips of its set.
    truth
        A manifest with scores.
    challenge
        A challenge file, to rank its trained runs and ensembles.
    on
        With --challenge: the set to compare on: pam, dev, oof, or eval where its scores are known.
    recipe
        With --challenge: another ensemble recipe than its own.
    top
        With --challenge: how many runs are shown.
    to
        A folder for leaderboard.csv, .md and .html.
    intervals
        Resamples of the intervals and permutations of the tests; 0 for neither.
    """
    from mmmos.errors import UsageError
    from mmmos.submissions.board import for_people, write_leaderboard
    from mmmos.submissions.leaderboard import compare

    if (truth is None) == (challenge is None):
        raise UsageError("Give either --truth, a manifest with scores, or --challenge, a challenge file.")
    notes: list[str] = []
    if challenge is not None:
        from mmmos.pipeline.ranking import rank

        table, notes = rank(challenge, on=on, recipe=recipe, top=top, answers=answers, intervals=intervals)
    else:
        table = compare(answers, str(truth), intervals=intervals)
    put_table(table if json else with_intervals(for_people(table)), as_json=json)
    for note in notes:
        say(note)
    if to is not None:
        for path in write_leaderboard(table, to, notes=notes):
            say(f"Written: {shown_path(path)}")
    return 0


@app.command
def report(challenge: Path = Path("challenge.toml"), /) -> int:
    """Write report.html and the leaderboard files of a challenge's submission again, from what is on disk.

    Example: mmmos submissions report challenge.toml

    Parameters
    ----------
    challenge
        The file; its folder is the workspace.
    """
    from mmmos import pipeline

    return show_outcome(pipeline.report(challenge))
