"""A stand-in of the hub, and an environment in which it is the only one."""

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
from hub_stand_in import WRITER, Hub

BUNDLE = {
    "README.md": b"---\nlicense: mit\n---\n# Mine\n",
    "bundle.json": b'{"name": "mine"}\n',
    "heads.safetensors": bytes(range(256)) * 40,
}


@pytest.fixture
def hub():
    """The stand-in, running."""
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    """This process has a network that consists of the stand-in, an empty cache and a token that may write."""
    from huggingface_hub import constants, utils

    for name in ("HF_HUB_OFFLINE", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    home = tmp_path / "home"
    for name, value in {
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_ASSETS_CACHE": str(home / "assets"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    yield home
    utils.close_session()


@pytest.fixture
def folder(tmp_path):
    """A folder of files that look like a bundle's."""
    path = tmp_path / "bundle"
    path.mkdir()
    for name, data in BUNDLE.items():
        (path / name).write_bytes(data)
    return path
