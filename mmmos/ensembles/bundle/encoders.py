"""The encoders of a bundle: where their weights are, and whether they are those that its members were trained on."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mmmos.ensembles.bundle.about import FeatureSet
from mmmos.ensembles.bundle.layouts import check_registered
from mmmos.ensembles.model import Loaded
from mmmos.errors import SetupError, UnknownName, UsageError, first_line
from mmmos.features import weights as files
from mmmos.features.encoders import encoder
from mmmos.features.extraction.work import feature_spec
from mmmos.features.spec import FeatureSpec

# What may be recorded as weights: a hub id, a file of one, a release, or a file or folder without its place.
_PUBLISHED = re.compile(r"\w[\w.-]*/\w[\w.-]*|hf://\w[\w.-]*/\w[\w.-]*/\w[\w.+-]*|https://[\w./%+-]+")
_BASE_NAME = re.compile(r"\w[\w.+ -]*")


def is_published(weights: str) -> bool:
    """True for a hub id or an address, which says the same on every machine."""
    return bool(_PUBLISHED.fullmatch(weights))


def check_name(name: str, encoders: Sequence[FeatureSet]) -> None:
    """Raise ``UnknownName`` for a name of neither a feature set nor an encoder of a bundle."""
    known = dict.fromkeys([*(each.name for each in encoders), *(each.encoder for each in encoders)])
    if name not in known:
        raise UnknownName("feature set or encoder of the bundle", name, known)


def load(
    each: FeatureSet, given: Mapping[str, str | Path], places: Iterable[Path], device: str, version: str
) -> Loaded:
    """A feature set with its encoder on a device.

    ``given``: weights by feature set or encoder; ``places``: folders where recorded local weights may lie; ``version``:
    of the MMMOS that wrote the bundle.
    Raises ``SetupError`` for weights that are not to be had, are others, or are run by code that gives other numbers.
    """
    check_registered("encoders", each.encoder)
    found = _weights(each, given, places)
    table = each.table(found)
    loaded = encoder(each.encoder, found, revision=table.revision, device=device, **_options(each))
    spec = feature_spec(table, loaded)
    if spec.fingerprint != each.fingerprint:
        raise SetupError(_difference(each, spec, version))
    return Loaded(spec, loaded)


def _options(each: FeatureSet) -> dict[str, object]:
    return {**each.options, **({"precision": each.precision} if each.precision else {})}


def _weights(each: FeatureSet, given: Mapping[str, str | Path], places: Iterable[Path]) -> str | None:
    """Weights with the recorded SHA-256; None for an encoder without weights."""
    if not each.weights:
        return None
    own = given.get(each.name, given.get(each.encoder))
    if own is not None:
        place = str(Path(own).expanduser())
        if not Path(place).exists():
            raise UsageError(f"There are no weights at {place!r}, given for {each.name}.")
        return _checked(each, place, place)
    if is_published(each.weights):
        try:
            path = files.find(each.weights, each.revision)
        except (SetupError, UsageError) as error:
            raise SetupError(_absent(each, first_line(error))) from None
        _checked(each, str(path), each.weights)
        return each.weights
    for folder in places if _BASE_NAME.fullmatch(each.weights) else ():
        if (folder / each.weights).exists():
            return _checked(each, str(folder / each.weights), str(folder / each.weights))
    raise SetupError(_absent(each, f"{each.weights!a} is neither beside the bundle nor in the current folder"))


def _checked(each: FeatureSet, path: str, name: str) -> str:
    """The path, after a look at its SHA-256 before anything reads the file."""
    got = files.checked(Path(path))
    if each.facts.sha256 and got != each.facts.sha256:
        raise SetupError(
            f"{name} is another file than the heads were trained on: its SHA-256 is {got}, that of the {each.encoder}"
            f" weights of the bundle {each.facts.sha256}. {_advice(each)}"
        )
    return path


def _absent(each: FeatureSet, reason: str) -> str:
    """What is missing, and how it is to be had."""
    facts = each.facts
    source = f"{each.weights} {each.revision}".strip()
    use = "" if each.commercial else ", not for commercial use"
    return (
        f"The bundle needs the weights of the encoder {each.encoder}: {source}, SHA-256 {facts.sha256}, licence"
        f" {facts.licence}{use}. {reason}. {_advice(each)}"
    )


def _advice(each: FeatureSet) -> str:
    own = f"--weights {each.name}=PATH"
    if not is_published(each.weights):
        return f"Give the file or folder that the bundle's maker used: {own}."
    pinned = f" --revision {each.revision}" if each.revision else ""
    return f"On a machine with network type mmmos features fetch {each.weights}{pinned}; or give a copy: {own}."


def _difference(each: FeatureSet, got: FeatureSpec, version: str) -> str:
    """How a loaded encoder differs from the recorded one, in words."""
    recorded, now = each.spec().encoder, got.encoder
    if recorded.sha256 != now.sha256:
        return (
            f"The weights of {each.encoder} are another file than the heads were trained on: SHA-256 {now.sha256}, in"
            f" the bundle {recorded.sha256}. {_advice(each)}"
        )
    before, after = each.spec().numbers(), got.numbers()
    pairs = [(before["encoder"], after["encoder"]), (before, after)]
    names = [
        key
        for old, new in pairs
        if isinstance(old, dict) and isinstance(new, dict)
        for key in old
        if key != "encoder" and old[key] != new.get(key)
    ]
    what = f" (other: {', '.join(map(str, names))})" if names else ""
    return (
        f"This MMMOS runs the encoder {each.encoder} in another way than the one that trained the heads{what}, so that"
        f" their scores would be wrong. Install mmmos=={version}, or train and export the ensemble again."
    )
