"""Exported embeddings go to the hub and come back, and what comes from there is verified like any import."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmmos import cli
from mmmos.errors import InputError, UsageError
from mmmos.features.sharing.imports import import_features
from mmmos.features.sharing.publishing import push_features
from mmmos.features.store import FeatureSet, lists
from mmmos.features.store.upkeep import verify

sys.path.append(str(Path(__file__).parent.parent / "features" / "store"))
from stores import SPEC, key, rows

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")

CARD = "---\nlicense: other\n---\n# About\n"


@pytest.fixture
def exported(tmp_path):
    """A handmade export of two clips and a rejected one."""
    folder = tmp_path / "export"
    FeatureSet(folder, SPEC).write([rows(1), rows(2)], {key(9): ("non_finite", "NaN", "c9.wav")})
    entries = [(f"c{number}", f"c{number}.wav", None, None, key(number)) for number in (1, 2, 9)]
    (folder / "clips.csv").write_bytes(lists.written(entries))
    (folder / "README.md").write_text(CARD)
    return folder


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(*arguments):
    return cli._call([str(argument) for argument in arguments], False)


def test_embeddings_travel_over_the_hub(hub, online, exported, tmp_path, capsys, monkeypatch):
    assert call("features", "push", exported, "hf://me/set", "--private", "--message", "First") == 0
    repository = hub.repositories["dataset", "me/set"]
    shown = capsys.readouterr()
    assert shown.out == "" and f"{hub.endpoint}/datasets/me/set/commit/{repository.refs['main']}" in shown.err
    assert "mmmos features import hf://me/set" in shown.err and "commercially" not in shown.err
    assert hub.messages == ["First"] and repository.private
    sent = repository.commits[repository.refs["main"]]
    assert {name: data for name, data in sent.items() if name != ".gitattributes"} == contents(exported)

    local, theirs = tmp_path / "local", tmp_path / "theirs"
    import_features(exported, local)
    assert call("features", "import", "hf://me/set", "--store", theirs) == 0
    assert "3 clips (set)" in capsys.readouterr().err
    assert contents(theirs) == contents(local) and verify(theirs, full=True) == []
    assert not [path for path in theirs.rglob("*") if path.is_symlink()]

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import_features(f"hf://me/set@{repository.refs['main']}", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(local)


def test_the_cache_of_the_hub_is_not_moved_into_the_store(hub, online, exported, tmp_path):
    push_features(exported, "hf://me/set")
    for name in ("one", "two"):
        assert import_features("hf://me/set", tmp_path / name).shards == 1


DAMAGE = {
    "a shard changed": ("/", lambda data: data[:-1] + bytes([data[-1] ^ 1]), "does not match its checksum"),
    "a list without a clip's key": (
        "clips.csv",
        lambda data: data.replace(key(2).encode(), key(7).encode()),
        "are not in",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_comes_from_the_hub_is_verified(hub, online, exported, tmp_path, damage):
    part, change, sentence = DAMAGE[damage]
    files = contents(exported)
    (name,) = (name for name in files if name == part or (part == "/" and name.endswith(".safetensors")))
    hub.add("you/set", files | {name: change(files[name])}, "dataset")
    with pytest.raises(InputError, match=rf"(?s){sentence}.*Nothing of hf://you/set is imported"):
        import_features("hf://you/set", tmp_path / "store")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "sentence"),
    {
        "load.py": "it holds 'load.py'; allowed are",
        "set.pkl": "it holds 'set.pkl'; allowed are",
        "../clips.csv": "it holds '../clips.csv'; allowed are",
        "audio/c1.wav": "it holds 'audio/c1.wav'; allowed are",
        "other/spec.json": "'other/spec.json': it does not belong to an export",
        f"{'set-' + '0' * 12}/x.safetensors": "it does not belong to an export",
    }.items(),
)
def test_other_files_on_the_hub_stay_there(hub, online, exported, tmp_path, name, sentence):
    hub.add("you/set", contents(exported) | {name: b"x"}, "dataset")
    with pytest.raises(InputError) as caught:
        import_features("hf://you/set", tmp_path / "store")
    assert sentence in str(caught.value) and "Nothing of hf://you/set is imported." in str(caught.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("missing", ["clips.csv", "spec.json", ".safetensors"])
def test_half_an_export_on_the_hub_is_refused(hub, online, exported, tmp_path, missing):
    files = {name: data for name, data in contents(exported).items() if not name.endswith(missing)}
    hub.add("you/set", files, "dataset")
    with pytest.raises(InputError, match="it holds no"):
        import_features("hf://you/set", tmp_path / "store")


def test_what_an_import_would_refuse_is_not_sent(hub, online, exported):
    with pytest.raises(UsageError, match="is no address on the hub"):
        push_features(exported, "me/set")
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'notes\.txt': it does not belong to an export"):
        push_features(exported, "hf://me/set")
    (exported / "notes.txt").unlink()
    (shard,) = exported.glob("*/*.safetensors")
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(InputError, match="does not match its checksum"):
        push_features(exported, "hf://me/set")
    assert hub.asked == []


@pytest.mark.parametrize("card", [None, "# About\n", "---\ntags: []\n---\n"])
def test_without_a_licence_nothing_is_sent(hub, online, exported, card):
    (exported / "README.md").unlink()
    if card is not None:
        (exported / "README.md").write_text(card)
    with pytest.raises(InputError, match=r"The README\.md names no licence.*mmmos features export writes one"):
        push_features(exported, "hf://me/set")
    assert hub.asked == []


def test_a_licence_that_forbids_commercial_use_is_said(hub, online, tmp_path, capsys):
    spec = replace(SPEC, encoder=replace(SPEC.encoder, family="m2d"))
    folder = tmp_path / "export"
    FeatureSet(folder, spec).write([rows(1)])
    (folder / "clips.csv").write_bytes(lists.written([("c1", "c1.wav", None, None, key(1))]))
    (folder / "README.md").write_text(CARD)
    assert call("features", "push", folder, "hf://me/set") == 0
    assert (
        "Weights of set: NTT evaluation licence, non-commercial; they may NOT be used commercially"
        in capsys.readouterr().err
    )


def test_without_the_network_a_sentence(exported, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    assert call("features", "push", exported, "hf://me/set") == 5
    assert "Nothing can be pushed to hf://me/set: the network is off" in capsys.readouterr().err
    assert call("features", "import", "hf://me/set", "--store", tmp_path / "store") == 5
    assert "hf://me/set is not on this machine" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()
