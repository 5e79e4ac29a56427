"""A repository may hold anything, and a server may say anything: nothing but the listed, expected bytes is used."""

import pytest

from mmmos import hub as sharing
from mmmos.errors import InputError, MmmosError, SetupError

ALLOWED = ["README.md", "*.json", "*.safetensors", "*/spec.json"]
LIMIT = 100_000


def pull(address="hf://you/theirs", allowed=ALLOWED, limit=LIMIT):
    return sharing.pull(address, kind="model", allowed=allowed, limit=limit)


@pytest.mark.parametrize(
    "name",
    [
        "evil.py",
        "model.pkl",
        "weights.bin",
        "../x.json",
        "../spec.json",
        "./spec.json",
        "/spec.json",
        "a/../x.json",
        "/etc/x.json",
        "..\\x.json",
        "C:x.json",
        "./x.json",
        "a//spec.json",
        "a/b/spec.json",
        "a/x.json",
        "x.json/",
        "\x1b[2J.json",
        "x.json\n",
        "README.MD",
        "",
    ],
)
def test_a_file_that_does_not_belong_there_is_refused_before_any_is_fetched(hub, online, name):
    hub.add("you/theirs", {"bundle.json": b"{}", "x.safetensors": b"x", name: b"evil"})
    with pytest.raises(InputError, match=r"hf://you/theirs is not what it should be: it holds .*Nothing is fetched"):
        pull()
    assert hub.downloads() == []
    assert not [path for path in online.parent.rglob("*") if path.is_file()]


def test_many_strange_files_are_counted(hub, online):
    hub.add("you/theirs", {f"{number}.py": b"" for number in range(20)} | {"y" * 999: b""})
    with pytest.raises(
        InputError, match=r"it holds '0\.py', '1\.py', .* and 16 more; allowed are README\.md, \*\.json"
    ) as caught:
        pull()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(("limit", "enough"), [(20, True), (19, False)])
def test_what_is_too_large_is_not_fetched(hub, online, limit, enough):
    hub.add("you/theirs", {"a.json": b"1" * 10, "b.safetensors": b"2" * 10})
    if enough:
        assert len(pull(limit=limit)) == 2
        return
    with pytest.raises(InputError, match="its files have 20 bytes in all; at most 19 are fetched"):
        pull(limit=limit)
    assert hub.downloads() == []


def test_too_many_files_and_none(hub, online, monkeypatch):
    monkeypatch.setattr("mmmos.hub.pulling._MOST_ENTRIES", 5)
    hub.add("you/theirs", {f"{number}.json": b"1" for number in range(40)})
    with pytest.raises(InputError, match="holds more than 5 files and folders"):
        pull()
    assert sum("/tree/" in asked for asked in hub.asked) <= 3
    hub.add("you/empty", {})
    with pytest.raises(InputError, match="it holds no files"):
        pull("hf://you/empty")


@pytest.mark.parametrize("name", ["a.json", "b.safetensors"])
def test_bytes_that_are_not_the_listed_ones_are_not_used(hub, online, name):
    hub.add("you/theirs", {"a.json": b"right", "b.safetensors": b"right"})
    hub.served[name] = b"wrong"
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{name} came with another size or digest than the hub lists"):
            pull()
    assert not list((online / "assets").rglob("*.json"))


@pytest.mark.parametrize("name", ["a.json", "b.safetensors"])
@pytest.mark.parametrize(
    "lie",
    [
        {"size": 4},
        {"size": -1},
        {"size": 1 << 60},
        {"size": "many"},
        {"size": None},
        {"oid": "0" * 40, "lfs": {"oid": "0" * 64, "size": 5, "pointerSize": 9}},
        {"oid": "", "lfs": None},
        {"lfs": {}},
        {"lfs": 7},
        {"path": 7},
    ],
    ids=str,
)
def test_a_list_that_lies_is_a_sentence(hub, online, name, lie):
    hub.add("you/theirs", {"a.json": b"right", "b.safetensors": b"right"})
    hub.listed[name] = lie
    if name == "b.safetensors" and lie == {"oid": "", "lfs": None}:
        lie = {}
    with pytest.raises(MmmosError):
        pull()
    assert not list((online / "assets").rglob("*.json"))


@pytest.mark.parametrize("commit", ["../../../x", "", None, 7, "main"])
def test_a_commit_that_is_none_is_a_sentence(hub, online, commit, monkeypatch):
    repository = hub.add("you/theirs", {"a.json": b"1"})
    monkeypatch.setattr(repository, "find", lambda _: commit if commit is not None else "")
    repository.commits[commit] = {}
    with pytest.raises(SetupError, match=r"cannot be reached or read|There is no"):
        pull()
