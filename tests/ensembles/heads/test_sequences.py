"""Heads on frames are what they say, and what is behind a clip or beside it changes nothing."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.frames import Padded
from mmmos.ensembles.heads.inputs import Standardiser
from mmmos.ensembles.heads.neural import Batch, Output
from mmmos.ensembles.heads.over_time import clip_dropout, time_mean
from mmmos.ensembles.heads.sequences import AESA
from mmmos.ensembles.heads.stack import Chance
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of
from mmmos.ensembles.training.train import train
from mmmos.errors import UsageError
from mmmos.files import tensor_bytes

NAMES = ("blstm_t", "attention", "aesa")
SMALL = {
    "blstm_t": {"width": 6, "hidden": 4, "depth": 2},
    "attention": {"width": 6, "attention": 5, "queries": 3, "hidden": 8},
    "aesa": {"width": 6, "hidden": 4, "shared": 8, "attention_heads": 2},
}
SECONDS = [[0.7], [1.0, 0.3], [0.1], [2.0]]
SETS = {"a": (0.1, 3, 5), "b": (0.05, 1, 4)}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def frames(framed):
    return framed.frames(framed.features(SECONDS, SETS))


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["flattened", "weighted"])
def head(request, name, untrained, frames):
    return untrained(name, frames.shapes, weighted=request.param, **SMALL[name])


def outputs(head, batch):
    return head.module()(batch)


def test_a_clip_gets_the_same_bits_whatever_other_clips_are_predicted(head, frames):
    predicted = head.predict(frames)
    assert predicted.dtype == np.float32 and predicted.shape == (4, 4) and np.ptp(predicted, 0).min() > 0
    for clips in ([2, 0, 3], [1]):
        assert head.predict(frames.at(np.array(clips))).tobytes() == predicted[clips].tobytes()
    assert head.predict(frames.at(np.array([], np.int64))).shape == (0, 4)


@pytest.mark.parametrize("filler", [0.0, -300.0])
def test_padding_and_neighbours_change_nothing_in_training_either(head, frames, filler):
    batch = Padded(frames).batch(np.arange(4))
    valid = torch.arange(int(frames.lengths.max())) < batch.lengths[0][:, None]
    longer = [nn.functional.pad(block, (0, 0, 0, 0, 0, 3)) for block in batch.blocks]
    outside = ~nn.functional.pad(valid, (0, 3))
    for block in longer:
        block[0, outside] = filler
        block.requires_grad_()
    chance = Chance(torch.tensor([3]), 0)
    together = outputs(head, Batch(longer, batch.lengths, chance))
    same = outputs(head, Batch(batch.blocks, batch.lengths, chance))
    for one, other in zip(together[:2], same[:2], strict=True):
        assert torch.allclose(one, other, atol=1e-5, rtol=0)
    together.outputs.square().sum().backward()
    for block in longer:
        assert block.grad[0, ~outside].any() and not block.grad[0, outside].any()
    alone = torch.from_numpy(head.predict(frames))
    assert torch.allclose(outputs(head, batch).outputs[0], alone, atol=1e-6, rtol=0)


def test_every_parameter_gets_a_gradient(head, frames):
    module = head.module().requires_grad_()
    module(Padded(frames).batch(np.arange(4))).outputs.square().sum().backward()
    # One layer alone has the weight 1, whatever is learned.
    inert = {"frontend.mix.weights.1"}
    assert {key for key, value in module.named_parameters() if not value.grad.any()} <= inert


def test_a_restored_head_predicts_the_same_bits(head, name, frames):
    from safetensors.numpy import load

    other = type(head)(options=SMALL[name], weighted=head.weighted, seed=1)
    other.restore(load(tensor_bytes(head.state())))
    assert other.predict(frames).tobytes() == head.predict(frames).tobytes()


def test_parameters_and_dropout_leave_the_random_state_of_the_process_alone(name, untrained, frames):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    one, other = (untrained(name, frames.shapes, seed=seed, dropout=0.5, **SMALL[name]) for seed in (0, 1))
    batch = Padded(frames).batch(np.arange(4))
    steps = [outputs(one, batch._replace(chance=Chance(torch.tensor([7]), step))).outputs for step in (0, 0, 1)]
    assert torch.equal(steps[0], steps[1]) and not torch.equal(steps[0], steps[2])
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(one.predict(frames).sum() * torch.ones(1), other.predict(frames).sum() * torch.ones(1))


def test_dropout_takes_the_same_numbers_from_every_frame_of_a_clip():
    x, chance = torch.ones(3, 6, 200), Chance(torch.tensor([1]), 0)
    found = clip_dropout(x, 0.25, chance, 0)
    assert torch.equal(found, found[:, :1].expand_as(found)) and found.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert (found == 0).float().mean() == pytest.approx(0.25, abs=0.06) and not torch.equal(found[0], found[1])
    assert clip_dropout(x, 0.25, None, 0) is x


@pytest.mark.parametrize("name", ["blstm_t", "attention"])
def test_losses_that_want_several_numbers_get_them(name, untrained, frames):
    head = untrained(name, frames.shapes, axes=2, loss="gaussian_nll", **SMALL[name])
    assert outputs(head, Padded(frames).batch(np.arange(4))).outputs.shape == (1, 4, 4)
    assert head.predict(frames).shape == (4, 2)


def state_of(head):
    return {key: torch.from_numpy(value) for key, value in head.state().items()}


def frontend(head, frames, clip):
    """Of one clip the projected frames (frames, width), from what the head stores."""
    state = state_of(head)
    parts = [torch.from_numpy(block).flatten(1) for block in frames.read(clip)]
    return torch.cat(parts, 1) @ state["frontend.project.weight"].T + state["frontend.project.bias"]


def test_blstm_t_is_a_mean_over_time_of_nn_lstm(untrained, frames):
    head = untrained("blstm_t", frames.shapes, **SMALL["blstm_t"])
    state, lstm = state_of(head), nn.LSTM(6, 4, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for key, value in lstm.named_parameters():
            direction = "backwards" if key.endswith("_reverse") else "forwards"
            layer = key.removesuffix("_reverse")[-1]
            value.copy_(state[f"lstm.{direction}.{layer}.{key.partition('_l')[0]}_l0"])
        for clip in range(4):
            hidden = lstm(torch.relu(frontend(head, frames, clip))[None])[0][0]
            expected = state["last.weight"] @ hidden.mean(0) + state["last.bias"]
            assert head.predict(frames)[clip] == pytest.approx(expected.numpy(), abs=1e-6)


def test_attention_is_statistics_under_learned_weights(untrained, frames):
    head = untrained("attention", frames.shapes, **SMALL["attention"])
    state = state_of(head)

    def layer(name, x):
        return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0)

    for clip in range(4):
        x = torch.relu(frontend(head, frames, clip))
        asked = torch.stack([layer("query", torch.tanh(layer("look", frame))) for frame in x])
        statistics = []
        for query in range(3):
            weights = asked[:, query].exp() / asked[:, query].exp().sum()
            mean = sum(w * frame for w, frame in zip(weights, x, strict=True))
            variance = sum(w * (frame - mean) ** 2 for w, frame in zip(weights, x, strict=True))
            statistics += [mean, variance.clamp_min(1e-6).sqrt()]
        expected = layer("last", torch.relu(layer("hidden", torch.cat(statistics))))
        assert head.predict(frames)[clip] == pytest.approx(expected.numpy(), abs=1e-4)


def test_an_axis_of_aesa_attends_as_nn_multihead_attention_does(untrained, frames):
    head = untrained("aesa", frames.shapes, **SMALL["aesa"])
    module = head.module()
    axis, theirs = module.axes[2], nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(axis.inner.weight)
        theirs.in_proj_bias.copy_(axis.inner.bias)
        theirs.out_proj.load_state_dict(axis.outer.state_dict())
    x, valid = torch.randn(3, 9, 8), torch.arange(9) < torch.tensor([4, 9, 1])[:, None]
    expected = axis.score(theirs(x, x, x, key_padding_mask=~valid)[0])[..., 0]
    assert torch.allclose(axis(x, valid)[valid], expected[valid], atol=1e-6)


def test_scores_of_aesa_are_means_of_its_frames_scores_which_stay_in_reach(untrained, frames):
    head = untrained("aesa", frames.shapes, reach=2.5, **SMALL["aesa"])
    for key in head.parameters:
        if key.endswith("score.weight"):
            head.parameters[key] *= 200
    scores = head.frame_scores(frames)
    assert [len(each) for each in scores] == frames.lengths.tolist()
    assert np.concatenate(scores).max() > 2.4 and np.abs(np.concatenate(scores)).max() <= 2.5
    assert head.predict(frames) == pytest.approx(np.stack([each.mean(0) for each in scores]), abs=1e-5)


def test_aesas_frame_objective_is_the_error_of_every_frame_against_its_clips_target(untrained, frames):
    head = untrained("aesa", frames.shapes, frame_weight=0.3, **SMALL["aesa"])
    targets = torch.randn(1, 4, 4)
    output = outputs(head, Padded(frames).batch(np.arange(4)))
    scores = [torch.from_numpy(each) for each in head.frame_scores(frames)]
    by_frame = [((each - y) ** 2).mean() for each, y in zip(scores, targets[0], strict=True)]
    of_clips = ((torch.stack([each.mean(0) for each in scores]) - targets[0]) ** 2).mean()
    found = head.objective(output, targets, {}, {})
    assert found.shape == (1,) and found.item() == pytest.approx((of_clips + 0.3 * sum(by_frame) / 4).item(), rel=1e-5)
    plain = untrained("aesa", frames.shapes, **SMALL["aesa"])
    assert plain.objective(Output(*output), targets, {}, {}).item() == pytest.approx(of_clips.item(), rel=1e-5)


def test_aesa_refuses_losses_of_several_numbers_and_heads_that_do_not_divide():
    with pytest.raises(UsageError, match="asks for 2 numbers; use a loss of one number"):
        AESA(options={}, loss="gaussian_nll")
    with pytest.raises(ValueError, match="shared = 8 is not a multiple of attention_heads = 3"):
        AESA(options={"shared": 8, "attention_heads": 3})


def test_a_mean_over_time_leaves_padding_out():
    x, lengths = torch.randn(3, 5, 2), torch.tensor([5, 1, 3])
    expected = torch.stack([row[:n].mean(0) for row, n in zip(x, lengths, strict=True)])
    assert torch.allclose(time_mean(x, lengths), expected, atol=1e-6)


def test_a_recipe_trains_them_to_hear_how_often_something_happens(framed, tmp_path):
    rng = np.random.default_rng(0)
    features = framed.features(rng.uniform(0.5, 1.5, (80, 1)).tolist(), {"a": (0.1, 2, 6), "b": (0.2, 1, 4)})
    scores = np.empty((80, 2))
    for clip, key in enumerate(features.keys):
        (frames,) = features["a"].source.raw[key]
        happens = rng.uniform(size=(len(frames), 2)) < rng.uniform(size=2)
        frames[:, 1, :2] = np.where(happens, 6, -6)
        scores[clip] = 2 + 6 * happens.mean(0)
    clips = pd.DataFrame(scores, columns=["PQ", "CE"], index=list(features.keys))
    clips["set"] = np.repeat(["train", "dev"], [60, 20])
    sizes = {"width": 16, "hidden": 16, "lr": 0.005, "epochs": 15, "batch": 6, "rate": 10.0}
    common = {"loss": "triplet", "layers": "weighted", "folds": 1}
    aesa = {"head": "aesa", "options": sizes | {"shared": 16, "attention_heads": 2, "dropout": 0.0}, **common}
    aesa["options"]["frame_weight"] = 0.1
    grid = [{"head": "blstm_t", "options": sizes, **common}, aesa]
    pool = train(EnsembleRecipe.model_validate({"axes": ["PQ", "CE"], "grid": grid}), features, clips, folder=tmp_path)
    assert pool.measure("dev", "utt_SRCC").min() > 0.9, pool.measure("dev", "utt_SRCC")


def test_training_gives_the_same_bits_again_and_others_for_another_seed(head, name, frames):
    targets = np.random.default_rng(0).normal(size=(4, 4))

    def parameters(seed):
        other = type(head)(options=SMALL[name] | {"epochs": 2, "batch": 2}, weighted=head.weighted)
        member = Member(other, Standardiser([], []), np.arange(3), np.arange(3, 4), 1, 2, (seed, 0))
        trainer.train([member], feed_of(frames, [member], "cpu"), frames.shapes, targets)
        return torch.cat([value.flatten() for value in other.parameters.values()])

    assert torch.equal(parameters(0), parameters(0)) and not torch.equal(parameters(0), parameters(1))
