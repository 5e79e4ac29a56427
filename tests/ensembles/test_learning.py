"""What training comes to: losses find the planted relation on its scale, sets mix without leaks, plug-ins take part."""

import numpy as np
import pytest

from mmmos import registry
from mmmos.axes import AXES
from mmmos.ensembles import runs
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.losses import loss
from mmmos.ensembles.training.train import train
from mmmos.errors import UnknownName, UsageError

SIZES = {"train": 200, "dev": 60, "pam": 40, "eval": 10}
POOLED = [name for name in registry.names("losses") if loss(name).embedding is None]


@pytest.fixture(scope="module")
def larger(build):
    return build.world(noise=0.2, sizes=SIZES)


@pytest.fixture(scope="module")
def by_loss(build, larger, tmp_path_factory):
    """A head for every loss, and one without calibration where it leaves the scale."""
    options = {"lr": 0.01, "epochs": 60, "patience": 60, "batch": 50}
    table = {"head": "linear", "normalise": "raw", "folds": 2, "options": options}
    mlp = {**table, "head": "mlp", "options": options | {"hidden": 32}, "loss": ["triplet", "triplet_batch"]}
    loose = [name for name in POOLED if not loss(name).anchored]
    grid = [{**table, "loss": POOLED}, {**table, "loss": loose, "calibration": "none"}, mlp]
    return train(build.recipe(*grid), larger.features, larger.clips, folder=tmp_path_factory.mktemp("losses"))


def test_every_loss_finds_the_planted_relation(by_loss):
    quality = by_loss.measure("dev", "utt_SRCC").mean(1)
    assert len(by_loss) >= len(registry.names("losses"))
    assert {
        spec.loss: round(float(each), 2) for spec, each in zip(by_loss.specs, quality, strict=True) if each < 0.85
    } == {}


def test_scores_come_out_on_the_scale_of_the_ratings(by_loss):
    truth = by_loss.truth["dev"]
    for spec, scores in zip(by_loss.specs, by_loss.scores["dev"], strict=True):
        if spec.calibration == "auto":
            assert np.abs(scores.mean(0) - truth.mean(0)).max() < 0.6, spec.loss
            assert 0.6 < (scores.std(0) / truth.std(0)).mean() < 1.2, spec.loss


def test_the_released_dcq_overshoots_before_calibration_and_not_after(by_loss):
    truth = by_loss.truth["dev"]
    ratio = {
        spec.calibration: (scores.std(0) / truth.std(0)).mean()
        for spec, scores in zip(by_loss.specs, by_loss.scores["dev"], strict=True)
        if spec.loss == "dcq_released"
    }
    assert ratio["none"] > 1.08 and 0.85 < ratio["auto"] < 1.02


def test_a_set_that_is_trained_on_is_selected_on_by_its_out_of_fold_predictions(build, tmp_path):
    world = build.world(noise=50.0, sizes=SIZES)
    table = {"head": "extra_trees", "options": {"leaf": 1, "trees": 10}}
    pool = train(build.recipe(table, train=["train", "pam"]), world.features, world.clips, folder=tmp_path)
    assert pool.labelled() == ["train", "dev", "pam", "oof"]
    assert np.abs(pool.measure("pam")).max() < 0.5
    place = [pool.ids["oof"].index(clip) for clip in pool.ids["pam"]]
    assert np.array_equal(pool.scores["pam"], pool.scores["oof"][:, place])
    assert select(pool, "top_k", on="pam", k=1).selection.members.tolist() == [0]
    only = train(build.recipe(table), world.features, world.clips, folder=tmp_path)
    assert only.labelled() == ["dev", "pam", "oof"]


def test_a_set_that_is_trained_on_without_folds_is_not_selected_on(build, world, tmp_path):
    recipe = build.recipe({"head": "linear", "folds": 1, "options": {"epochs": 2}}, train=["train", "pam"])
    pool = train(recipe, world.features, world.clips, folder=tmp_path)
    with pytest.raises(UnknownName, match="no labelled set 'pam'"):
        select(pool, "best", on="pam")


def test_heads_learn_from_what_else_is_known_of_clips(build, world, tmp_path):
    rng = np.random.default_rng(0)
    ratings = {
        f"{axis}_ratings": [tuple(rng.integers(0, 11, 10).astype(float)) for _ in range(len(world.clips))]
        for axis in AXES
    }
    clips = world.clips.assign(domain=rng.choice(["speech", "music"], len(world.clips)), **ratings)
    options = {"lr": 0.02, "hidden": 16, "epochs": 25}
    grid = [
        {"head": "gaussian", "options": options},
        {"head": "adversarial", "options": options | {"domains": ["domain", "kmeans", "random"], "clusters": 3}},
        {
            "head": "adversarial",
            "loss": ["ccc", "triplet"],
            "samples": "clips",
            "options": options | {"domains": "domain"},
        },
    ]
    pool = train(build.recipe(*grid), world.features, clips, folder=tmp_path)
    assert len(pool) == 6 and pool.measure("dev").mean(1).min() > 0.5
    other = train(
        build.recipe(*grid), world.features, clips.assign(domain=clips["domain"].to_numpy()[::-1]), folder=tmp_path
    )
    assert not set(other.keys) & set(pool.keys)
    ratings = {f"{axis}_ratings": [tuple(float(each) for each in range(10))] * len(clips) for axis in AXES}
    again = train(build.recipe(*grid), world.features, clips.assign(**ratings), folder=tmp_path)
    assert [one == other for one, other in zip(again.keys, pool.keys, strict=True)] == [False] + 5 * [True]


def test_a_head_that_lacks_what_it_learns_from_costs_itself_alone(build, world, tmp_path, caplog):
    grid = [{"head": ["mlp", "adversarial"], "options": {"epochs": 2}}]
    grid.append({"head": "adversarial", "options": {"epochs": 2, "domains": "domain"}})
    pool = train(build.recipe(*grid), world.features, world.clips, folder=tmp_path)
    assert len(pool) == 2 and "two domains at least" in caplog.text


PLUGIN = """
import torch
from mmmos.ensembles.heads.neural import Neural, Output, TrainingOptions
from mmmos.ensembles.heads.stack import Affine


class Squared(torch.nn.Module):
    def __init__(self, shapes, outputs, draws):
        super().__init__()
        self.last = Affine(2 * sum(layers * dim for layers, dim in shapes), outputs, draws)

    def forward(self, batch):
        x = torch.cat([block.flatten(2) for block in batch.blocks], dim=2)
        return Output(self.last(torch.cat([x, x * x], dim=2)))


class Quadratic(Neural):
    Options = TrainingOptions

    def build(self, shapes, axes, draws):
        return Squared(shapes, self.outputs(axes), draws)


class Broken(Quadratic):
    def objective(self, output, targets, side, constants):
        if self.seed == 1:
            raise RuntimeError("one is not enough")
        return super().objective(output, targets, side, constants)
"""


def test_a_plug_in_s_head_is_trained_in_stacks_like_ours(build, world, tmp_path, caplog):
    path = tmp_path / "mine.py"
    path.write_text(PLUGIN)
    table = {"seed": [0, 1], "loss": ["mse", "ccc"], "options": {"epochs": 30, "lr": 0.02}}
    pool = train(
        build.recipe({"head": f"{path}:Quadratic", **table}), world.features, world.clips, folder=tmp_path / "all"
    )
    assert len(pool) == 4 and pool.measure("dev").mean() > 0.5
    single = build.recipe({"head": f"{path}:Quadratic", "seed": 1, "loss": "ccc", "options": table["options"]})
    alone = train(single, world.features, world.clips, folder=tmp_path / "alone")
    first, second = ((folder / alone.keys[0] / runs.ARRAYS).read_bytes() for folder in (alone.folder, pool.folder))
    assert first == second
    broken = build.recipe({"head": f"{path}:Broken", **table})
    left = train(broken, world.features, world.clips, folder=tmp_path / "broken")
    assert [spec.seed for spec in left.specs] == [0, 0] and "one is not enough" in caplog.text


def test_a_loss_without_a_scale_is_not_averaged_uncalibrated(by_loss):
    loose = next(number for number, spec in enumerate(by_loss.specs) if spec.calibration == "none")
    with pytest.raises(UsageError, match="calibration"):
        select(by_loss.only([0, loose]), "average")
    assert len(select(by_loss.only([loose]), "average")) == 1
