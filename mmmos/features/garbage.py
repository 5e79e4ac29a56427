"""What a store can do without: feature sets that no recipe leads to, and what broken writers left."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mmmos import progress
from mmmos.errors import SetupError, first_line
from mmmos.features import encoders, weights
from mmmos.features.extraction.work import feature_spec, load_encoders
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.store import folder_of, hashes, lists
from mmmos.features.store.location import local
from mmmos.features.store.shard import SPEC
from mmmos.features.store.upkeep import DAMAGED, folders
from mmmos.files import leftovers


@dataclass(frozen=True)
class Waste:
    """Something in a store that can go: its path, why, and its bytes."""

    path: Path
    why: str
    size: int

    def remove(self) -> None:
        """Delete it; nothing happens where it is gone already. Raises ``OSError``."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Reach:
    """What recipes lead to: names of folders; and names of feature sets that cannot be told, with the reason."""

    folders: frozenset[str]
    untold: Mapping[str, str]


def reach(recipes: Iterable[FeatureRecipe], store: str | Path) -> Reach:
    """Which feature sets of a store recipes lead to. Encoders are loaded one by one, and none is downloaded.

    An encoder that is not on this machine or cannot be loaded leaves its feature sets untold.
    """
    names = {_name(folder) for folder in _folders(store)}
    tables = {table.model_dump_json(): table for recipe in recipes for table in recipe.tables()}
    asked = [table for table in tables.values() if table.set_name in names]
    found, untold = set(), {}
    for table in progress.track(asked, len(asked), "looking what recipes lead to"):
        try:
            found.add(_folder(table, store))
        except Exception as error:
            # Plug-ins raise what they like.
            untold[table.set_name] = first_line(error)
    load_encoders([], "cpu")
    return Reach(frozenset(found), untold)


def _folder(table: EncoderRecipe, store: str | Path) -> str:
    card = encoders.card(table.encoder)
    source = card.weights if table.weights is None else table.weights
    revision = table.revision or (card.revision if table.weights is None else "")
    if source and weights.is_here(source, revision) is None:
        raise SetupError(f"its weights {source} are not on this machine")
    return folder_of(store, feature_spec(table, load_encoders([table], "cpu")[0])).name


def waste(store: str | Path, reached: Reach) -> list[Waste]:
    """Everything in a store that can go."""
    sets = _folders(store)
    found = [_waste(path, "left by a killed process") for path in leftovers(store)]
    for name in (hashes.FOLDER, lists.FOLDER):
        found += [_waste(path, "left by a killed process") for path in leftovers(Path(store) / name)]
    for folder in sets:
        if folder.name not in reached.folders and _name(folder) not in reached.untold:
            # A folder without a spec is nobody's feature set.
            if (folder / SPEC).is_file():
                found.append(_waste(folder, "no recipe leads to it"))
            continue
        found += [_waste(path, "set aside as damaged") for path in sorted(folder.glob(f"*{DAMAGED}"))]
        found += [_waste(path, "left by a killed process") for path in leftovers(folder)]
    return found


def _folders(store: str | Path) -> list[Path]:
    """The folders of feature sets. Raises ``UsageError`` for a store at a URL."""
    return [folder for folder in folders(local(store, "tidied up")) if isinstance(folder, Path)]


def _waste(path: Path, why: str) -> Waste:
    is_folder = path.is_dir() and not path.is_symlink()
    files = [file for file in path.rglob("*") if not file.is_dir()] if is_folder else [path]
    return Waste(path, why, sum(file.lstat().st_size for file in files))


def _name(folder: Path) -> str:
    """The feature set's name, which a fingerprint of twelve digits follows."""
    return folder.name[:-13]
