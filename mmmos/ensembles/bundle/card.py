"""The model card of a bundle: ``README.md``, in the form that the hub shows, all of it from ``bundle.json``."""

import re

from mmmos.axes import LONG_NAMES
from mmmos.ensembles.bundle.about import About, FeatureSet, Number, Quality
from mmmos.ensembles.bundle.encoders import is_published

_METRICS = ("SRCC", "LCC", "KTAU", "MSE")


def card(about: About) -> str:
    """The text of ``README.md``."""
    sections = [_front(), _what(about), _use(about), _quality(about), _members(about), _encoders(about)]
    return "\n".join([*sections, _data(about), _limits(about)])


def _front() -> str:
    """The YAML that the hub reads. What the maker allows is the maker's to write; encoders' licences bind anyone."""
    tags = ["mmmos", "audio", "audio-quality", "mos-prediction", "aesthetics"]
    licence = ["license: other", "license_name: see-encoders"]
    lines = [*licence, "library_name: mmmos", "pipeline_tag: audio-classification", "tags:"]
    return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---", ""])


def _what(about: About) -> str:
    axes = ", ".join(f"{LONG_NAMES[axis].replace('_', ' ')} ({axis})" for axis in about.axes)
    anchored = ""
    if about.anchoring is not None:
        by = " of each domain" if about.anchoring.domains else ""
        anchored = f" Scores are brought to the scale of {_text(about.anchoring.on)} by a line for each axis{by}."
    return f"""\
# {about.name}

What people would think of audio, on a scale of 0 to 10: {axes}.
The weighted mean of {len(about.members)} light heads on the embeddings of frozen encoders, chosen by the rule
{_text(about.rule.rule)} from {about.pool} heads of the recipe {_text(about.recipe)}.{anchored}
Made with MMMOS {_text(about.mmmos)}; there is no code in it.
"""


def _use(about: About) -> str:
    return f"""\
## How to use it

    mmmos score clips/ --bundle {about.name}

where `{about.name}` is this folder, or in Python

    import mmmos
    scorer = mmmos.load("{about.name}")
    print(scorer("clip.wav"))

Beside each score stands its spread, the standard deviation of what the single heads say.
"""


def _quality(about: About) -> str:
    if not about.metrics:
        return "## Quality\n\nNo set with scores was at hand.\n"
    lines = [
        "## Quality",
        "",
        (
            "Means over the axes with 95 % intervals; SRCC of each axis below. Nothing here was measured on a sealed"
            " evaluation set."
        ),
        "",
        "| set | clips | level | SRCC | LCC | KTAU | MSE |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in about.metrics:
        lines += [_row([_set_name(each), each.clips, level, *cells]) for level, cells in _levels(each)]
    if any(each.seen for each in about.metrics):
        lines += ["", "\\* The ensemble was chosen or scaled on this set, which flatters it."]
    lines += ["", _row(["set", "level", *about.axes]), "|" + "---|" * (2 + len(about.axes))]
    for each in about.metrics:
        for level in ("utt", "sys"):
            numbers = each.scores.get(f"{level}_SRCC")
            if numbers:
                lines.append(_row([_set_name(each), _LEVELS[level], *(_number(numbers[axis]) for axis in about.axes)]))
    return "\n".join([*lines, ""])


_LEVELS = {"utt": "clips", "sys": "systems"}


def _levels(each: Quality) -> list[tuple[str, list[str]]]:
    """The cells of both levels, as far as there are systems."""
    known = [level for level in _LEVELS if f"{level}_SRCC" in each.scores]
    return [(_LEVELS[level], [_number(each.scores[f"{level}_{m}"]["mean"]) for m in _METRICS]) for level in known]


def _set_name(each: Quality) -> str:
    return each.set + (" \\*" if each.seen else "")


def _number(number: Number) -> str:
    if number.value is None:
        return "–"
    ends = "" if number.low is None or number.high is None else f" ({number.low:.3f} to {number.high:.3f})"
    return f"{number.value:.3f}{ends}"


def _members(about: About) -> str:
    lines = ["## Members", "", _row(["run", "head", "heads", *about.axes]), "|" + "---|" * (3 + len(about.axes))]
    for member in about.members:
        weights = [f"{member.weights[axis]:.4g}" for axis in about.axes]
        lines.append(_row([f"`{member.key}`", _text(member.spec.name), len(member.epochs), *weights]))
    return "\n".join([*lines, ""])


def _encoders(about: About) -> str:
    lines = ["## Encoders", ""]
    if not about.commercial:
        lines += ["**Weights of an encoder below may not be used commercially, and so neither may this ensemble.**", ""]
    return "\n".join([*lines, *(line for each in about.encoders for line in _encoder(each))])


def _encoder(each: FeatureSet) -> list[str]:
    facts = each.facts
    where = f"{each.weights} {each.revision}".strip() if is_published(each.weights) else "the maker's own"
    rows = {
        "weights": f"{_text(where)}, SHA-256 {facts.sha256}" if facts.sha256 else "none",
        "licence": _text(facts.licence) + ("" if each.commercial else ", **not for commercial use**"),
        "input": f"{facts.rate} Hz, windows of {each.window:g} s every {each.hop:g} s",
        "vectors": f"{facts.layers} layers × {facts.dim}, {each.dtype}",
        "fingerprint": each.fingerprint,
    }
    return [f"### {_text(each.name)} ({_text(each.encoder)})", "", *(f"- {k}: {v}" for k, v in rows.items()), ""]


def _data(about: About) -> str:
    lines = ["## Data", "", "SHA-256 of ids and scores; of a sealed set of its ids alone.", ""]
    lines += ["| set | clips | digest |", "|---|---|---|"]
    lines += [_row([_text(name), about.clips.get(name, 0), digest]) for name, digest in about.manifests.items()]
    return "\n".join([*lines, ""])


def _limits(about: About) -> str:
    domains = ", ".join(_text(domain) for domain in about.reference if domain)
    heard = f" The clips that it learned from are of these domains: {domains}." if domains else ""
    return f"""\
## Limits

It predicts mean ratings of listening tests like the one that it learned from, and says nothing of audio, listeners or
scales beyond them.{heard} Scores near the ends of the scale are rare in such tests and less sure; a large spread says
that the heads disagree.
"""


def _row(cells: list[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _text(text: str) -> str:
    """A name as plain text of Markdown, on one line."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", plain)
