"""The bidirectional LSTM gives each sequence what it gets alone."""

import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.recurrent import BiLSTM, linear, lstm


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def reference(ours, inputs, hidden, depth):
    """``nn.LSTM`` with the same parameters."""
    theirs = nn.LSTM(inputs, hidden, depth, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for suffix, layers in (("", ours.forwards), ("_reverse", ours.backwards)):
            for number, layer in enumerate(layers):
                for name, value in layer.named_parameters():
                    getattr(theirs, name.replace("_l0", f"_l{number}{suffix}")).copy_(value)
    return theirs


def sequences(lengths, size, seed=1):
    return [torch.randn(n, size, generator=draw(seed + i)) for i, n in enumerate(lengths)]


def padded(parts, filler=0.0, steps=None):
    x = torch.full((len(parts), steps or max(map(len, parts)), parts[0].shape[1]), filler)
    for row, part in zip(x, parts, strict=True):
        row[: len(part)] = part
    return x, torch.tensor([len(part) for part in parts])


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("lengths", [[7, 7, 7], [1, 9, 4, 9], [1]])
def test_each_sequence_gets_what_nn_lstm_gives_it_alone(depth, lengths):
    ours = BiLSTM(5, 4, depth, draw())
    theirs = reference(ours, 5, 4, depth)
    parts = sequences(lengths, 5)
    found = ours(*padded(parts))
    for row, part in zip(found, parts, strict=True):
        assert torch.allclose(row[: len(part)], theirs(part[None])[0][0], atol=1e-6, rtol=0)


def test_equal_lengths_need_not_be_given():
    ours = BiLSTM(5, 4, 2, draw())
    x, lengths = padded(sequences([6, 6], 5))
    assert torch.equal(ours(x), ours(x, lengths))


def test_it_equals_packed_sequences_with_their_gradients():
    ours = BiLSTM(5, 4, 2, draw())
    theirs = reference(ours, 5, 4, 2)
    x, lengths = padded(sequences([3, 8, 5], 5))
    weight = torch.randn(3, 8, 8, generator=draw(9)) * (torch.arange(8) < lengths[:, None])[..., None]
    grads = []
    for run in (lambda x: ours(x, lengths), lambda x: packed(theirs, x, lengths)):
        given = x.clone().requires_grad_()
        (run(given) * weight).sum().backward()
        grads.append(given.grad)
    assert torch.allclose(*grads, atol=1e-6, rtol=0)
    for number, layer in enumerate(ours.backwards):
        assert torch.allclose(layer.weight_hh_l0.grad, getattr(theirs, f"weight_hh_l{number}_reverse").grad, atol=1e-6)


def packed(module, x, lengths):
    rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    return nn.utils.rnn.pad_packed_sequence(module(rows)[0], batch_first=True)[0]


def test_padding_and_neighbours_change_nothing_and_get_no_gradient():
    ours = BiLSTM(5, 4, 2, draw())
    parts = sequences([3, 8], 5)
    alone = ours(parts[0][None])[0]
    for filler, steps in ((0.0, 8), (1e3, 8), (-7.0, 30)):
        x, lengths = padded(parts, filler, steps)
        x.requires_grad_()
        found = ours(x, lengths)[0, :3]
        assert torch.allclose(found, alone, atol=1e-6, rtol=0)
        (grad,) = torch.autograd.grad(found.sum(), x)
        assert grad[0, :3].any() and not grad[0, 3:].any() and not grad[1].any()


def test_gradients_are_those_of_finite_differences():
    ours = BiLSTM(3, 2, 2, draw()).double()
    x, lengths = padded([part.double() for part in sequences([2, 4], 3)])
    mask = (torch.arange(4) < lengths[:, None])[..., None]
    given = x.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ours(x, lengths) * mask, (given,))


@pytest.mark.parametrize("make", [lambda g: BiLSTM(3, 2, 2, g), lambda g: linear(3, 2, g), lambda g: lstm(3, 2, g)])
def test_parameters_come_from_the_generator_alone(make):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (list(make(draw(seed)).parameters()) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one, same)) and not any(map(torch.equal, one, other))


def test_parameters_are_drawn_as_torch_draws_them():
    bounds = {"lstm": 16**-0.5, "linear": 100**-0.5}
    for name, layer in {"lstm": lstm(100, 16, draw()), "linear": linear(100, 16, draw())}.items():
        values = torch.cat([value.detach().flatten() for value in layer.parameters()])
        assert values.abs().max() <= bounds[name] and values.std() == pytest.approx(bounds[name] / 3**0.5, rel=0.05)
