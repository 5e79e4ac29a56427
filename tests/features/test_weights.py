"""Weights: a path that is there, a hub id, or a sentence; never another model."""

import os
import shutil
import socket
import zipfile

import pytest

from mmmos import hub
from mmmos.errors import SetupError, UsageError
from mmmos.features import weights


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)


def test_a_path_that_is_there_is_taken(tmp_path):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert weights.find("owner/name").resolve() == tmp_path / "owner" / "name"
    assert weights.is_here("owner/name") == weights.find("owner/name")


@pytest.mark.parametrize(
    "path",
    ["models/wavlm-bse", "./a/b", "/no/such/model", "nothing", "a/b.pt", "a/b c", "owner/../name", "~/x/y", "a/b/c"],
)
def test_a_path_that_is_not_there_is_never_a_hub_id(tmp_path, path):
    (tmp_path / "models" / "wavlm-base").mkdir(parents=True)
    with pytest.raises(UsageError, match="There are no weights at"):
        weights.find(path)


def test_the_nearest_file_is_offered(tmp_path):
    (tmp_path / "models" / "wavlm-base").mkdir(parents=True)
    with pytest.raises(UsageError, match="Did you mean 'models/wavlm-base'"):
        weights.find("models/wavlm-bse")
    with pytest.raises(UsageError, match="A hub id has the form owner/name"):
        weights.find("nowhere/near/it")


@pytest.mark.parametrize("switch", ["1", "true", "ON"])
def test_offline_an_absent_hub_id_is_a_setup_error(monkeypatch, switch):
    monkeypatch.setenv("HF_HUB_OFFLINE", switch)
    assert hub.is_offline()
    with pytest.raises(SetupError, match=r"'no-such/model' are not on this machine and the network is off") as caught:
        weights.find("no-such/model")
    assert caught.value.exit_code == 5


def test_half_a_snapshot_is_fetched_again(monkeypatch, tmp_path):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    fetched = []

    def snapshot(repo, *, local_files_only=False, **_):
        if not local_files_only:
            fetched.append(repo)
            (tmp_path / "model.safetensors").write_bytes(b"x")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert weights.find("owner/name") == weights.find("owner/name") == tmp_path
    assert fetched == ["owner/name"]


def test_of_a_repository_without_safe_files_the_others_are_fetched(monkeypatch, tmp_path):
    asked = []

    def snapshot(repo, *, local_files_only=False, allow_patterns=(), **_):
        if not local_files_only:
            asked.append(allow_patterns)
            if "*.bin" in allow_patterns:
                (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        return str(tmp_path)

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert weights.find("owner/name") == tmp_path
    assert asked == [["*.json", "*.safetensors"], ["*.json", "*.bin", "*.pt", "*.pth"]]


def test_a_failing_hub_is_one_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_, local_files_only=False, **__):
        raise LocalEntryNotFoundError("not cached") if local_files_only else OSError("Network is unreachable\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(SetupError, match=r"cannot be fetched: Network is unreachable\. On a machine with network:"):
        weights.find("owner/name")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(SetupError, match=r"'hf://owner/name/a.pt' cannot be fetched: Network is unreachable\."):
        weights.find("hf://owner/name/a.pt")


def test_the_sha256_of_the_file_that_holds_the_tensors_is_checked(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights.checked(tmp_path) == weights.checked(tmp_path / "pytorch_model.bin", digest) == digest
    with pytest.raises(SetupError, match="a damaged or another file"):
        weights.checked(tmp_path, "0" * 64)


def test_stamps_tell_that_local_weights_were_written(tmp_path):
    assert weights.stamps(None) == weights.stamps("owner/name") == ()
    path = tmp_path / "model.bin"
    path.write_bytes(b"abc")
    before = weights.stamps(str(path)), weights.stamps(str(tmp_path))
    os.utime(path, (1, 1))
    assert weights.stamps(str(path)) != before[0] and weights.stamps(str(tmp_path)) != before[1]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and the network allowed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "assets"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path


RELEASE = "https://example.org/releases/vit-80x608p16x16.zip"


def released(tmp_path, monkeypatch, members):
    """A release with these members in place of the network; the URLs asked for."""
    archive, asked = tmp_path / "there.zip", []
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)

    def download(url, to):
        asked.append(url)
        shutil.copy(archive, to)

    monkeypatch.setattr(weights, "_download", download)
    return asked


def test_a_release_is_fetched_when_asked_for_and_only_its_weights_are_kept(cache, monkeypatch):
    asked = released(cache, monkeypatch, {"top/w.pth": b"abc", "top/../../evil.pth": b"x", "top/setup.py": b"print()"})
    with pytest.raises(SetupError, match=f"mmmos features fetch {RELEASE}; or give your own copy"):
        weights.find(RELEASE)
    folder = weights.fetch(RELEASE)
    assert folder.name == "vit-80x608p16x16" and sorted(p.name for p in folder.iterdir()) == ["evil.pth", "w.pth"]
    assert not list(cache.rglob("setup.py")) and len(list(cache.rglob("evil.pth"))) == 1
    assert weights.find(RELEASE) == weights.fetch(RELEASE) == weights.is_here(RELEASE) == folder
    assert asked == [RELEASE]


@pytest.mark.parametrize("members", [{}, {"README": b"x"}])
def test_a_release_without_weights_leaves_nothing(cache, monkeypatch, members):
    released(cache, monkeypatch, members)
    with pytest.raises(SetupError, match="holds no weights"):
        weights.fetch(RELEASE)
    assert list((cache / "assets").rglob("*.*")) == []


def test_a_download_is_what_lies_at_the_address(tmp_path):
    (tmp_path / "there").write_bytes(b"abc")
    weights._download((tmp_path / "there").as_uri(), tmp_path / "here")
    assert (tmp_path / "here").read_bytes() == b"abc"


def test_a_download_that_fails_is_one_sentence(cache, monkeypatch):
    def fail(*_):
        raise OSError("HTTP Error 404: Not Found")

    monkeypatch.setattr(weights, "_download", fail)
    with pytest.raises(SetupError, match=r"cannot be fetched: HTTP Error 404: Not Found. Fetch it by hand"):
        weights.fetch(RELEASE)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="the network is off"):
        weights.fetch(RELEASE)


def test_one_file_of_a_hub_repository(cache, monkeypatch):
    kept = cache / "kept.pt"
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(kept) if kept.exists() else None)
    asked = []

    def download(repo, name, revision):
        asked.append((repo, name, revision))
        kept.write_bytes(b"abc")
        return str(kept)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="not on this machine and the network is off"):
        weights.find("hf://owner/name/file.pt", "r1")
    assert weights.is_here("hf://owner/name/file.pt", "r1") is None
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert weights.find("hf://owner/name/file.pt", "r1") == weights.find("hf://owner/name/file.pt", "r1") == kept
    assert asked == [("owner/name", "file.pt", "r1")]
    with pytest.raises(UsageError, match=r"write hf://owner/name/file.pt"):
        weights.find("hf://owner/name")


def test_several_files_of_one_model_have_one_sha256(tmp_path):
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    with pytest.raises(SetupError, match=r"holds several files of weights .*: name one of them"):
        weights.checked(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    before = weights.checked(tmp_path)
    (tmp_path / name).write_bytes(b"other")
    assert weights.checked(tmp_path) != before
    with pytest.raises(SetupError, match="are in 2 files; this encoder reads one"):
        weights.weights_file(tmp_path)
