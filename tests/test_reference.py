"""docs/reference/ is what the code gives, it tells all of it, and the examples of the public names run."""

import doctest
import re
import runpy
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import mmmos
from mmmos import errors, recipe

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
GENERATE = ROOT / "docs" / "generate"


@pytest.fixture(scope="module")
def generator():
    """What ``python docs/generate`` has, its modules under names of their own forgotten at the end."""
    own = [path.stem for path in GENERATE.glob("*.py") if path.stem != "__main__"]
    yield runpy.run_path(str(GENERATE), run_name="reference")
    for name in own:
        sys.modules.pop(name, None)


def read(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(path.stem for path in REFERENCE.glob("*.md")))
def test_page_is_what_the_code_gives(generator, name):
    assert read(name) == generator["PAGES"][name](), f"docs/reference/{name}.md is old: type make reference"


def test_every_page_is_there(generator):
    assert sorted(generator["PAGES"]) == sorted(path.stem for path in REFERENCE.glob("*.md"))


@pytest.mark.parametrize("kind", ["encoders", "heads", "losses", "selectors"])
def test_everything_that_mmmos_registers_is_listed_and_nothing_else(kind):
    own = {point.name for point in entry_points(group=f"mmmos.{kind}") if point.dist and point.dist.name == "mmmos"}
    places = {"encoders": r"^\| `([\w-]+)` \|"}
    assert set(re.findall(places.get(kind, r"^#{2,3} `(\w+)`$"), read(kind), re.MULTILINE)) == own


@pytest.mark.parametrize(
    ("page", "shelf"), [("formats", "submissions"), ("recipes", "features"), ("recipes", "ensembles")]
)
def test_every_packaged_recipe_is_listed(page, shelf):
    for path in recipe.packaged_files(shelf):
        assert path.suffix == ".md" or path.stem in read(page)


def test_every_error_and_every_exit_code_is_listed():
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, mmmos.MmmosError)]
    exits = re.findall(r"^\| `([\d, ]+)` \|", read("codes"), re.MULTILINE)
    assert all(f"`{kind.__name__}`" in read("codes") for kind in kinds)
    assert {str(kind.exit_code) for kind in kinds} <= set(exits)


def test_every_environment_variable_that_is_read_is_listed():
    """Those that MMMOS sets for others, and those that a worker's log names, are not."""
    asked = r"(?:environ(?:ment)?\.get\(|environ(?:ment)?\[)f?\"((?:MMMOS|HF|SLURM)_\w+)\"(?!\] ?=)"
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "mmmos").rglob("*.py")))
    found = set(re.findall(asked, source))
    assert found
    assert not {name for name in found if f"`{name}`" not in read("codes")}


@pytest.mark.parametrize("column", ["meaning", "what it is", "formula"])
def test_no_cell_that_explains_is_empty(column):
    for page in REFERENCE.glob("*.md"):
        place = None
        for line in page.read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)] if line.startswith("|") else []
            if column in cells:
                place = cells.index(column)
            elif not cells:
                place = None
            elif place is not None:
                assert cells[place], f"{page.name}: {line}"


def test_every_public_name_has_an_example(generator):
    names = generator["public"].NAMES
    assert sorted(names) == sorted(set(mmmos.__all__) - {"__version__"})
    assert len(mmmos.__all__) <= 20
    for name in names:
        assert doctest.DocTestParser().get_examples(generator["public"].docs_of(name)), name


def test_examples_run(generator, workspace):
    """In the order of the page, in one namespace, which holds ``mmmos``."""
    namespace: dict[str, object] = {"mmmos": mmmos}
    said: list[str] = []
    for name in generator["public"].NAMES:
        text = generator["public"].docs_of(name)
        test = doctest.DocTestParser().get_doctest(text, namespace, name, f"mmmos.{name}", 0)
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
        runner.run(test, out=said.append, clear_globs=False)
        assert not runner.failures, "".join(said)
        namespace |= test.globs
