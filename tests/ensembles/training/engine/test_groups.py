"""Which heads are trained together: those that can be, in pieces that suit the machine."""

import torch

from mmmos.ensembles.spec import HeadSpec
from mmmos.ensembles.training import work
from mmmos.ensembles.training.engine.groups import CACHE, MOST, MOST_ON_GPU, kind, plan, together
from mmmos.ensembles.training.work import plan_there


def spec(**fields):
    options = {"hidden": 4} | fields.pop("options", {})
    return HeadSpec.model_validate({"head": "mlp", "features": ("a", "b"), "options": options} | fields)


def test_heads_of_a_kind_differ_in_seed_loss_rate_decay_clipping_and_stopping():
    base = spec()
    alike = [spec(seed=1), spec(loss="ccc"), spec(loss="qamro", loss_options={"margin": 0.1}), spec(calibration="none")]
    alike += [spec(options={name: 1}) for name in ("lr", "weight_decay", "clip", "epochs", "patience")]
    assert {kind(each) for each in alike} == {kind(base)}
    others = [spec(layers="last"), spec(normalise="raw"), spec(features=("a",)), spec(folds=2), spec(axes=("PQ",))]
    others += [spec(options={"hidden": 5}), spec(options={"batch": 8}), spec(options={"dropout": 0.5})]
    others += [spec(loss="gaussian_nll"), spec(samples="windows"), HeadSpec(head="ridge", features=("a", "b"))]
    assert len({kind(each) for each in [*others, base]}) == len(others) + 1


def test_a_plan_holds_every_head_once_in_enough_pieces_for_all_processes(world):
    specs = [spec(seed=seed, folds=2, loss=loss) for seed in range(10) for loss in ("mse", "ccc")]
    specs += [HeadSpec(head="ridge", features=("a",)), HeadSpec(head="svr", features=("a",))]
    for jobs in (1, 2, 5):
        groups = plan(specs, world.features, "cpu", exact=False, jobs=jobs)
        assert sorted(spec.key("") for group in groups for spec in group.specs) == sorted(
            each.key("") for each in specs
        )
        assert len(groups) >= min(2 * jobs, 20) + 2
    alone = plan(specs, world.features, "cpu", exact=True, jobs=1)
    assert len(alone) == len(specs) and {group.together for group in alone} == {1}


def test_small_heads_share_a_stack_and_large_ones_fill_the_cache(world, build):
    wide = build.features({"a": world.features["a"].raw.repeat(400, axis=2)}, list(world.features.ids))
    assert together(spec(), world.features, "cpu") == MOST
    large = together(spec(features=("a",), options={"hidden": 64}), wide, "cpu")
    assert large == CACHE // (4 * (4 * (9600 * 64 + 64 + 64 * 4 + 4) + 2 * 32 * 9600))
    assert together(HeadSpec(head="ridge", features=("a",)), wide, "cpu") == 1


def test_a_gpu_is_filled_to_a_share_of_its_memory_whatever_the_number_of_processes(world, monkeypatch):
    memory = 8_000_000
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (memory // 3, memory))
    (features,) = world.features["a"].raw.shape[1:2]
    one = together(spec(features=("a",)), world.features, "cpu")
    most = together(spec(features=("a",)), world.features, "cuda:0")
    parameters, inputs = 24 * 4 + 4 + 4 * 4 + 4, features * 8
    assert one == MOST < most == int(0.5 * memory // (4 * (4 * parameters + 2 * 32 * inputs)))
    specs = [spec(features=("a",), folds=2, seed=seed) for seed in range(most)]
    groups = plan(specs, world.features, "cuda:0", exact=False, jobs=8)
    assert [len(group.specs) for group in groups] == [most // 2] * 2 + [most % 2] * (most % 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**12))
    assert together(spec(), world.features, "cuda:0") == MOST_ON_GPU
    monkeypatch.setattr(work, "find_device", lambda device: "cuda:0")
    assert plan_there(world.features, True, "auto", specs)[0] == "cuda"
    assert plan_there(world.features, True, "cuda:1", specs) == (
        "cuda:1",
        plan(specs, world.features, "cuda:0", exact=True, jobs=1),
    )
