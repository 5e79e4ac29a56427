"""``push``: an exported folder becomes a data set repository of the hub."""

from dataclasses import dataclass
from pathlib import Path

from mmmos import hub
from mmmos.features.sharing.exports import README
from mmmos.features.sharing.imports import check


@dataclass(frozen=True)
class Pushed:
    """What was pushed: the commit's URL; family of the encoder of each feature set."""

    url: str
    families: dict[str, str]


def push_features(folder: str | Path, address: str, *, private: bool = False, message: str | None = None) -> Pushed:
    """Verify an exported folder as an import would, and make its files those of a data set on the hub.

    Raises ``InputError`` for what an import would refuse and for a README without a licence, and what ``hub.push``
    raises.
    """
    where = hub.parse(address)
    families = {str(each.about["name"]): str(each.about["encoder"].get("family")) for each in check(folder)}
    hub.check_licence(Path(folder) / README, "mmmos features export")
    url = hub.push(folder, where, kind="dataset", private=private, message=message or "Embeddings from MMMOS")
    return Pushed(url, families)
