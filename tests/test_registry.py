"""The registry: names to objects, and a sentence for each way in which that fails."""

import pickle
from importlib.metadata import EntryPoint

import pytest

from mmmos import registry
from mmmos.errors import SetupError, UnknownName, UsageError


@pytest.fixture
def points(monkeypatch):
    """Entry points that stand for installed packages."""
    registered = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in registered if p.group == group])
    registry._registered.cache_clear()
    registry.load.cache_clear()
    yield lambda name, value: registered.append(EntryPoint(name, value, "mmmos.losses"))
    registry._registered.cache_clear()
    registry.load.cache_clear()


def plugin(tmp_path, text, name="mine.py"):
    path = tmp_path / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("kind", registry.KINDS)
def test_every_registered_name_loads(kind):
    assert registry.names(kind) == sorted(registry.names(kind)) != []
    for name in registry.names(kind):
        assert registry.load(kind, name) is not None


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"There is no encoder 'melstat'\. Did you mean 'melstats'\?"):
        registry.load("encoders", "melstat")


def test_listing_imports_nothing(points):
    points("mine", "no.such.module:thing")
    assert registry.names("losses") == ["mine"]


def test_one_name_of_two_packages_is_refused(points):
    points("mse", "one:MSE")
    points("mse", "two:MSE")
    with pytest.raises(SetupError, match="Two packages register the loss 'mse': one:MSE and two:MSE"):
        registry.names("losses")


@pytest.mark.parametrize("value", ["no.such.module:thing", "json:nothing"])
def test_a_plugin_that_cannot_be_imported_is_named(points, value):
    points("mine", value)
    with pytest.raises(SetupError, match=f"The loss 'mine' of its package cannot be imported from {value}"):
        registry.load("losses", "mine")


def test_a_local_file_is_a_plugin(tmp_path):
    path = plugin(tmp_path, "from __future__ import annotations\nclass Loss: ...\nmine = Loss()\n")
    mine = registry.load("losses", f"{path}:mine")
    assert type(pickle.loads(pickle.dumps(mine))) is type(mine)


def test_two_files_of_one_name_are_two_plugins(tmp_path):
    (tmp_path / "other").mkdir()
    one, two = plugin(tmp_path, "value = 1"), plugin(tmp_path / "other", "value = 2")
    assert [registry.load("losses", f"{path}:value") for path in (one, two)] == [1, 2]


def test_mistakes_in_a_local_file_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"names the file 'nothing\.py', which does not exist"):
        registry.load("losses", "nothing.py:mine")
    with pytest.raises(UnknownName, match=r"There is no loss 'mien'\. Did you mean 'mine'\?"):
        registry.load("losses", plugin(tmp_path, "mine = 1") + ":mien")
    for text, said in [("import no_such_module", "ModuleNotFoundError"), ("1 +", "SyntaxError"), ("1 / 0", "division")]:
        with pytest.raises(UsageError, match=f"cannot be imported: .*{said}"):
            registry.load("losses", plugin(tmp_path, text, f"{said}.py") + ":mine")
