"""``mmmos ensembles select``: some heads of a pool as an ensemble, by a rule."""

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING

from mmmos.cli.options import ChallengeFile, EnsembleRecipe, Intervals, Json
from mmmos.cli.output import number_with_interval, printable, put_table, say, shown_path, with_intervals
from mmmos.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

# What a rule is compared with on clips it did not see.
_OTHERS = {"best": "the best head", "average": "the mean of all"}


def select(
    name: str | None = None,
    /,
    *,
    recipe: EnsembleRecipe = None,
    rule: str | None = None,
    on: list[str] | None = None,
    k: int | None = None,
    metric: list[str] | None = None,
    calibrate: str | None = None,
    option: list[str] | None = None,
    stability: int = 0,
    intervals: Intervals = 200,
    challenge: ChallengeFile = Path("challenge.toml"),
    json: Json = False,
) -> int:
    """Choose an ensemble and write it to ensembles/NAME.json; without a rule, the recipe's own.

    Example: mmmos ensembles select robust --rule intersect --on dev --on pam --k 8

    Parameters
    ----------
    name
        Name of the ensemble; by default the challenge's submission.
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
    """
    from mmmos import pipeline
    from mmmos.ensembles.stability import resample

    given: dict[str, object] = {"on": on and _mix("--on", on), "k": k, "metric": metric and _mix("--metric", metric)}
    parameters = {key: value for key, value in given.items() if value is not None}
    parameters |= {} if calibrate is None else {"calibrate": calibrate}
    parameters |= {key: _value(text) for key, text in _pairs("--option", option or []).items()}
    check_resamples("--stability", stability)
    check_resamples("--intervals", intervals)
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


def check_resamples(flag: str, number: int) -> None:
    """Raise ``UsageError`` for a negative number."""
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
