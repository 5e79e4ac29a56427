"""check_loss: what is sound passes, each kind of broken one is caught and named."""

import numpy as np
import pytest
import torch

from mmmos import registry
from mmmos.ensembles.losses import Loss, loss
from mmmos.ensembles.losses.base import pairs
from mmmos.testing import check_loss


@pytest.mark.parametrize("name", registry.names("losses"))
def test_every_registered_loss_passes(name):
    check_loss(name)


def test_a_loss_in_a_file_is_checked_by_its_name(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from mmmos.ensembles.losses import Loss\n"
        "QUARTIC = Loss('quartic', lambda p, y: (p - y).square().square().mean(-1))\n"
    )
    check_loss(f"{tmp_path}/mine.py:QUARTIC")
    with pytest.raises(AssertionError, match=r"A loss is a .*Loss; got int"):
        check_loss(3)


def squares(p, y):
    return (p - y).square().mean(-1)


def averages_the_heads(p, y):
    return squares(p, y) * 0.9 + 0.1 * squares(p, y).mean(0, keepdim=True)


def sums_the_axes(p, y):
    return squares(p, y).sum(-1)


def keeps_the_batch(p, y):
    return (p - y).square()


def divides_by_the_batch_less_one(p, y):
    return (p - y).square().sum(-1) / (p.shape[-1] - 1)


def root(p, y):
    return squares(p, y).sqrt()


def root_but_for_constants(p, y):
    return (squares(p, y) + (p.var(-1, correction=0) < 1e-9)).sqrt()


def explodes(p, y):
    return (p - y).abs().exp().mean(-1)


def weighs_by_place(p, y):
    return ((p - y).square() * torch.arange(p.shape[-1]).to(p.dtype)).mean(-1)


def writes_to_targets(p, y):
    y -= y.mean(-1, keepdim=True)
    return squares(p, y)


def draws(p, y):
    return ((p - y).square() * (torch.rand(p.shape[-1]) < 0.5)).mean(-1)


def seeds_the_process(p, y):
    torch.manual_seed(0)
    return squares(p, y)


def remembers(p, y, calls=[]):  # noqa: B006
    calls.append(1)
    return squares(p, y) * (1 + 1 / len(calls))


def forgets_a_gradient(p, y):
    return squares(p, y) + (p.detach() * (p - y)).mean(-1)


def gives_doubles(p, y):
    return squares(p, y).double()


def rounds_to_half_precision(p, y):
    return squares(p.to(torch.bfloat16), y.to(torch.bfloat16)).to(p.dtype)


def differences(p, y):
    return (pairs(p) - pairs(y)).square().mean((-2, -1))


def differences_and_decay(p, y):
    return differences(p, y) + 1e-3 * p.square().mean(-1)


def climbs(p, y):
    return -squares(p, -y)


def exaggerates(p, y):
    return squares(p, 3 * y)


def ignores_its_option(p, y, tau=0.5):
    return squares(p, y)


def divides_by_its_option(p, y, scale=1.0):
    return (p - y).square().mean(-1) / scale


def first(outputs):
    return outputs[..., 0]


def of_two(outputs, y):
    return squares(outputs.sum(-1), y)


def centred(outputs):
    return outputs.sum(-1) - outputs.sum(-1).mean(-1, keepdim=True)


def overflows(outputs):
    return outputs.sum(-1).exp()


def takes_deviations(p, y, deviation):
    return squares(p * deviation.unsqueeze(-1), y * deviation.unsqueeze(-1))


def changes_the_deviations(p, y, deviation):
    return squares(p, y) * deviation.clamp_(1, 2)


def own_deviations(scores, scale):
    return {"deviation": scale[1]}


def deviations_of_all(scores, scale):
    return {"deviation": scale[1].mean(keepdims=True)}


def sample_deviations(scores, scale):
    with np.errstate(all="ignore"):
        spread = ((scores - scores.mean(0)) ** 2).sum(0)
        return {"deviation": np.sqrt(spread / (len(scores) - np.float64(1)))}


def nearest(z, y, known_z, known_y, chance, alpha=0.2):
    """The squared distance to a remembered clip."""
    known_z = torch.cat([known_z, torch.zeros_like(known_z[:, :1] if known_z.shape[1] else z[:, :1])], 1)
    return alpha * torch.cdist(z, known_z).square().mean((-2, -1))


def needs_a_memory(z, y, known_z, known_y, chance):
    return (z - known_z[:, chance[0, 0, 0, 0].argmax()].unsqueeze(1)).square().mean((-2, -1))


def of_nobody(z, y, known_z, known_y, chance):
    near = (y.unsqueeze(-1) - known_y.unsqueeze(-2)).abs() < 0.5
    distance = (z.unsqueeze(2) - known_z.unsqueeze(1)).square().sum(-1).unsqueeze(1)
    return (distance * near).sum((1, 2, 3)) / near.sum((1, 2, 3))


def of_all_heads(z, y, known_z, known_y, chance):
    return nearest(z, y, known_z, known_y, chance).mean(0, keepdim=True).expand(len(z))


def one_number(z, y, known_z, known_y, chance):
    return nearest(z, y, known_z, known_y, chance).mean()


def draws_itself(z, y, known_z, known_y, chance):
    return nearest(z, y, known_z, known_y, chance) * torch.rand(1)


def changes_the_memory(z, y, known_z, known_y, chance):
    known_z *= 0.9
    return nearest(z, y, known_z, known_y, chance)


def embedded(function):
    return Loss("mine", squares, embedding=function, memory=12)


BROKEN_LOSSES = [
    (Loss("mine", averages_the_heads), "heads_and_axes_do_not_touch: the value of head 0, axis 0, alone and among"),
    (Loss("mine", sums_the_axes), r"there_is_a_number_for_each_head_and_axis: targets \(axes, B\) gave shape \(\)"),
    (Loss("mine", keeps_the_batch), r"there_is_a_number_for_each_head_and_axis: .* gave shape \(3, 8\), not \(3,\)"),
    (
        Loss("mine", root_but_for_constants),
        "values_and_gradients_are_finite: a perfect prediction: the gradient has NaN",
    ),
    (Loss("mine", divides_by_the_batch_less_one), "values_and_gradients_are_finite: a batch of one: the value has NaN"),
    (Loss("mine", root), "values_and_gradients_are_finite: constant predictions and targets: the gradient has NaN"),
    (
        Loss("mine", explodes),
        "values_and_gradients_are_finite: predictions of a million: the value has NaN or infinite",
    ),
    (Loss("mine", weighs_by_place), "the_order_of_a_batch_does_not_matter: the value of the same clips in another"),
    (Loss("mine", writes_to_targets), "the_inputs_are_left_alone: the given tensors were changed in place"),
    (Loss("mine", draws), "the_same_input_gives_the_same_bits: the function gave other numbers"),
    (Loss("mine", seeds_the_process), "the_same_input_gives_the_same_bits: the function changed the random state"),
    (Loss("mine", remembers), "the_same_input_gives_the_same_bits: the function gave other numbers"),
    (Loss("mine", forgets_a_gradient), "gradients_are_those_of_finite_differences: the function has the gradient"),
    (Loss("mine", gives_doubles), "the_dtype_is_kept: the function made torch.float64 of float32"),
    (Loss("mine", rounds_to_half_precision), "gradients_are_those_of_finite_differences"),
    (Loss("mine", differences), "an_anchored_loss_feels_an_offset: 3 standard deviations added to all targets change"),
    (Loss("mine", differences_and_decay), "an_anchored_loss_feels_an_offset: 3 standard deviations .* all targets"),
    (Loss("mine", climbs), "descending_it_ranks_the_clips: 400 steps down the gradient rank 16 free predictions"),
    (Loss("mine", exaggerates), r"descending_it_ranks_the_clips: .* 3\.00 times the targets' deviation; set anchored"),
    (Loss("mine", ignores_its_option), "every_option_matters: tau = 0 and tau = 1 give what tau = 0.5 gives"),
    (Loss("mine", divides_by_its_option), "every_option_matters: scale = 0 gives NaN or infinite numbers"),
    (
        Loss("mine", squares, options={"tau": 0.1}),
        "the_parts_fit_together: UnknownName: There is no option of the loss",
    ),
    (Loss("mine", squares, memory=5), "the_parts_fit_together: memory = 5 without an embedding"),
    (Loss("mine", of_two, outputs=2), "the_parts_fit_together: 2 outputs need a decode"),
    (Loss("mine", of_two, outputs=2, decode=first), "descending_it_ranks_the_clips"),
    (Loss("mine", of_two, outputs=2, decode=centred), "scores_are_made_clip_by_clip: the score of a clip alone"),
    (
        Loss("mine", of_two, outputs=2, decode=overflows),
        "scores_are_made_clip_by_clip: huge outputs gave NaN or infinite",
    ),
    (Loss("mine", of_two, outputs=2, decode=torch.Tensor.double), "scores_are_made_clip_by_clip"),
    (
        Loss("mine", takes_deviations, constants=deviations_of_all),
        r"constants_have_a_row.*'deviation' has shape \(1,\)",
    ),
    (Loss("mine", takes_deviations, constants=sample_deviations), "constants_have_a_row.* numbers for one clip"),
    (Loss("mine", changes_the_deviations, constants=own_deviations), "the_inputs_are_left_alone"),
    (embedded(needs_a_memory), "embeddings_of_any_kind_give_finite_numbers: IndexError"),
    (embedded(of_nobody), "embeddings_of_any_kind_give_finite_numbers: .*: the value has NaN"),
    (embedded(of_all_heads), "heads_and_axes_do_not_touch: the embedding's term of head 0, alone and among others"),
    (
        embedded(one_number),
        r"there_is_a_number_for_each_head_and_axis: the embedding's term has shape \(\), not \(2,\)",
    ),
    (embedded(draws_itself), "the_same_input_gives_the_same_bits: the embedding's term gave other numbers"),
    (embedded(changes_the_memory), "the_inputs_are_left_alone: the given tensors were changed in place"),
]


@pytest.mark.parametrize(("broken", "said"), BROKEN_LOSSES)
def test_a_broken_loss_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_loss(broken)


def test_each_fault_of_a_loss_is_said():
    with pytest.raises(AssertionError) as caught:
        check_loss(Loss("mine", differences, memory=5))
    names = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert names == ["the_parts_fit_together", "an_anchored_loss_feels_an_offset", "descending_it_ranks_the_clips"]


def test_sound_losses_of_every_shape_pass():
    check_loss(Loss("mine", differences, anchored=False))
    check_loss(Loss("mine", takes_deviations, constants=own_deviations))
    check_loss(Loss("mine", of_two, outputs=2, decode=lambda outputs: outputs.sum(-1)))
    check_loss(embedded(nearest))
    check_loss(loss("utmos", {"tau": 0.1}))
    threads = torch.get_num_threads()
    check_loss(loss("triplet"))
    assert torch.get_num_threads() == threads
