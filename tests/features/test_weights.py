"""Weights: a path that is there, a hub id, or a sentence; never another model."""

import os
import socket

import pytest

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
    assert weights.is_offline()
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


def test_a_failing_hub_is_one_sentence(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fail(*_, local_files_only=False, **__):
        raise LocalEntryNotFoundError("not cached") if local_files_only else OSError("Network is unreachable\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(SetupError, match=r"cannot be fetched: Network is unreachable\. On a machine with network:"):
        weights.find("owner/name")


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
