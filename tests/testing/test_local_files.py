"""A plug-in in a local file: tried by its name, and never stale after an edit."""

import shutil
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile

import mmmos
from mmmos import registry
from mmmos.axes import AXES
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.runs import load_run, save_run
from mmmos.ensembles.spec import HeadSpec
from mmmos.errors import SetupError, StoreError, UnknownName, UsageError
from mmmos.features.encoders import Encoder, card, cards
from mmmos.features.extraction.work import load_encoders
from mmmos.features.table import FeatureArray, Features
from mmmos.files import key_of
from mmmos.submissions.formats import format_names, read_format
from mmmos.testing import check_encoder

ENCODER = """
from pathlib import Path
import torch
from mmmos.features.spec import EncoderSpec

class Mine:
    spec = EncoderSpec("mine", "mine", rate=4000, layers=1, dim=2, hop=0.02, minimum=80, licence="MIT")
    commercial = False

    def __init__(self, *, gain=1.0, device="cpu"):
        self.gain, self.device = gain, device

    def encode(self, waves):
        with Path("calls").open("a") as calls:
            calls.write("encoded ")
        frames = self.gain * waves.unfold(1, 80, 80)
        return torch.stack([frames.abs().mean(2), frames.square().mean(2)], 2)[:, None]
"""

HEAD = """
from mmmos.ensembles.heads.classical import Ridge

class Mine(Ridge):
    def _fit(self, x, y):
        return super()._fit(x, 1 * y)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ENCODER)
    return tmp_path


@pytest.fixture
def register(monkeypatch):
    """Registers an entry point as a package "theirs" does."""
    registered = []

    def clear():
        registry._registered.cache_clear()
        registry._from_package.cache_clear()

    def add(name, value, kind):
        point = EntryPoint(name, value, f"mmmos.{kind}")
        vars(point)["dist"] = SimpleNamespace(name="theirs")
        registered.append(point)
        clear()

    real = registry.entry_points
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [*real(group=group), *(p for p in registered if p.group == group)]
    )
    yield add
    clear()


def test_a_class_is_an_encoder_with_its_parameters_as_options(here):
    assert isinstance(mmmos.encoder("mine.py:Mine", device="cpu"), Encoder)
    check_encoder("mine.py:Mine", device="cpu", long=20.0)
    with pytest.raises(UnknownName, match=r"called 'gian'\. Did you mean 'gain'\? Known: gain\."):
        mmmos.encoder("mine.py:Mine", gian=2.0)
    with pytest.raises(UsageError, match="takes no weights"):
        mmmos.encoder("mine.py:Mine", weights="elsewhere")


def test_a_registered_class_has_a_card(here, register):
    (here / "mine_package.py").write_text(ENCODER)
    made = registry.load("encoders", "mine_package.py:Mine")
    register("theirs", f"{made.__module__}:Mine", "encoders")
    assert "theirs" in [each.name for each in cards()]
    found = card("theirs")
    assert (found.rate, found.layers, found.dim, found.licence, found.commercial) == (4000, 1, 2, "MIT", False)
    assert mmmos.encoder("theirs", device="cpu").spec == made.spec


def test_given_options_and_the_files_content_are_part_of_the_spec(here):
    plain, louder = (mmmos.encoder("mine.py:Mine", device="cpu", **given).spec for given in ({}, {"gain": 2.0}))
    assert plain.config != louder.config
    (here / "mine.py").write_text(ENCODER.replace("abs()", "square()"))
    assert mmmos.encoder("mine.py:Mine", device="cpu").spec.code != plain.code


def extract():
    """Vectors of a clip by the file, as another process gets them, and how often anything was encoded so far."""
    load_encoders([], "cpu")
    clips = mmmos.read_manifest("clip.wav")
    vectors = mmmos.extract(clips, ["mine.py:Mine"], store="features", device="cpu", jobs=1)["Mine"].raw
    return vectors, Path("calls").read_text(encoding="utf-8").count("encoded")


def test_an_edited_encoder_encodes_again_and_one_that_was_touched_or_moved_does_not(here):
    soundfile.write("clip.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 4000), 4000)
    before, calls = extract()
    (here / "mine.py").touch()
    assert extract()[1] == calls
    (here / "elsewhere").mkdir()
    shutil.move("mine.py", "elsewhere/mine.py")
    (here / "mine.py").symlink_to(here / "elsewhere" / "mine.py")
    assert extract()[1] == calls
    (here / "elsewhere" / "mine.py").write_text(ENCODER.replace("self.gain *", "2 * self.gain *"))
    after, again = extract()
    assert again > calls
    assert not np.array_equal(before, after)


def world():
    """Features of 24 clips, and their table with scores."""
    rng, ids = np.random.default_rng(0), [f"clip{number}" for number in range(24)]
    raw = rng.normal(size=(24, 1, 3)).astype(np.float32)
    clips = pd.DataFrame(5 + raw[:, 0] @ rng.normal(size=(3, 4)), index=ids, columns=list(AXES))
    status = pd.DataFrame({"status": "done", "reason": "", "detail": ""}, index=ids)
    arrays = {"a": FeatureArray("a", key_of("a"), ("0",), raw)}
    return Features(tuple(ids), tuple(map(key_of, ids)), arrays, status), clips.assign(set="train", path="")


def train(head):
    """The keys of the runs, and when their heads were written."""
    features, clips = world()
    recipe = EnsembleRecipe.model_validate({"grid": [{"head": head, "folds": 2}]})
    pool = mmmos.train(recipe, features, clips, folder="ensembles", jobs=1)
    return pool.keys, [pool.folder.joinpath(key, "head.safetensors").stat().st_mtime_ns for key in pool.keys]


def test_an_edited_head_trains_again_and_one_that_was_touched_or_moved_does_not(here):
    (here / "head.py").write_text(HEAD)
    first = train("head.py:Mine")
    (here / "head.py").touch()
    assert train("head.py:Mine") == first
    shutil.move("head.py", "moved.py")
    assert train("moved.py:Mine") == first
    (here / "moved.py").write_text(HEAD.replace("1 * y", "2 * y"))
    assert train("moved.py:Mine")[0] != first[0]


def test_a_run_is_neither_read_nor_written_by_another_file_than_trained_it(here):
    (here / "head.py").write_text(HEAD)
    ((key,), _) = train("head.py:Mine")
    folder = here / "ensembles" / "recipe"
    run = load_run(folder, key)
    (here / "head.py").write_text(HEAD.replace("1 * y", "2 * y"))
    with pytest.raises(StoreError, match="holds another run"):
        load_run(folder, key)
    with pytest.raises(UsageError, match=r"head\.py:Mine was edited while a head was being trained by it"):
        save_run(run, folder)
    (here / "head.py").unlink()
    with pytest.raises(StoreError, match=r"cannot be read: The head 'head\.py:Mine' names the file .* not exist"):
        load_run(folder, key)


def test_an_edited_loss_is_another_run(here):
    text = "from mmmos.ensembles.losses import Loss\nMINE = Loss('mine', lambda p, y: (p - y).square().mean(-1))\n"
    (here / "loss.py").write_text(text)
    spec = HeadSpec(head="mlp", features=("a",), loss="loss.py:MINE")
    before = spec.key("")
    assert spec.key("") == before
    (here / "loss.py").write_text(text.replace("square()", "abs()"))
    assert spec.key("") != before


def test_keys_and_fingerprints_of_registered_names_are_what_they_were():
    spec = HeadSpec(head="mlp", features=("a", "b"), loss="ccc", options={"hidden": 3})
    assert spec.key("data") == "bbac76d9f514e90f6c1a69f56f7860402a07c68e7a44e9a5b7c8fbfd4451cb13"
    assert mmmos.encoder("melstats", device="cpu").spec.code == "1"


def test_a_registered_format_is_found_by_name_and_never_hides_one_of_mmmos(here, register):
    (here / "rules.py").write_text("from mmmos.submissions.formats import Format\nMINE = Format(file='mine.csv')\n")
    assert read_format("rules.py:MINE").file == "mine.csv"
    module = next(name for name in sys.modules if name.startswith("mmmos_plugin_rules"))
    register("fine", f"{module}:MINE", "formats")
    assert read_format("fine") == read_format("rules.py:MINE")
    register("theirs", "tests_of_formats:MINE", "formats")
    assert "theirs" in format_names() and "csv" in format_names()
    with pytest.raises(SetupError, match="The format 'theirs' of the package theirs cannot be imported"):
        read_format("theirs")
    with pytest.raises(UnknownName, match=r"There is no submission format 'thiers'\. Did you mean 'theirs'\?"):
        read_format("thiers")
    register("csv", "tests_of_formats:MINE", "formats")
    for use in (lambda: read_format("csv"), lambda: read_format("theirs"), format_names):
        with pytest.raises(SetupError, match="The package theirs registers the format 'csv', which is a name of MMMOS"):
            use()
