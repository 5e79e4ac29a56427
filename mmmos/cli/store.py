"""``mmmos features verify`` and the other commands that look after a store or share it."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmmos.cli.hub import push_features
from mmmos.cli.inputs import refuse_options
from mmmos.cli.options import Input, Root, Store
from mmmos.cli.output import agreeing, counted, put_table, say, say_unusable, shown_path

if TYPE_CHECKING:
    from mmmos.features.spec import FeatureRecipe


def verify(*, store: Store = "features", full: bool = False) -> int:
    """Check that a store is whole; exit code 4 when something is damaged.

    Example: mmmos features verify --full

    Parameters
    ----------
    full
        Read every byte, not only the headers, indices and lengths.
    """
    from mmmos.errors import StoreError
    from mmmos.features.store.upkeep import verify as verify_store

    problems = verify_store(store, full=full)
    if problems:
        raise StoreError("\n".join([*problems, "Everything else is whole."]))
    say(f"{shown_store(store)} is whole{'' if full else '; --full reads every byte'}.")
    return 0


def compact(*, store: Store = "features") -> int:
    """Make one flat file of the many shards of each feature set, without what is damaged or there twice.

    It may be interrupted, and extraction may go on meanwhile. Example: mmmos features compact
    """
    import pandas as pd

    from mmmos.features.store.upkeep import compact_all

    rows = [
        {
            "feature_set": each.folder,
            "files_before": each.files_before,
            "files": each.files,
            "MB_before": each.bytes_before / 1e6,
            "MB": each.bytes / 1e6,
        }
        for each in compact_all(store)
    ]
    put_table(pd.DataFrame(rows), decimals=1)
    return 0


def gc(
    workspace: Path = Path(),
    /,
    *,
    store: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> int:
    """Delete what no recipe leads to, shards set aside as damaged, and what killed processes left; it asks first.

    Recipes are those of the workspace's shelf and of the package, and the [features] of each challenge*.toml. Nothing
    is downloaded; feature sets of an encoder that cannot be loaded are kept. Example: mmmos features gc --dry-run

    Parameters
    ----------
    workspace
        The folder with the recipes.
    store
        The store's folder; by default the workspace's features/.
    yes
        Delete without asking.
    dry_run
        Only list what would be deleted.
    """
    import pandas as pd

    from mmmos.errors import UsageError
    from mmmos.features.garbage import reach, waste

    store = str(workspace / "features") if store is None else store
    reached = reach(_recipes(workspace), store)
    for name, reason in reached.untold.items():
        say(f"Feature sets called {name} are kept: what a recipe leads to cannot be told ({reason}).")
    found = waste(store, reached)
    if not found:
        say(f"There is nothing to delete in {shown_store(store)}.")
        return 0
    rows = [{"path": shown_path(each.path), "why": each.why, "MB": each.size / 1e6} for each in found]
    put_table(pd.DataFrame(rows, dtype=object).astype({"MB": float}), decimals=1)
    size = f"{len(found)} thing{'s' if len(found) > 1 else ''}, {sum(each.size for each in found) / 1e6:.1f} MB"
    if dry_run:
        say(f"These {size}, would be deleted.")
        return 0
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"Nothing is deleted, since nobody can be asked. To delete these {size}, add --yes.")
        if not _agreed(f"Delete these {size}? [y/N] "):
            say("Nothing is deleted.")
            return 0
    for each in found:
        each.remove()
    say(f"{size} deleted.")
    return 0


def _agreed(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _recipes(workspace: Path) -> "list[FeatureRecipe]":
    """Every feature recipe of a workspace and of the package, and what challenge files ask for."""
    from mmmos import recipe
    from mmmos.challenge import Challenge
    from mmmos.errors import UsageError
    from mmmos.features.spec import read_recipe

    if not workspace.is_dir():
        raise UsageError(f"There is no workspace {str(workspace)!r}.")
    found = [read_recipe(name, str(workspace)).beside(workspace) for name in recipe.names("features", workspace)]
    challenges = [recipe.read(path, Challenge) for path in sorted(workspace.glob("challenge*.toml"))]
    return found + [each.features.resolve(workspace) for each in challenges]


def export(
    recipe: str,
    /,
    *inputs: Input,
    to: Path,
    store: Store = "features",
    root: Root = None,
) -> int:
    """Write the embeddings of clips to a folder that may be given away: no audio, no paths, no names of machines.

    Example: mmmos features export melstats train.csv --to shared

    Parameters
    ----------
    recipe
        A feature recipe (name or .toml), or one encoder.
    to
        The new folder.
    """
    from mmmos.features.sharing.exports import export as export_features
    from mmmos.manifest import read_manifest

    refuse_options(inputs, export)
    clips = read_manifest(list(inputs), root=root, labels=False)
    done = export_features(clips, recipe, to, store=store)
    say(f"{done.clips} clips ({', '.join(done.sets)}), {done.size / 1e6:.1f} MB, are in {shown_path(to)}/.")
    say(f"Whoever gets the folder types: mmmos features import {shlex.quote(to.name)}")
    return say_unusable(done.left_out)


def import_features(source: str, /, *, store: Store = "features") -> int:
    """Add embeddings that were exported elsewhere to a store, after every number in them is verified.

    Example: mmmos features import shared

    Parameters
    ----------
    source
        What mmmos features export wrote, or hf://owner/name@revision where it was pushed to the Hugging Face hub.
    """
    from mmmos.features.sharing.imports import import_features as add

    done = add(source, store)
    files = f"{counted(done.shards, 'file')}, {done.size / 1e6:.1f} MB, {agreeing(done.shards, 'are')}"
    new = f"{files} new" if done.shards else "nothing is new"
    say(f"{done.clips} clips ({', '.join(done.sets)}) are in {shown_store(store)}; {new}.")
    return 0


def shown_store(store: str) -> str:
    """A store as the user would type it; a folder ends in a slash."""
    return store.rstrip("/") if "://" in store else f"{shown_path(store)}/"


COMMANDS: dict[str, Callable[..., int]] = {
    "verify": verify,
    "compact": compact,
    "gc": gc,
    "export": export,
    "import": import_features,
    "push": push_features,
}
