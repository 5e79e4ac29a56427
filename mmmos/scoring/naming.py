"""From what a user calls a bundle to a model."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmmos import hub
from mmmos.ensembles.model import Model
from mmmos.errors import UnknownName, UsageError
from mmmos.features.spec import NAME

AUDIOBOX, PUBLISHED = "audiobox", "facebook/audiobox-aesthetics"
ABOUT = "bundle.json"
# Where ``mmmos ensembles export`` puts bundles, and files of one on the hub with the bytes that are fetched at most.
PLACES = ("submissions/{name}/bundle", "submissions/{name}/bundle.zip", "{name}/submissions/{name}/bundle")
FILES, LIMIT = (ABOUT, "README.md", "*.safetensors"), 4 * 10**9


def find(bundle: Any, *, weights: Mapping[str, str | Path] = {}) -> Model:
    """The model that is meant by a name, a folder or zip, an address, Audiobox's checkpoint, or that is given.

    ``weights``: as for ``mmmos.load``. Raises ``UnknownName``, ``UsageError``, and what reading a bundle raises.
    """
    if not isinstance(bundle, str | Path):
        if isinstance(getattr(bundle, "digest", None), str) and callable(getattr(bundle, "predict", None)):
            model: Model = bundle
            return model
        raise UsageError(f"A bundle is a name, a path, an address or a model; got {type(bundle).__name__}.")
    text = str(bundle)
    if is_audiobox(text):
        from mmmos.scoring.audiobox import audiobox_model

        if text not in (AUDIOBOX, PUBLISHED):
            if weights:
                raise UsageError(f"{text} is a checkpoint itself and takes no other weights; leave them out.")
            return audiobox_model(text)
        unknown = [name for name in weights if name != AUDIOBOX]
        if unknown:
            raise UnknownName("encoder of this bundle", unknown[0], [AUDIOBOX])
        return audiobox_model(weights.get(AUDIOBOX))
    place = hub.pull(text, kind="model", allowed=FILES, limit=LIMIT) if hub.is_address(text) else located(text)
    from mmmos.ensembles.bundle import read_bundle

    return read_bundle(place, weights=weights)


@dataclass(frozen=True)
class Source:
    """Where a model is, in words that any process understands: paths are absolute.

    ``bundle`` and ``weights`` (pairs): as for ``find``. ``digest``: of the model that is meant.
    """

    bundle: str
    weights: tuple[tuple[str, str], ...]
    digest: str

    def model(self) -> Model:
        """The model that is found there now, whatever its digest. Raises what ``find`` raises."""
        return find(self.bundle, weights=dict(self.weights))


def source(bundle: str | Path, weights: Mapping[str, str | Path], model: Model) -> Source:
    """Where ``find`` found a model, seen from the current folder."""
    text = str(bundle)
    if is_audiobox(text):
        place = text if text in (AUDIOBOX, PUBLISHED) else _absolute(text)
    else:
        place = text if hub.is_address(text) else _absolute(located(text))
    known = {**_in_this_folder(model, weights), **weights}
    return Source(place, tuple(sorted((name, _absolute(path)) for name, path in known.items())), model.digest)


def _absolute(path: str | Path) -> str:
    """A path from the root; anything else, such as a hub id, as it is."""
    place = Path(path).expanduser()
    return str(place.absolute()) if place.exists() else str(path)


def _in_this_folder(model: Model, weights: Mapping[str, str | Path]) -> dict[str, str]:
    """Local weights that a bundle finds in the current folder, by feature set."""
    from mmmos.ensembles.bundle import Bundle
    from mmmos.ensembles.bundle.encoders import is_published

    if not isinstance(model, Bundle):
        return {}
    found = {}
    for each in model.about.encoders:
        is_local = each.weights and Path(each.weights).name == each.weights and not is_published(each.weights)
        beside = model.folder is not None and (model.folder / each.weights).exists()
        if is_local and not beside and not {each.name, each.encoder} & set(weights) and Path(each.weights).exists():
            found[each.name] = each.weights
    return found


def is_audiobox(text: str) -> bool:
    """Whether an Audiobox checkpoint is meant: "audiobox", a .pt, a folder in the hub's layout, the published hub id.

    Another hub id is no path that was mistyped only where it is named as ``weights``.
    """
    path = Path(text).expanduser()
    if (path / ABOUT).is_file():
        return False
    return text in (AUDIOBOX, PUBLISHED) or path.suffix == ".pt" or (path / "config.json").is_file()


def located(text: str) -> Path:
    """Where a bundle is, by its path or, from the current folder, by its name. Raises ``UnknownName``."""
    path = Path(text).expanduser()
    if path.is_file() or (path / ABOUT).is_file():
        return path
    if re.fullmatch(NAME, text):
        for place in (Path(place.format(name=text)) for place in PLACES):
            if (place / ABOUT).is_file() or (place.suffix == ".zip" and place.is_file()):
                return place
    if path.exists():
        return path
    error = UnknownName("bundle", text, [*names(), AUDIOBOX])
    error.args = (f"{error} A bundle is made by: mmmos ensembles export NAME",)
    raise error


def names() -> list[str]:
    """Bundles that the current folder has by name."""
    found = {path.parent.parent.name for path in Path().glob(f"submissions/*/bundle/{ABOUT}")}
    found |= {path.parent.name for path in Path().glob("submissions/*/bundle.zip")}
    for path in Path().glob(f"*/submissions/*/bundle/{ABOUT}"):
        found |= {path.parts[0]} & {path.parts[2]}
    return sorted(found)
