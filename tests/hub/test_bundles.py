"""A bundle goes to the hub after it is verified, and scores the same from there."""

import shutil
import zipfile

import numpy as np
import pytest

from mmmos import hub as sharing
from mmmos.cli.hub import push_bundle
from mmmos.ensembles.bundle import read_bundle
from mmmos.errors import InputError, SetupError, StoreError, UnknownName, UsageError
from mmmos.pipeline.bundles import export
from mmmos.scoring import load

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning")


@pytest.fixture(scope="module")
def made(tiny_workspace, tmp_path_factory):
    """The demo's bundle. Not to be written to."""
    workspace = shutil.copytree(tiny_workspace, tmp_path_factory.mktemp("made") / "workspace")
    return export(workspace / "challenge.toml").path


@pytest.fixture
def bundle(made, tmp_path, monkeypatch):
    """A copy of it, that is found by its name from the current folder."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(made, tmp_path / "submissions" / "demo" / "bundle")


def test_a_bundle_is_pushed_by_name_and_scores_the_same_from_the_hub(hub, online, bundle, capsys):
    (bundle / ".DS_Store").write_text("left by a system")
    assert push_bundle("demo", "hf://me/demo", message="First") == 0
    shown = capsys.readouterr()
    assert shown.out == "" and f"{hub.endpoint}/me/demo/commit/" in shown.err
    assert "Weights of " in shown.err and "NOT" not in shown.err
    assert "mmmos score clips/ --bundle hf://me/demo" in shown.err
    repository = hub.repositories["model", "me/demo"]
    sent = repository.commits[repository.refs["main"]]
    assert set(sent) - {".gitattributes"} == {path.name for path in bundle.iterdir()} - {".DS_Store"}

    waves = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    here = load(bundle, device="cpu")(waves, 16_000)
    there = load(f"hf://me/demo@{repository.refs['main']}", device="cpu")(waves, 16_000)
    assert here[["PQ", "PC", "CE", "CU"]].notna().all() and there.to_dict() == here.to_dict()


def test_a_zip_is_pushed_as_the_files_in_it(hub, online, bundle, tmp_path):
    packed = tmp_path / "demo.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for path in bundle.iterdir():
            archive.write(path, path.name)
    push_bundle(str(packed), "hf://me/demo", private=True)
    repository = hub.repositories["model", "me/demo"]
    assert repository.private and "bundle.json" in repository.commits[repository.refs["main"]]
    found = sharing.pull("hf://me/demo", kind="model", allowed=["*"], limit=10**9)
    assert read_bundle(found).digest == read_bundle(bundle).digest


def test_a_bundle_that_cannot_be_trusted_is_not_sent(hub, online, bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    heads = next(copy.glob("*.safetensors"))
    data = bytearray(heads.read_bytes())
    data[-1] ^= 1
    heads.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{copy} is damaged"):
        push_bundle(str(copy), "hf://me/demo")
    (bundle / "train.py").write_text("")
    with pytest.raises(StoreError, match=r"train\.py.*no file of a bundle"):
        push_bundle(str(bundle), "hf://me/demo")
    assert hub.asked == []


@pytest.mark.parametrize("card", [None, "# About\n"])
def test_without_a_licence_nothing_is_sent(hub, online, bundle, card):
    (bundle / "README.md").unlink()
    if card is not None:
        (bundle / "README.md").write_text(card)
    with pytest.raises(InputError, match=r"The README\.md names no licence.*mmmos ensembles export writes one"):
        push_bundle(str(bundle), "hf://me/demo")
    assert hub.asked == []


def test_what_is_no_bundle_or_no_address_is_said(hub, online, bundle, monkeypatch):
    with pytest.raises(UnknownName, match=r"There is no bundle 'demp'\. Did you mean 'demo'"):
        push_bundle("demp", "hf://me/demo")
    with pytest.raises(UsageError, match="'me/demo' is no address on the hub"):
        push_bundle("demo", "me/demo")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(SetupError, match="the network is off"):
        push_bundle("demo", "hf://me/demo")
    assert hub.asked == []


def test_a_bundle_that_was_changed_on_the_hub_is_not_loaded(hub, online, bundle):
    files = {path.name: path.read_bytes() for path in bundle.iterdir()}
    heads = next(name for name in files if name.endswith(".safetensors"))
    hub.add("you/demo", files | {heads: files[heads][:-1] + bytes([files[heads][-1] ^ 1])})
    with pytest.raises(StoreError, match="another SHA-256"):
        load("hf://you/demo", device="cpu")
    hub.add("you/demo", files | {"code.py": b"print()"})
    with pytest.raises(InputError, match=r"it holds 'code\.py'"):
        load("hf://you/demo", device="cpu")
