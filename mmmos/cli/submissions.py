"""``mmmos submissions``: write, check and compare answer files."""

from pathlib import Path

from cyclopts import App

from mmmos.axes import AXES
from mmmos.cli.output import put, put_table, say, show_outcome, shown_path

app = App(name="submissions", help="Answer files that are checked before they are sent; leaderboards and reports.")

FORMAT = "audiomos2025-track2"


@app.command
def write(
    predictions: Path,
    /,
    *,
    to: Path,
    clips: Path | None = None,
    format: str = FORMAT,
    no_header: bool = False,
) -> int:
    """Write predictions (a table with an id and the axes) as a checked submission.

    Example: mmmos submissions write scores.csv --clips eval_list.txt --to submissions/mine

    Parameters
    ----------
    to
        The folder to write to.
    clips
        The manifest or id list that must be answered, in its order.
    format
        A format (name or .toml).
    no_header
        Leave the header out, where the format allows it.
    """
    from mmmos.manifest import read_manifest
    from mmmos.metrics import read_predictions
    from mmmos.submissions.write import write_submission

    listed = None if clips is None else read_manifest(str(clips), labels=False)
    header = False if no_header else None
    path = write_submission(read_predictions(predictions), listed, format=format, to=to, header=header)
    say(f"Written: {shown_path(path)}")
    return 0


@app.command
def check(path: Path, /, *, clips: Path | None = None, format: str = FORMAT) -> int:
    """Name everything that is wrong with an answer file, its zip or its folder; exit code 4 when something is.

    Example: mmmos submissions check submissions/first --clips eval_list.txt

    Parameters
    ----------
    clips
        The manifest or id list that must be answered.
    format
        A format (name or .toml).
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
def leaderboard(
    *predictions: Path, truth: Path, to: Path | None = None, intervals: int = 1000, json: bool = False
) -> int:
    """Compare answer files with the truth, best first, with 95 % intervals.

    Example: mmmos submissions leaderboard a/answer.txt b/answer.txt --truth test.csv --to boards

    Parameters
    ----------
    truth
        A manifest with scores.
    to
        A folder for leaderboard.csv, .md and .html.
    intervals
        Bootstrap resamples; 0 for none.
    """
    from mmmos.submissions.leaderboard import compare, write_leaderboard

    table = compare(predictions, truth, intervals=intervals)
    shown = [name for name in table.columns if not name.startswith(AXES)]
    put_table(table if json else table[shown], as_json=json)
    if to is not None:
        for path in write_leaderboard(table, to):
            say(f"Written: {shown_path(path)}")
    return 0


@app.command
def report(challenge: Path = Path("challenge.toml"), /) -> int:
    """Write report.html and the leaderboard files of a challenge's submission again, from what is on disk.

    Example: mmmos submissions report challenge.toml
    """
    from mmmos import pipeline

    return show_outcome(pipeline.report(challenge))
