"""A fake encoder in a plug-in file, and clips of noise for it."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

PLUGIN = """
from pathlib import Path

import torch

from mmmos.features.encoders import EncoderCard
from mmmos.features.spec import EncoderSpec

CALLS = Path(__file__).with_suffix(".calls")


class Fake:
    spec = EncoderSpec("fake", "fake", 8000, 2, 3, 0.02, 160, "none", code={code!r})

    def encode(self, waves):
        with CALLS.open("a") as file:
            file.write("call " * len(waves))
        frames = waves.unfold(1, 160, 160)
        states = torch.stack([frames.mean(-1), frames[..., 0], 1 + frames[..., -1]], -1)
        return torch.stack([states, {scale} * states], 1)


def load(card, weights, revision, device):
    return Fake()


FAKE = EncoderCard("fake", "fake", load, "for no use at all", 8000, commercial={commercial})
"""


@dataclass
class Plugin:
    """A fake encoder: linear, 8 kHz, frames of 160 samples; it counts the windows that it encodes."""

    path: Path

    @property
    def name(self) -> str:
        return f"{self.path}:FAKE"

    def calls(self) -> int:
        """Windows encoded since the last time of asking."""
        file = self.path.with_suffix(".calls")
        count = len(file.read_text().split()) if file.exists() else 0
        file.unlink(missing_ok=True)
        return count


@pytest.fixture
def make_fake(tmp_path):
    def make(name="fake", code="1", scale="2", commercial=True):
        path = tmp_path / f"{name}.py"
        path.write_text(PLUGIN.format(code=code, scale=scale, commercial=commercial))
        return Plugin(path)

    return make


@pytest.fixture
def fake(make_fake):
    return make_fake()


def noise(seconds=0.5, seed=0, rate=8000):
    return np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)


@pytest.fixture
def make_clips(tmp_path):
    """A manifest of clips of noise, each with content of its own."""

    def make(count=4, seconds=0.5, rate=8000, kind="wav"):
        folder = tmp_path / "audio"
        folder.mkdir(exist_ok=True)
        paths = {}
        for number in range(count):
            paths[f"c{number}"] = str(folder / f"c{number}.{kind}")
            soundfile.write(paths[f"c{number}"], noise(seconds, number, rate), rate)
        return pd.DataFrame({"path": paths})

    return make


@pytest.fixture
def store(tmp_path):
    """The folder of a store that is not there yet."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def wavlm():
    """The tiny WavLM."""
    from mmmos.features.encoders import encoder

    return encoder("wavlm", weights=str(Path(__file__).parents[1] / "data" / "wavlm_tiny"), device="cpu")


@pytest.fixture
def read_only(monkeypatch):
    """Makes the file system refuse new files when it is called."""

    def refuse():
        opened = os.open

        def open_old(path, flags, *mode, **options):
            if flags & os.O_CREAT:
                raise OSError(30, "Read-only file system")
            return opened(path, flags, *mode, **options)

        monkeypatch.setattr(os, "open", open_old)

    return refuse
