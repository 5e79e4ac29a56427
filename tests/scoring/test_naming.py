"""What a bundle may be called, and which model is meant by it."""

from pathlib import Path

import pytest

import mmmos.ensembles.bundle as bundles
from mmmos import hub
from mmmos.errors import MmmosError, SetupError, UnknownName, UsageError
from mmmos.scoring import audiobox, load, naming
from mmmos.scoring.naming import find, names


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder; what is read is told, not read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bundles, "read_bundle", lambda source, weights: ("bundle", source, dict(weights)))
    monkeypatch.setattr(audiobox, "audiobox_model", lambda weights=None: ("audiobox", weights))
    return tmp_path


def place(path):
    path.mkdir(parents=True)
    (path / "bundle.json").write_text("{}")


def test_a_name_is_looked_up_where_export_puts_bundles(folder):
    place(folder / "submissions" / "first" / "bundle")
    place(folder / "demo" / "submissions" / "demo" / "bundle")
    (folder / "submissions" / "zipped").mkdir()
    (folder / "submissions" / "zipped" / "bundle.zip").write_bytes(b"PK")
    assert find("first") == ("bundle", Path("submissions/first/bundle"), {})
    assert find("zipped")[1] == Path("submissions/zipped/bundle.zip")
    assert find("demo")[1] == Path("demo/submissions/demo/bundle"), "not the folder of that name beside it"
    assert names() == ["demo", "first", "zipped"]
    with pytest.raises(UnknownName) as error:
        find("frist")
    assert error.value.guess == "first"
    assert str(error.value) == (
        "There is no bundle 'frist'. Did you mean 'first'? Known: demo, first, zipped, audiobox."
        " A bundle is made by: mmmos ensembles export NAME"
    )


def test_a_path_is_read_as_it_is(folder):
    place(folder / "some" / "where")
    assert find("some/where", weights={"x": "y"}) == ("bundle", Path("some/where"), {"x": "y"})
    (folder / "b.zip").write_bytes(b"PK")
    assert find(folder / "b.zip")[1] == folder / "b.zip"
    (folder / "empty").mkdir()
    assert find("empty")[1] == Path("empty"), "reading it says what is wrong"
    for absent in ("some/wher", "gone.zip", "some/gone.zip", "../gone", "/gone/x"):
        with pytest.raises(UnknownName, match="There is no bundle"):
            find(absent)


def test_audiobox_is_known_by_its_name_and_its_files(folder):
    (folder / "hub").mkdir()
    (folder / "hub" / "config.json").write_text("{}")
    (folder / "checkpoint.pt").write_bytes(b"PK")
    assert find("audiobox") == ("audiobox", None)
    for weights in ("here.pt", "owner/mine"):
        assert find("audiobox", weights={"audiobox": weights}) == ("audiobox", weights)
    with pytest.raises(UnknownName, match="There is no bundle 'submisions/first'"):
        find("submisions/first")
    assert find("facebook/audiobox-aesthetics") == ("audiobox", None)
    for weights in ("checkpoint.pt", "gone.pt", "hub"):
        assert find(weights) == ("audiobox", weights)
        with pytest.raises(UsageError, match="takes no other weights"):
            find(weights, weights={"audiobox": "here.pt"})
    with pytest.raises(UnknownName, match="wavlm"):
        find("audiobox", weights={"wavlm": "x"})


def test_an_address_is_pulled(folder, monkeypatch):
    asked = []

    def pull(address, **options):
        asked.append((address, options["kind"]))
        assert set(options["allowed"]) == {"bundle.json", "README.md", "*.safetensors"}
        assert options["limit"] == 4 * 10**9
        return {"bundle.json": Path("x")}

    monkeypatch.setattr(hub, "pull", pull)
    assert find("hf://owner/name@main") == ("bundle", {"bundle.json": Path("x")}, {})
    assert asked == [("hf://owner/name@main", "model")]


def test_a_model_is_itself_and_nothing_else_is_one(model, noise):
    assert find(model) is model
    assert load(model, device="cpu")(noise(), 8000)["reason"] is None
    with pytest.raises(UsageError, match="got int"):
        find(3)


def test_weights_that_are_not_there_are_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for absent in ("gone.pt", "owner/absent"):
        with pytest.raises(MmmosError) as error:
            load(absent, device="cpu")
        assert isinstance(error.value, SetupError | UsageError) and absent in str(error.value)


def test_places_are_those_of_export():
    assert naming.PLACES[0] == "submissions/{name}/bundle"
