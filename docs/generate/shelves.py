"""formats.md and recipes.md: what is packaged for the shelves, and the keys of every file that users write."""

import re
from collections.abc import Iterator
from pathlib import Path

from markdown import code, fenced, inline, page, table
from models import keys

from mmmos import challenge, recipe, registry
from mmmos.ensembles import recipe as ensembles
from mmmos.ensembles.grid import GridEntry
from mmmos.features import spec as features
from mmmos.features.encoders import encoder
from mmmos.submissions.formats import Format

# The feature recipe that an ensemble recipe is written for; the others take any, and are counted on melstats.
WRITTEN_FOR = {name: name for name in ("aesa-net", "audiobox", "mmmos")} | {"ablation": "mmmos", "mmmos-pam": "mmmos"}
ANY = "melstats"


def packaged(shelf: str) -> Iterator[Path]:
    """The packaged recipes of a shelf."""
    return (path for path in recipe.packaged_files(shelf) if path.suffix == ".toml")


def formats() -> str:
    """The page of submission formats."""
    head = """\
The packaged formats of answer files, and the keys of a format's TOML. `mmmos submissions formats` lists them,
`mmmos submissions check` and `write` use them, and [submissions](../guide/submissions.md) says how.

A format of your own is a file in `submissions/`. Comments say of each rule whether it is official, read in source,
inferred or unknown; a key that a file leaves out has its default."""
    sections = [
        f"## {path.stem}\n\n{fenced(path.read_text(encoding='utf-8'), 'toml')}" for path in packaged("submissions")
    ]
    return page("Formats", head, "## Keys", keys(Format), *sections)


def recipes() -> str:
    """The page of recipes."""
    head = """\
The packaged recipes, and the keys of every TOML file that you write. A recipe is named by its file without `.toml` and
looked up in the workspace's shelf, then in the package; an unknown key is an error that names file and line."""
    return page(
        "Recipes",
        head,
        "## Feature recipes",
        "`features/*.toml`, read by `mmmos features extract` and `mmmos run`. See [encoders](../guide/encoders.md).",
        table(("recipe", "what it is", "encoders"), feature_rows()),
        "### Keys of a feature recipe",
        keys(features.FeatureRecipe),
        "### Keys of an encoder's table",
        'An entry of `encoders` that is a table, as `{ encoder = "muq", frames = "last" }`.',
        keys(features.EncoderRecipe),
        "## Ensemble recipes",
        """\
`ensembles/*.toml`, read by `mmmos ensembles train`, `select`, `ablate` and `tune` and by `mmmos run`. See
[ensembles](../guide/ensembles.md). Heads are counted on the feature sets of the recipe in the last column.""",
        table(("recipe", "what it is", "heads", "counted on"), ensemble_rows()),
        "### Keys of an ensemble recipe",
        keys(ensembles.EnsembleRecipe),
        "### Keys of `[[grid]]`",
        "A list is alternatives, and all combinations are meant. See [heads](heads.md) and [losses](losses.md).",
        keys(GridEntry),
        "### Keys of `[select]`",
        "See [selectors](selectors.md).",
        keys(ensembles.SelectRecipe),
        "## challenge.toml",
        "What `mmmos run` carries out, and what `mmmos ensembles` and `mmmos submissions` find a workspace's data by.",
        *(part for section in challenge_sections() for part in section),
        "## Formats",
        "`submissions/*.toml`: see [formats](formats.md).",
    )


def feature_rows() -> Iterator[tuple[str, str, str]]:
    """Packaged feature recipes: name, what it is, encoders."""
    for path in packaged("features"):
        tables = recipe.read(path, features.FeatureRecipe).tables()
        yield code(path.stem), comment(path), ", ".join(code(each.encoder) for each in tables)


def ensemble_rows() -> Iterator[tuple[str, str, str, str]]:
    """Packaged ensemble recipes: name, description, number of heads, and of which feature recipe's sets."""
    for path in packaged("ensembles"):
        read = recipe.read(path, ensembles.EnsembleRecipe)
        basis = WRITTEN_FOR.get(path.stem, ANY)
        heads = read.specs(feature_sets(basis), path.name)
        yield code(path.stem), inline(read.description), str(len(heads)), code(basis)


def feature_sets(name: str) -> dict[str, list[str]]:
    """The layers of each feature set of a packaged feature recipe."""
    return {table.set_name: layers(table.encoder) for table in features.read_recipe(name).tables()}


def layers(name: str) -> list[str]:
    """Names of an encoder's layers, of one with weights their numbers."""
    card = registry.load("encoders", name)
    return list(map(str, range(card.layers))) if card.weights else list(encoder(name, device="cpu").spec.names())


def comment(path: Path) -> str:
    """The first sentence of the comment that a recipe begins with."""
    lines = re.match(r"(?:# .*\n)+", path.read_text(encoding="utf-8"))
    text = " ".join(line.removeprefix("# ") for line in (lines[0] if lines else "").splitlines())
    return re.split(r"\.(?= |$)", text)[0]


def challenge_sections() -> Iterator[tuple[str, str]]:
    """The tables of challenge.toml."""
    for name, field in challenge.Challenge.model_fields.items():
        yield f"### Keys of `[{name}]`", keys(field.annotation)
