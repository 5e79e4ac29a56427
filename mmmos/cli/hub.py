"""``mmmos ensembles push`` and ``mmmos features push``: bundles and feature sets on the Hugging Face hub."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mmmos.cli.output import printable, say

if TYPE_CHECKING:
    from mmmos.ensembles.bundle import About


def push_bundle(bundle: str, address: str, /, *, private: bool = False, message: str | None = None) -> int:
    """Put a bundle on the Hugging Face hub, where mmmos score finds it; it is read and verified before it is sent.

    The repository becomes what the bundle holds, and nothing else of this machine is sent. It takes a token: hf auth
    login, or HF_TOKEN. Example: mmmos ensembles push first hf://owner/first --private

    Parameters
    ----------
    bundle
        A folder, a zip, or the name of what mmmos ensembles export made.
    address
        hf://owner/name; the repository is made when it is absent.
    private
        Make it private; one that is there and public is left as it is.
    message
        Of the commit.
    """
    from tempfile import TemporaryDirectory

    from mmmos import hub
    from mmmos.ensembles.bundle import read_bundle
    from mmmos.ensembles.bundle.about import CARD
    from mmmos.scoring.naming import located

    where = hub.parse(address)
    source = located(bundle)
    about = read_bundle(source).about
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _unpack(source, folder)
        hub.check_licence(folder / CARD, "mmmos ensembles export")
        for line in _licences(about):
            say(line)
        url = hub.push(folder, where, kind="model", private=private, message=message or f"Bundle {about.name}")
    say(f"{source} is at {url}")
    say(f"Whoever may read it types: mmmos score clips/ --bundle {shlex.quote(str(where))}")
    return 0


def _unpack(source: Path, folder: Path) -> None:
    """Copy the files that are the bundle's, and no others, to a folder."""
    from contextlib import closing

    from mmmos.ensembles.bundle.container import open_container

    with closing(open_container(source)) as container:
        for name in container.sizes:
            (folder / name).write_bytes(container.read(name))


def _licences(about: "About") -> list[str]:
    """The licences that the use of a bundle is bound to, in words."""
    return [_licence(each.name, each.facts.licence, each.commercial) for each in about.encoders]


def _licence(name: str, licence: str, commercial: bool) -> str:
    limit = "" if commercial else "; they may NOT be used commercially"
    return f"Weights of {name}: {printable(licence) or 'licence unknown'}{limit}."


def push_features(folder: Path, address: str, /, *, private: bool = False, message: str | None = None) -> int:
    """Put exported embeddings on the Hugging Face hub, after every number in them is verified.

    The data set repository becomes what the folder holds. It takes a token: hf auth login, or HF_TOKEN.
    Example: mmmos features push shared hf://owner/embeddings --private

    Parameters
    ----------
    folder
        What mmmos features export wrote.
    address
        hf://owner/name; the repository is made when it is absent.
    private
        Make it private; one that is there and public is left as it is.
    message
        Of the commit.
    """
    from mmmos.features.encoders import cards
    from mmmos.features.sharing.publishing import push_features as push

    done = push(folder, address, private=private, message=message)
    restricted = {card.family: card.licence for card in cards() if not card.commercial}
    for name, family in done.families.items():
        if family in restricted:
            say(_licence(name, restricted[family], commercial=False))
    say(f"{folder} is at {done.url}")
    say(f"Whoever may read it types: mmmos features import {shlex.quote(address)}")
    return 0
