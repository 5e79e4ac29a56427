"""Which heads are trained together: those that can be, in pieces that suit the machine."""

from mmmos.ensembles.engine.groups import CACHE, MOST, kind, plan, together
from mmmos.ensembles.spec import HeadSpec


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
