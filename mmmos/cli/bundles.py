"""``mmmos ensembles export``: a chosen ensemble as a bundle that scores audio anywhere."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mmmos.cli.options import ChallengeFile
from mmmos.cli.output import number_with_interval, put, say, shown_path

if TYPE_CHECKING:
    from mmmos.ensembles.bundle.about import About, Quality


def export(
    name: str | None = None,
    /,
    *,
    to: Path | None = None,
    challenge: ChallengeFile = Path("challenge.toml"),
    overwrite: bool = False,
) -> int:
    """Write a chosen ensemble as a bundle: arrays, JSON and a model card, no code, to score audio anywhere.

    Example: mmmos ensembles export first --to first.zip

    Parameters
    ----------
    name
        Name of the ensemble, as in ensembles/NAME.json; by default the challenge's submission.
    to
        A folder, or a zip where it ends in .zip; by default submissions/NAME/bundle of the workspace.
    overwrite
        Replace a bundle that is there.
    """
    from mmmos.pipeline.bundles import export as write

    done = write(challenge, name, to=to, overwrite=overwrite)
    place = shown_path(done.path)
    _say_licences(done.about)
    heads = sum(len(member.epochs) for member in done.about.members)
    there = ", is there already" if done.was_there else ""
    say(f"{done.name}: {len(done.about.members)} members ({heads} heads), {done.size / 1e6:.1f} MB{there}")
    for each in done.about.metrics:
        say(f"  {_quality(each)}")
    put(place)
    say(f"Next: mmmos score clips/ --bundle {shlex.quote(place)}")
    return 0


def _quality(each: "Quality") -> str:
    """SRCC on a set, mean over axes, at the levels that there are."""
    seen = " (which the ensemble was chosen or scaled on)" if each.seen else ""
    found = []
    for level, what in (("utt", "clips"), ("sys", "systems")):
        if f"{level}_SRCC" in each.scores:
            ends = each.scores[f"{level}_SRCC"]["mean"].model_dump().values()
            count = each.clips if level == "utt" else each.systems
            numbers = (float("nan") if end is None else float(end) for end in ends)
            found.append(f"{number_with_interval(*numbers)} over {count} {what}")
    return f"SRCC on {each.set}{seen}: {', '.join(found)}"


def _say_licences(about: "About") -> None:
    """Say which weights the user of the bundle will need, and aloud which of them are not for commercial use."""
    for each in about.encoders:
        if not each.commercial:
            say(f"The weights of {each.encoder} may not be used commercially ({each.facts.licence}), nor this bundle.")
        if each.weights:
            say(f"The weights of {each.encoder} are not in the bundle: {each.weights}, licence {each.facts.licence}.")
