"""Recipes: every mistake named with file, line and the nearest key."""

from typing import Literal

import pytest
from pydantic import Field

from mmmos import recipe
from mmmos.errors import RecipeError, UnknownName, UsageError


class Inner(recipe.Recipe):
    loss: str
    rate: float = Field(default=0.1, gt=0)


class Entry(recipe.Recipe):
    head: str = "linear"
    seeds: tuple[int, ...] = (0,)
    inner: tuple[Inner, ...] = ()


class Outer(recipe.Recipe):
    name: str
    kind: Literal["a", "b"] = "a"
    entries: tuple[str | Entry, ...] = ()
    grid: tuple[Entry, ...] = ()
    options: dict[str, float] = Field(default_factory=dict)


def problems(text, file="x.toml"):
    with pytest.raises(RecipeError) as caught:
        recipe.parse(text, Outer, file)
    return caught.value.problems


def test_a_right_recipe_is_read_and_frozen(tmp_path):
    path = tmp_path / "x.toml"
    path.write_bytes(b'\xef\xbb\xbfname = "\xc3\xa9"\r\n[[grid]]\r\nhead = "mlp"\r\n')
    found = recipe.read(path, Outer)
    assert (found.name, found.grid[0].head) == ("é", "mlp")
    with pytest.raises(ValueError, match="frozen"):
        found.name = "other"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name = "x"\nknd = "a"', "x.toml:2: unknown key 'knd'. Did you mean 'kind'?"),
        ('name = "x"\nName = "y"', "x.toml:2: unknown key 'Name'. Did you mean 'name'?"),
        ('name = "x"\nsome-key = 1', "x.toml:2: unknown key 'some-key'."),
        ('name = "x"\nstr = 1', "x.toml:2: unknown key 'str'."),
        ('# one\n\nname = "x"\nkind = "c"', "x.toml:4: kind: input should be 'a' or 'b'; got 'c'."),
        ('kind = "a"', "x.toml:1: the key 'name' is missing."),
        ('name = "x"\noptions.a = "much"', "x.toml:2: options.a: input should be a valid number"),
        ('name = "x"\n[options]\n"b c" = "much"', "x.toml:3: options.b c: input should be a valid number"),
        ('name = "x"\ngrid = 3', "x.toml:2: grid: input should be a valid tuple; got 3."),
        ('name = "x"\nentries = [\n  "a",\n  3,\n]', "x.toml:2: entries.1: input should be a valid string; got 3."),
        ('name = "x"\nentries = [\n  { head = "a" },\n  { haed = "b" },\n]', "x.toml:4: unknown key 'entries.1.haed'."),
        (
            'name = "x"\nentries = [\n  { seeds = [1] },\n  { seeds = [1.5] },\n]',
            "x.toml:2: entries.1.seeds.0: input should be a valid integer",
        ),
        ('name = "x\n', "x.toml:1: not valid TOML"),
        ('name = "x"\nname = "y"\n', "x.toml:2: not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_at_its_line(text, said):
    (sentence,) = problems(text)
    assert sentence.startswith(said)


def test_tables_in_tables_are_told_apart():
    text = """
name = "x"
[[grid]]
head = "a"
  [[grid.inner]]
  loss = "mse"
  [[grid.inner]]
  loss = "mse"
[[grid]]
head = "b"
  [[grid.inner]]
  loss = "mse"
  rate = 1
  [[grid.inner]]
  loss = "mse"
  rate = -1
[[grid]]
  [[grid.inner]]
  rate = 1
"""
    negative, missing = problems(text)
    assert negative == "x.toml:16: grid.1.inner.1.rate: input should be greater than 0; got -1."
    assert missing == "x.toml:18: the key 'grid.2.inner.0.loss' is missing."


def test_all_mistakes_are_told_at_once():
    found = problems('nam = "x"\nkind = "c"\n[[grid]]\nheda = "mlp"\n')
    assert sorted(sentence.split(". ")[0] for sentence in found) == [
        "x.toml:1: the key 'name' is missing.",
        "x.toml:1: unknown key 'nam'",
        "x.toml:2: kind: input should be 'a' or 'b'; got 'c'.",
        "x.toml:4: unknown key 'grid.0.heda'",
    ]


def test_a_mistake_in_a_call_is_named_without_a_line():
    with pytest.raises(ValueError, match="extra_forbidden") as caught:
        Entry.model_validate({"head": "a", "Heads": "b"})
    assert recipe.sentences(caught.value, Entry, "select()") == [
        "select(): unknown key 'Heads'. Did you mean 'head'? Allowed here: head, inner, seeds."
    ]


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "quick.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(UsageError, match=r"Did you mean 'quick\.toml'\?"):
        recipe.read(tmp_path / "quik.toml", Outer)
    with pytest.raises(UsageError, match="cannot be read as UTF-8 text"):
        recipe.read(tmp_path / "quick.toml", Outer)
    with pytest.raises(UsageError, match="cannot be read"):
        recipe.read(tmp_path, Outer)
    with pytest.raises(UsageError, match="There is no file"):
        recipe.read(tmp_path / "no" / "folder.toml", Outer)


def test_a_name_is_found_in_the_workspace_before_the_package(tmp_path):
    packaged = recipe.find("features", "melstats", tmp_path)
    assert packaged.is_file() and tmp_path not in packaged.parents
    shelf = tmp_path / "features"
    shelf.mkdir()
    for name in ("melstats", "mine"):
        (shelf / f"{name}.toml").write_text("")
        assert recipe.find("features", name, tmp_path) == shelf / f"{name}.toml"
    assert {"melstats", "mine"} <= set(recipe.names("features", tmp_path))
    with pytest.raises(UnknownName, match=r"no feature recipe 'mien'\. Did you mean 'mine'"):
        recipe.find("features", "mien", tmp_path)


def test_a_path_is_taken_from_the_workspace_and_never_from_the_shelf(tmp_path):
    (tmp_path / "mine.toml").write_text("")
    assert recipe.find("ensembles", "mine.toml", tmp_path) == tmp_path / "mine.toml"
    assert recipe.find("ensembles", str(tmp_path / "mine.toml"), "elsewhere") == tmp_path / "mine.toml"
    with pytest.raises(UsageError, match=r"A name without \.toml is looked up on the shelf"):
        recipe.find("ensembles", "other.toml", tmp_path)


@pytest.mark.parametrize("shelf", recipe.SHELVES)
def test_every_shelf_is_packaged(shelf):
    assert any(file.suffix == ".toml" for file in recipe.packaged_files(shelf))
