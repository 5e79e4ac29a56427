"""The registry: names to objects, and a sentence for each way in which that fails."""

import os
import pickle
import re
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmmos import registry
from mmmos.errors import SetupError, UnknownName, UsageError


@pytest.fixture
def points(monkeypatch):
    """Registers an entry point as an installed package does."""
    registered = []

    def clear():
        registry._registered.cache_clear()
        registry._from_package.cache_clear()

    def register(name, value, package="mine", kind="losses"):
        point = EntryPoint(name, value, f"mmmos.{kind}")
        vars(point)["dist"] = SimpleNamespace(name=package)
        registered.append(point)

    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in registered if p.group == group])
    clear()
    yield register
    clear()


def plugin(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_name_loads(kind):
    assert registry.names(kind) == sorted(registry.names(kind))
    assert registry.names(kind) or kind == "formats"
    for name in registry.names(kind):
        assert registry.load(kind, name) is not None


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"There is no encoder 'melstat'\. Did you mean 'melstats'\?"):
        registry.load("encoders", "melstat")


def test_listing_imports_nothing(points):
    points("mine", "no.such.module:thing")
    assert registry.names("losses") == ["mine"]


@pytest.mark.parametrize("kind", registry.KINDS)
def test_one_name_of_two_packages_is_refused_wherever_it_is_used_or_listed(points, kind):
    points("plain", "json:loads", "one", kind)
    points("mine", "json:loads", "one", kind)
    points("mine", "json:dumps", "two", kind)
    said = re.escape(
        f"Two packages register the {registry.KINDS[kind]} 'mine': one (json:loads) and two (json:dumps). Uninstall one"
    )
    for use in (registry.names, *(lambda kind, name=name: registry.load(kind, name) for name in ("mine", "plain"))):
        with pytest.raises(SetupError, match=said):
            use(kind)


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_plugin_with_the_name_of_a_builtin_is_refused(points, ours_first):
    both = [("mse", "ours:MSE", "mmmos"), ("mse", "theirs:MSE", "theirs")]
    for each in both if ours_first else both[::-1]:
        points(*each)
    with pytest.raises(SetupError, match=r"The package theirs registers the loss 'mse' \(theirs:MSE\).*MMMOS's own"):
        registry.load("losses", "mse")


def test_one_name_twice_in_one_package_is_refused(points):
    points("mine", "json:loads", "one")
    points("mine", "json:dumps", "one")
    with pytest.raises(SetupError, match="The package one registers the loss 'mine' twice: json:loads and json:dumps"):
        registry.load("losses", "mine")


def test_one_object_of_two_packages_is_refused_and_one_package_found_twice_is_not(points):
    points("mine", "json:loads", "one")
    points("mine", "json:loads", "one")
    assert registry.load("losses", "mine")
    registry._registered.cache_clear()
    points("mine", "json:loads", "fork")
    with pytest.raises(SetupError, match="Two packages register"):
        registry.names("losses")


@pytest.mark.parametrize("value", ["no.such.module:thing", "json:nothing"])
def test_a_plugin_that_cannot_be_imported_is_named(points, value):
    points("broken", value)
    said = f"The loss 'broken' of the package mine cannot be imported from {value}"
    with pytest.raises(SetupError, match=said):
        registry.load("losses", "broken")


def test_a_local_file_is_a_plugin(tmp_path):
    path = plugin(tmp_path, "from __future__ import annotations\nclass Loss: ...\nmine = Loss()\n")
    mine = registry.load("losses", f"{path}:mine")
    assert type(pickle.loads(pickle.dumps(mine))) is type(mine)
    assert registry.load("losses", f"{path}:mine") is mine


def test_two_files_of_one_name_are_two_plugins(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = plugin(tmp_path, "value = 1"), plugin(tmp_path / "other", "value = 2")
    assert [registry.load("losses", f"{path}:value") for path in (one, two)] == [1, 2]


def test_an_edited_file_is_read_again_whatever_its_time_and_size(tmp_path):
    path = plugin(tmp_path, "value = 1")
    written = Path(path).stat()
    before = registry.load("losses", f"{path}:value"), registry.code_of("losses", f"{path}:value")
    plugin(tmp_path, "value = 2")
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
    after = registry.load("losses", f"{path}:value"), registry.code_of("losses", f"{path}:value")
    assert (before[0], after[0]) == (1, 2)
    assert before[1] != after[1]
    assert not (tmp_path / "__pycache__").exists()


def test_the_code_of_a_file_is_its_content_alone(tmp_path):
    (tmp_path / "other").mkdir()
    paths = plugin(tmp_path, "value = 1"), plugin(tmp_path / "other", "value = 1", "moved.py")
    assert len({registry.code_of("losses", f"{path}:value") for path in paths}) == 1
    assert registry.code_of("losses", "mse") == ""


def test_mistakes_in_a_local_file_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"names the file 'nothing\.py', which does not exist"):
        registry.load("losses", "nothing.py:mine")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(UsageError, match="which cannot be read"):
        registry.load("losses", f"{tmp_path}/folder.py:mine")
    with pytest.raises(UnknownName, match=r"There is no loss 'mien'\. Did you mean 'mine'\?"):
        registry.load("losses", plugin(tmp_path, "mine = 1") + ":mien")
    for text, said in [("import no_such_module", "ModuleNotFoundError"), ("1 +", "SyntaxError"), ("1 / 0", "division")]:
        with pytest.raises(UsageError, match=f"cannot be imported: .*{said}"):
            registry.load("losses", plugin(tmp_path, text, f"{said}.py") + ":mine")
