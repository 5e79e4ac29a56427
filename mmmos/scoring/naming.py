"""From what a user calls a bundle to a model."""

import re
from collections.abc import Mapping
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
    from mmmos.ensembles.bundle import read_bundle

    if hub.is_address(text):
        return read_bundle(hub.pull(text, kind="model", allowed=FILES, limit=LIMIT), weights=weights)
    return read_bundle(located(text), weights=weights)


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
