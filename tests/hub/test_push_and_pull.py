"""push and pull through a stand-in of the hub: what is pulled is what was pushed, also without the network."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmmos import hub as sharing
from mmmos.errors import InputError, SetupError, UsageError
from mmmos.hub import client
from mmmos.hub.address import Address

sys.path.append(str(Path(__file__).parent))
from hub_stand_in import READER, WRITER

# huggingface_hub uploads large files in a way that its http library would like to see changed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")

ALLOWED = ["README.md", "*.json", "*.safetensors"]
LIMIT = 1_000_000


def push(folder, address="hf://me/mine", **options):
    return sharing.push(folder, address, kind="model", **options)


def pull(address="hf://me/mine", **options):
    return sharing.pull(address, **({"kind": "model", "allowed": ALLOWED, "limit": LIMIT} | options))


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(found):
    return {name: path.read_bytes() for name, path in found.items()}


@pytest.fixture
def no_network(monkeypatch):
    """From now on every attempt to reach anything fails the test."""

    def refuse(*arguments, **_):
        raise AssertionError(f"a socket was opened: {arguments}")

    def cut():
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        for name in ("connect", "connect_ex"):
            monkeypatch.setattr(socket.socket, name, refuse)
        for name in ("create_connection", "getaddrinfo"):
            monkeypatch.setattr(socket, name, refuse)

    return cut


def test_what_is_pulled_is_what_was_pushed(hub, online, folder):
    url = push(folder, message="First")
    repository = hub.repositories["model", "me/mine"]
    assert url == f"{hub.endpoint}/me/mine/commit/{repository.refs['main']}"
    assert len(repository.commits) == 2 and hub.messages == ["First"] and not repository.private
    found = pull()
    assert read(found) == contents(folder)
    for path in found.values():
        assert path.is_file() and not path.is_symlink() and path == path.resolve()
        assert path.is_relative_to(online / "hub")


def test_only_the_files_of_the_folder_are_sent(hub, online, folder):
    push(folder)
    (files,) = list(hub.repositories["model", "me/mine"].commits.values())[1:]
    assert set(files) - {".gitattributes"} == set(contents(folder))


def test_a_second_push_replaces_and_deletes(hub, online, folder):
    push(folder)
    first = hub.repositories["model", "me/mine"].refs["main"]
    (folder / "bundle.json").unlink()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Another\n")
    (folder / "more.json").write_text("{}\n")
    push(folder)
    assert read(pull()) == contents(folder)
    assert ".gitattributes" in hub.repositories["model", "me/mine"].commits[first]
    assert set(pull(f"hf://me/mine@{first}")) == {"README.md", "bundle.json", "heads.safetensors"}


def test_pushing_the_same_again_makes_no_commit(hub, online, folder):
    assert push(folder) == push(folder)
    assert len(hub.repositories["model", "me/mine"].commits) == 2


def test_a_branch_a_tag_and_a_commit_are_told_apart(hub, online):
    repository = hub.add("you/theirs", {"a.json": b"1"})
    old = repository.refs["v1"] = repository.refs["main"]
    repository.refs["feature/x"] = hub.add("you/theirs", {"a.json": b"2"}).refs["main"]
    hub.add("you/theirs", {"a.json": b"3"})
    for revision, wanted in (("@v1", b"1"), ("@feature/x", b"2"), ("@main", b"3"), ("", b"3"), (f"@{old}", b"1")):
        assert read(pull(f"hf://you/theirs{revision}")) == {"a.json": wanted}


def test_models_and_data_sets_are_different_repositories(hub, online, folder):
    push(folder)
    sharing.push(folder, "hf://me/mine", kind="dataset")
    assert set(hub.repositories) == {("model", "me/mine"), ("dataset", "me/mine")}
    hub.add("me/mine", {"a.json": b"1"}, "dataset")
    assert set(pull(kind="dataset")) == {"a.json"} and len(pull()) == 3


def test_long_lists_are_read_to_their_end(hub, online):
    files = {f"{number:02d}/spec.json": b"%d" % number for number in range(20)}
    hub.add("you/theirs", files)
    assert read(pull("hf://you/theirs", allowed=["*/spec.json"])) == files


def test_a_new_process_with_another_cache_gets_the_same(hub, online, folder, tmp_path):
    push(folder)
    code = f"""
import json
from mmmos import hub
found = hub.pull("hf://me/mine", kind="model", allowed={ALLOWED}, limit={LIMIT})
print(json.dumps({{name: str(path) for name, path in found.items()}}))
"""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(tmp_path / "theirs"), "HF_ENDPOINT": hub.endpoint}

    def run(**more):
        call = [sys.executable, "-W", "error", "-c", code]
        return subprocess.run(call, capture_output=True, text=True, env=environment | more)

    done = run()
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = {name: Path(path) for name, path in json.loads(done.stdout).items()}
    assert read(found) == contents(folder)
    assert all(path.is_relative_to(tmp_path / "theirs") for path in found.values())
    asked = len(hub.asked)
    assert run(HF_HUB_OFFLINE="1").stdout == done.stdout and len(hub.asked) == asked


def test_offline_a_revision_that_was_pulled_is_served_from_the_cache(hub, online, folder, no_network):
    push(folder)
    pull()
    commit = hub.repositories["model", "me/mine"].refs["main"]
    hub.add("me/mine", {"a.json": b"newer"})
    no_network()
    for address in ("hf://me/mine", "hf://me/mine@main", f"hf://me/mine@{commit}"):
        assert read(pull(address)) == contents(folder)
    with pytest.raises(SetupError, match=r"hf://me/mine@v1 is not on this machine, or not all of it, and the network"):
        pull("hf://me/mine@v1")
    with pytest.raises(InputError, match=r"it holds 'heads.safetensors'; allowed are \*.json, README.md"):
        pull(allowed=["*.json", "README.md"])


def test_offline_without_a_cache_a_sentence_and_no_socket(online, folder, no_network):
    no_network()
    with pytest.raises(SetupError, match="is not on this machine, or not all of it, and the network is off"):
        pull()
    with pytest.raises(SetupError, match="Nothing can be pushed to hf://me/mine: the network is off"):
        push(folder)


def test_a_commit_that_is_here_asks_nobody(hub, online, folder):
    push(folder)
    pull()
    asked = len(hub.asked)
    assert read(pull(f"hf://me/mine@{hub.repositories['model', 'me/mine'].refs['main']}")) == contents(folder)
    assert len(hub.asked) == asked


@pytest.mark.parametrize("name", ["bundle.json", "heads.safetensors"])
def test_half_a_revision_is_never_whole(hub, online, folder, name):
    push(folder)
    right = contents(folder)[name]
    hub.served[name] = right[:-1]
    with pytest.raises((InputError, SetupError)):
        pull()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with pytest.raises(SetupError, match="or not all of it"):
        pull()
    del os.environ["HF_HUB_OFFLINE"]
    hub.served.clear()
    assert read(pull())[name] == right


@pytest.mark.parametrize("name", ["bundle.json", "heads.safetensors"])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete"])
def test_damage_in_the_cache_is_seen_and_mended(hub, online, folder, name, damage, monkeypatch):
    push(folder)
    path = pull()[name]
    data = path.read_bytes()
    path.unlink()
    if damage != "delete":
        path.write_bytes(data[:-1] + b"?" if damage == "flip" else data[:-1])
    with monkeypatch.context() as context:
        context.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(SetupError, match="or not all of it"):
            pull()
    assert read(pull()) == contents(folder)
    assert pull(f"hf://me/mine@{hub.repositories['model', 'me/mine'].refs['main']}")[name].read_bytes() == data


@pytest.mark.parametrize(
    "record", [b"", b"[]", b'{"commit": "../..", "files": {}}', b'{"commit": 1, "files": {"a": 2}}']
)
def test_a_damaged_list_counts_as_none(hub, online, folder, record, monkeypatch):
    push(folder)
    pull()
    (path,) = (online / "assets").rglob("main.json")
    path.write_bytes(record)
    assert len(pull()) == 3
    path.write_bytes(record)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError):
        pull()


def test_a_private_repository_needs_a_token(hub, online, folder, monkeypatch):
    push(folder, private=True)
    assert hub.repositories["model", "me/mine"].private
    monkeypatch.setenv("HF_TOKEN", READER)
    assert len(pull()) == 3
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(
        SetupError, match=r"There is no model repository me/mine on http.*, or it is private and your tok"
    ):
        pull()
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(SetupError, match="has expired or may not read it"):
        pull()


def test_a_public_repository_does_not_become_private_by_a_push(hub, online, folder):
    push(folder)
    with pytest.raises(UsageError, match=r"hf://me/mine is there already and public; nothing is pushed"):
        push(folder, private=True)
    assert len(hub.messages) == 1


def test_pushing_needs_a_token_that_may_write(hub, online, folder, monkeypatch):
    for token, sentence in (
        (READER, r"Your token may not do this with hf://me/mine: give one that may \(hf auth login"),
        ("hf_wrong", "does not accept your token for hf://me/mine: give one that may write"),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SetupError, match=sentence):
            push(folder)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with pytest.raises(SetupError, match="Your token may not do this with hf://you/theirs"):
        push(folder, "hf://you/theirs")
    monkeypatch.delenv("HF_TOKEN")
    asked = len(hub.asked)
    with pytest.raises(SetupError, match="without a token: type hf auth login, or set HF_TOKEN"):
        push(folder)
    assert len(hub.asked) == asked and not hub.repositories


def test_the_token_of_hf_auth_login_is_found(hub, online, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    (online / "token").parent.mkdir(parents=True, exist_ok=True)
    (online / "token").write_text(WRITER)
    push(folder, private=True)
    assert len(pull()) == 3


def test_two_who_push_at_once_do_not_undo_each_other(hub, online, folder, monkeypatch):
    push(folder)
    repository = hub.repositories["model", "me/mine"]
    find = repository.find
    monkeypatch.setattr(repository, "find", lambda revision: repository.commit({}) and find(revision))
    (folder / "new.json").write_text("{}")
    with pytest.raises(SetupError, match="was changed by somebody else at the same time; nothing is pushed"):
        push(folder)
    assert len(hub.messages) == 1


def test_what_is_absent_is_said(hub, online):
    with pytest.raises(SetupError, match=r"There is no model repository you/theirs on http://127"):
        pull("hf://you/theirs")
    hub.add("you/theirs", {"a.json": b"1"})
    with pytest.raises(SetupError, match=r"you/theirs on http.* has no branch, tag or commit v7\."):
        pull("hf://you/theirs@v7")
    hub.failing = 501
    with pytest.raises(SetupError, match=r"http.* answers 501 about hf://you/theirs\. Try again later"):
        pull("hf://you/theirs")


def test_a_server_that_is_gone_is_said(hub, online, folder, monkeypatch):
    push(folder)
    pull()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
    with pytest.raises(SetupError, match=r"cannot be reached or read .*Look to the network.*is there with --offline"):
        pull()
    with pytest.raises(SetupError, match=r"hf://me/mine cannot be reached or read .* type the same again\.$"):
        push(folder)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(pull()) == 3


def test_a_cache_that_cannot_be_written_is_not_blamed_on_the_network(hub, online, folder):
    push(folder)
    online.mkdir(exist_ok=True)
    (online / "hub").write_text("in the way")
    with pytest.raises(SetupError, match=rf"hf://me/mine cannot be read or kept here: .*: {online}"):
        pull()


def test_only_plain_files_are_pushed(hub, online, folder, tmp_path):
    with pytest.raises(UsageError, match="There is no folder"):
        push(tmp_path / "nothing")
    with pytest.raises(UsageError, match="There is no file in"):
        (tmp_path / "empty").mkdir()
        push(tmp_path / "empty")
    with pytest.raises(UsageError, match="leave out @v1"):
        push(folder, "hf://me/mine@v1")
    (folder / "passwords.json").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match=r"passwords.json is a link or a device; only plain files are pushed"):
        push(folder)
    assert hub.asked == []


def test_the_client_is_left_as_it_was(hub, online, folder, capfd):
    from huggingface_hub.utils import are_progress_bars_disabled

    push(folder)
    pull()
    assert capfd.readouterr() == ("", "") and not are_progress_bars_disabled()


@pytest.mark.parametrize("shown", [True, False])
def test_the_client_shows_bars_where_progress_is_shown(online, monkeypatch, shown):
    from huggingface_hub.utils import are_progress_bars_disabled

    monkeypatch.setattr(client.progress, "is_shown", lambda: shown)
    with client.client(Address("me/mine"), "model"):
        assert are_progress_bars_disabled() is not shown
    assert not are_progress_bars_disabled()


def test_what_the_client_wraps_is_said_and_a_closed_door_is_named(online):
    from huggingface_hub.errors import GatedRepoError

    full = RuntimeError("the upload failed")
    full.__cause__ = OSError(28, "No space left on device", "/cache/x")
    closed = GatedRepoError("gated", response=SimpleNamespace(status_code=403, headers={}, request=None))
    for error, words in (
        (full, r"hf://me/mine cannot be read or kept here: No space left on device: /cache/x\."),
        (closed, r"hf://me/mine is open only to those whom its owner lets in: ask on its page, then give a token"),
    ):
        with pytest.raises(SetupError, match=words), client.client(Address("me/mine"), "model"):
            raise error
