"""``mmmos ensembles``: what is trained and tuned on the command line."""

import json
import shutil
import sys
from importlib.util import find_spec

import pytest

from mmmos.ensembles.training import train as training
from mmmos.ensembles.training.train import Part
from mmmos.parallel import Shard, Workers
from mmmos.pipeline.shards import Share

needs_optuna = pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra tune")

OPEN = """
[[grid]]
head = "ridge"
layers = "each"
normalise = ["unit", "standard"]
folds = 2
[select]
rule = "top_k"
on = "pam"
k = 2
"""


@pytest.fixture
def own(workspace, tmp_path, monkeypatch, command):
    """A copy of the workspace that may be changed, with a recipe that leaves something open."""
    folder = shutil.copytree(workspace, tmp_path / "own")
    (folder / "ensembles" / "open.toml").write_text(OPEN)
    monkeypatch.chdir(folder)
    return folder


def test_exact_and_device_reach_training(command, monkeypatch):
    given = {}

    def train(*arguments, real=training.train, **keywords):
        given.update(keywords)
        return real(*arguments, **keywords)

    monkeypatch.setattr("mmmos.pipeline.train", train)
    assert command("ensembles", "train", "light", "--exact", "--device", "cpu", "--jobs", "1")[0] == 0
    assert (given["exact"], given["device"], given["jobs"]) == (True, "cpu", Workers(jobs=1))
    assert command("ensembles", "train", "light")[0] == 0
    assert (given["exact"], given["device"]) == (False, "auto")


def test_a_shard_says_how_many_heads_are_there(command):
    code, out, err = command("ensembles", "train", "light", "--shard", "2/2", "--jobs", "1")
    assert (code, out, err) == (0, "", "shard 2/2: 1 heads trained; 2 of 2 heads of light are there.\n")
    code, _, err = command("ensembles", "train", "light", "--shard", "3/2")
    assert code == 2 and "A shard is i/N" in err


def test_where_training_runs_is_checked_before_anything_is_read(command, tmp_path):
    for name in ("train light", "run"):
        code, _, err = command(*("ensembles " * (name != "run") + name).split(), "--backend", "dusk")
        assert code == 2 and 'for --backend. Choose from: "local", "dask", "ray". Did you mean "dask"?' in err


def test_a_shard_of_a_run_says_what_is_still_to_come(command, monkeypatch):
    code, out, err = command("run", "--shard", "1/2", "--jobs", "1")
    assert (code, out) == (0, "") and "2 of 2 heads of light are there." in err
    assert err.endswith("Nothing is missing: mmmos run without --shard finishes.\n")
    heads = Part("light", Shard(1, 2), trained=1, there=1, wanted=2)
    monkeypatch.setattr("mmmos.pipeline.shards.run_shard", lambda *_, **__: Share(Shard(1, 2), 5, 0, heads))
    assert "The other shards' heads are still to come" in command("run", "--shard", "1/2")[2]
    monkeypatch.setattr("mmmos.pipeline.shards.run_shard", lambda *_, **__: Share(Shard(1, 2), 5, 3, None))
    code, _, err = command("run", "--shard", "1/2")
    assert code == 0 and "The other shards' features of 3 clips are still to come; the same command goes on" in err


@needs_optuna
def test_what_is_tuned_is_a_recipe_like_any_other(command, own):
    code, out, err = command("ensembles", "tune", "open", "--trials", "5", "--keep", "3", "--jobs", "1")
    assert code == 0 and err.splitlines()[-1] == "The 3 best of 5 heads: ensembles/open-tuned.toml"
    assert len(out.splitlines()) == 6 and out.split()[:2] == ["name", "pam_utt_SRCC"]
    code, out, err = command("ensembles", "show", "open-tuned", "--json")
    assert code == 0 and len(json.loads(out)) == 3 and "3 of 3 heads are trained." in err
    code, out, err = command("ensembles", "select", "best", "--recipe", "open-tuned")
    assert code == 0 and "2 of 3 heads: ensembles/best.json" in err


@needs_optuna
def test_the_same_command_says_the_same_as_json(command, own):
    line = ("ensembles", "tune", "open", "--trials", "3", "--on", "oof", "--metric", "utt_MSE", "--seed", "4", "--json")
    first, second = command(*line), command(*line)
    errors = [row["oof_utt_MSE"] for row in json.loads(first[1])]
    assert first == second and len(errors) == 3 and errors[0] > 0 and errors == sorted(errors)


@pytest.mark.parametrize(
    ("line", "code", "sentence"),
    [
        ("ensembles tune lihgt", 2, "There is no ensemble recipe 'lihgt'. Did you mean 'light'?"),
        ("ensembles tune light --on eval", 2, "the evaluation set is never selected on"),
        ("ensembles tune light --on pan", 2, "There is no labelled set 'pan'. Did you mean 'pam'?"),
        ("ensembles tune light --metric utt_SRC", 2, "no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
        ("ensembles tune light --trials 0", 2, "trials and keep are 1 at least"),
    ],
)
def test_mistakes_in_tuning_are_sentences(command, line, code, sentence):
    found, out, err = command(*line.split())
    assert (found, out) == (code, "") and sentence in err


def test_without_optuna_the_command_to_type_is_named(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, out, err = command("ensembles", "tune", "light")
    assert (code, out) == (5, "") and "pip install 'mmmos[tune]'" in err


def test_a_rule_takes_options_and_weights(command, own):
    line = "ensembles select g --rule greedy --on pam=2 --on dev --metric utt_SRCC --metric utt_MSE=0.5 --option bags=3"
    code, _, err = command(*line.split(), "--option", "per_axis=true", "--option", "share=0.5", "--json")
    assert code == 0 and "of 2 heads: ensembles/g.json" in err
    assert json.loads((own / "ensembles" / "g.json").read_text())["rule"] == {
        "rule": "greedy",
        "on": {"pam": 2.0, "dev": 1.0},
        "k": None,
        "metric": {"utt_SRCC": 1.0, "utt_MSE": 0.5},
        "calibrate": None,
        "calibrate_by": "set",
        "options": {"bags": 3, "per_axis": True, "share": 0.5},
    }
    assert command("ensembles", "select", "s", "--rule", "stack", "--option", "method=nnls")[0] == 0


def test_stability_is_a_column_beside_the_members(command, own):
    code, out, err = command("ensembles", "select", "t", "--stability", "8", "--json")
    (member,) = json.loads(out)
    assert code == 0 and list(member)[:3] == ["key", "name", "chosen"] and 0 <= member["chosen"] <= 1
    lines = [line for line in err.splitlines() if line.startswith("  ")]
    assert [line.split(":")[0].strip() for line in lines] == ["dev", "pam", "oof"]
    assert all(
        f"{name}" in line
        for line in lines
        for name in ("top_k ", " more than the best head", " more than the mean of all")
    )
    assert command("ensembles", "select", "t", "--stability", "8", "--json")[1:] == (out, err)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("--rule greedy --option bag=3", "no parameter of the rule 'greedy' 'bag'. Did you mean 'bags'?"),
        ("--rule greedy --option bags", "--option takes NAME=VALUE, as in bags=20; got 'bags'."),
        ("--rule greedy --option bags=many", "bags must be a whole number, 1 or more; got 'many'."),
        ("--rule greedy --option share=NaN", "share must be a number above 0 to 1; got 'NaN'."),
        ("--rule greedy --option bags=1 --option bags=2", "--option gives 'bags' twice."),
        ("--rule top_k --on pam=much", "A weight of --on is a number, as in pam=2"),
        ("--rule top_k --on pam=-1", "on.pam: input should be greater than 0"),
        ("--rule top_k --on eval=1 --on pam", "the evaluation set is never selected on"),
        ("--rule top_k --metric SRCC=1", "no metric 'SRCC'"),
        ("--stability -1", "--stability is a number of resamples, 0 for none; got -1."),
    ],
)
def test_mistakes_in_selecting_are_sentences(command, line, sentence):
    code, out, err = command("ensembles", "select", "wrong", *line.split())
    assert (code, out) == (2, "") and sentence in err
