"""Checkpoints: no file runs code, no key is guessed."""

import json
import os
import pickle
import subprocess
import zipfile
from argparse import Namespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmmos.errors import SetupError
from mmmos.features import checkpoint


class Bomb:
    def __init__(self, function, *arguments):
        self._call = function, arguments

    def __reduce__(self):
        return self._call


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle", "pickle 5", "nested"])
@pytest.mark.parametrize("kind", ["mkdir", "system", "subprocess", "eval", "open"])
def test_a_file_that_would_run_code_is_refused_and_does_not_run(tmp_path, form, kind):
    canary, path = tmp_path / "canary", tmp_path / "model.pt"
    bomb = {
        "mkdir": Bomb(os.mkdir, str(canary)),
        "system": Bomb(os.system, f"mkdir {canary}"),
        "subprocess": Bomb(subprocess.call, ["mkdir", str(canary)]),
        "eval": Bomb(eval, f"__import__('os').mkdir({str(canary)!r})"),
        "open": Bomb(open, str(canary), "w"),
    }[kind]
    if form.startswith("pickle"):
        path.write_bytes(pickle.dumps({"a": bomb}, protocol=5 if "5" in form else 2))
    else:
        content = {"state_dict": {"a": torch.zeros(2), "b": [bomb]}} if form == "nested" else {"a": bomb}
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(SetupError, match=r"is refused: it holds|cannot be loaded") as caught:
        checkpoint.read(path)
    assert not canary.exists() and "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    if form in ("zip", "legacy", "nested"):
        assert "which is code and not a tensor" in str(caught.value)


def test_a_class_is_read_only_where_it_is_allowed(tmp_path):
    torch.save({"model": {"a": torch.ones(2)}, "args": Namespace(lr=0.1)}, tmp_path / "a.pt")
    with pytest.raises(SetupError, match=r"is refused: it holds argparse.Namespace"):
        checkpoint.read(tmp_path / "a.pt")
    assert checkpoint.read(tmp_path / "a.pt", allow=[Namespace])["args"].lr == 0.1
    with pytest.raises(SetupError, match="is refused"):
        checkpoint.read(tmp_path / "a.pt")


def damaged(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "whole.pt")
    save_file({"a": torch.ones(1000)}, tmp_path / "whole.safetensors")
    for suffix in (".pt", ".safetensors"):
        content = (tmp_path / f"whole{suffix}").read_bytes()
        yield f"cut{suffix}", content[:-500]
        yield f"half{suffix}", content[: len(content) // 2]
        yield f"empty{suffix}", b""
        yield f"text{suffix}", b"<!doctype html>" * 10
    yield "array.pt", None


def test_a_damaged_file_is_one_sentence(tmp_path):
    for name, content in damaged(tmp_path):
        if content is None:
            torch.save(torch.ones(3), tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SetupError, match=r"cannot be loaded|holds no dictionary") as caught:
            checkpoint.read(tmp_path / name)
        assert "\n" not in str(caught.value), name


def test_a_zip_with_a_tensor_outside_of_it_is_refused(tmp_path):
    torch.save({"a": torch.ones(4)}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            if not name.endswith("data/0"):
                new.writestr(name, old.read(name))
    with pytest.raises(SetupError, match="cannot be loaded"):
        checkpoint.read(tmp_path / "b.pt")


def test_tensors_are_float32_under_text_and_nothing_else(tmp_path):
    found = checkpoint.tensors({"a": torch.ones(2).half(), 3: torch.ones(1, dtype=torch.int64)}, tmp_path)
    assert {key: value.dtype for key, value in found.items()} == {"a": torch.float32, "3": torch.int64}
    with pytest.raises(SetupError, match="entries that are no tensors: b"):
        checkpoint.tensors({"a": torch.ones(1), "b": 3}, tmp_path)


def model():
    return nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))


def test_a_model_gets_every_weight_and_is_frozen(tmp_path):
    state = {key: torch.randn_like(value) for key, value in model().state_dict().items()}
    empty = checkpoint.empty(model)
    assert all(parameter.is_meta for parameter in empty.parameters())
    checkpoint.fill(empty, state, tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in empty.state_dict().items())
    assert not empty.training and not any(parameter.requires_grad for parameter in empty.parameters())


def test_keys_that_do_not_fit_are_listed_by_their_published_names(tmp_path):
    state = dict(model().state_dict())
    state["0.wieght"] = state.pop("0.weight")
    state["1.bias"] = torch.zeros(4)
    with pytest.raises(SetupError) as caught:
        checkpoint.fill(checkpoint.empty(model), state, tmp_path, lambda name: f"model.{name}")
    said = str(caught.value)
    assert "Missing keys: model.0.weight. Unexpected keys: model.0.wieght." in said
    assert "Wrong shapes: model.1.bias is (4,), by the settings (3,)." in said
    assert said.endswith("Is model.0.wieght meant for model.0.weight?")


def test_very_many_keys_are_counted():
    assert checkpoint.listed(map(str, range(14))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more"


@pytest.mark.parametrize("value", [None, "3", 3.0, True, [3]])
def test_a_setting_of_another_kind_is_refused(tmp_path, value):
    with pytest.raises(SetupError, match="need depth = a value of type int; got"):
        checkpoint.entry({"depth": value}, "depth", tmp_path)
    assert checkpoint.entry({"depth": 3}, "depth", tmp_path) == 3


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\x00"])
def test_settings_that_are_no_json_object_are_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SetupError, match=r"config\.json (cannot be read|holds no JSON object)"):
        checkpoint.settings(tmp_path / "config.json")
    (tmp_path / "config.json").write_text(json.dumps({"a": 1}))
    assert checkpoint.settings(tmp_path / "config.json") == {"a": 1}
