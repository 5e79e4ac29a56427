"""Parts of stacked heads: what they compute, what a head has from its neighbours (nothing), and what chance gives."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.adversarial import Adversarial
from mmmos.ensembles.heads.layersum import LayerSum
from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.pooled import MLP, Linear
from mmmos.ensembles.heads.probabilistic import Gaussian
from mmmos.ensembles.heads.stack import Affine, Chance, LayerMix, LayerNorm, dropout, elementwise, products

DTYPES = (torch.float32, torch.float64)


# The promise of equal bits is for one thread.
pytestmark = pytest.mark.usefixtures("one_thread")


def draws(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# --- Affine -----------------------------------------------------------------------------------------------------------


def linears(layer):
    """The same layers by torch, one for each head and copy."""
    for weight, bias in zip(layer.weight.flatten(0, -3), layer.bias.flatten(0, -2), strict=True):
        linear = nn.Linear(*weight.shape, dtype=weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(weight.T)
            linear.bias.copy_(bias)
        yield linear


@pytest.mark.parametrize("copies", [(), (2,)])
def test_affine_is_a_linear_layer_for_each_head_with_its_gradients(copies):
    layer = Affine(7, 3, draws(0, 1, 2), copies).double()
    x = noise(3, *copies, 5, 7).requires_grad_()
    output = layer(x)
    output.square().sum().backward()
    theirs = x.detach().flatten(0, -3).requires_grad_()
    reference = list(linears(layer))
    wanted = torch.stack([linear(each) for linear, each in zip(reference, theirs, strict=True)])
    wanted.square().sum().backward()
    assert torch.allclose(output.flatten(0, -3), wanted, atol=1e-12)
    assert torch.allclose(x.grad.flatten(0, -3), theirs.grad, atol=1e-12)
    assert torch.allclose(layer.weight.grad.flatten(0, -3), torch.stack([each.weight.grad.T for each in reference]))
    assert torch.allclose(layer.bias.grad.flatten(0, -2), torch.stack([each.bias.grad for each in reference]))


@pytest.mark.parametrize("copies", [(), (3,)])
def test_gradients_of_affine_are_those_of_finite_differences(copies):
    layer = Affine(4, 2, draws(0, 1), copies).double()

    def function(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = [noise(2, *copies, 3, 4).requires_grad_(), *(p.detach().requires_grad_() for p in layer.parameters())]
    assert torch.autograd.gradcheck(function, inputs)


def test_gradients_that_are_allocated_are_overwritten_in_place():
    layer, other = Affine(6, 3, draws(0, 1), (2,)), Affine(6, 3, draws(0, 1), (2,))
    buffers = [torch.full_like(parameter, 7.0) for parameter in layer.parameters()]
    for parameter, buffer in zip(layer.parameters(), buffers, strict=True):
        parameter.grad = buffer
    x = noise(2, 2, 5, 6, dtype=torch.float32)
    for _ in range(2):
        layer(x).square().sum().backward()
    other(x).square().sum().backward()
    for parameter, buffer, fresh in zip(layer.parameters(), buffers, other.parameters(), strict=True):
        assert parameter.grad is buffer and torch.equal(buffer, fresh.grad)


def test_parameters_are_drawn_as_those_of_a_linear_layer_and_from_the_heads_own_generator():
    layer = Affine(400, 300, draws(0, 1))
    for values in (layer.weight, layer.bias):
        assert values.abs().max() <= 1 / 20 and abs(values.std() - 1 / 20 / math.sqrt(3)) < 2e-3
    state = torch.get_rng_state()
    alone = Affine(400, 300, draws(1))
    assert torch.equal(alone.weight[0], layer.weight[1]) and torch.equal(alone.bias[0], layer.bias[1])
    assert torch.equal(torch.get_rng_state(), state)


# --- layers, norms ----------------------------------------------------------------------------------------------------


def mixed(block, logits, unit):
    """The weighted sum of layers (clips, dim) with loops; logits None: all layers side by side."""
    if logits is None:
        return np.stack([np.concatenate(list(clip)) for clip in block])
    shares = np.exp(logits) / np.exp(logits).sum()
    sums = np.stack([sum(share * layer for share, layer in zip(shares, clip, strict=True)) for clip in block])
    return np.stack([row / math.sqrt((row**2).sum()) for row in sums]) if unit else sums


@pytest.mark.parametrize("unit", [True, False])
def test_layer_mix_is_its_formula(unit):
    shapes = [(3, 5), (2, 4)]
    blocks = [noise(2, 6, *shape, seed=number) for number, shape in enumerate(shapes)]
    mix = LayerMix(shapes, True, 2, unit=unit).double()
    for number, weight in enumerate(mix.weights):
        weight.data = noise(*weight.shape, seed=9 + number)
    output = mix(blocks)
    assert output.shape == (2, 6, mix.size) == (2, 6, 9)
    for head in range(2):
        parts = [
            mixed(block[head].numpy(), weight[head].detach().numpy(), unit)
            for block, weight in zip(blocks, mix.weights, strict=True)
        ]
        assert output[head].detach().numpy() == pytest.approx(np.concatenate(parts, axis=1), abs=1e-12)


def test_unweighted_layers_stand_side_by_side_and_weighted_ones_begin_equal():
    shapes = [(3, 5), (2, 4)]
    blocks = [noise(2, 6, *shape, seed=number) for number, shape in enumerate(shapes)]
    plain = LayerMix(shapes, False, 2)
    assert plain.size == 23 and not list(plain.parameters())
    wanted = np.concatenate([mixed(block[1].numpy(), None, False) for block in blocks], axis=1)
    assert plain(blocks)[1].numpy() == pytest.approx(wanted)
    mean = torch.cat([block.mean(2) for block in blocks], 2)
    assert torch.allclose(LayerMix(shapes, True, 2, unit=False).double()(blocks), mean)


def test_copies_of_a_mix_have_weights_of_their_own():
    block = noise(2, 6, 3, 5)
    mix = LayerMix([(3, 5)], True, 2, copies=(4,)).double()
    mix.weights[0].data = noise(2, 4, 3, seed=1)
    output = mix([block])
    assert output.shape == (2, 4, 6, 5)
    for copy in range(4):
        one = LayerMix([(3, 5)], True, 2).double()
        one.weights[0].data = mix.weights[0].data[:, copy]
        assert torch.allclose(output[:, copy], one([block]), atol=1e-14)


@pytest.mark.parametrize("copies", [(), (2,)])
def test_gradients_of_layer_mix_are_those_of_finite_differences(copies):
    mix = LayerMix([(3, 4)], True, 2, copies).double()

    def function(block, weight):
        return torch.func.functional_call(mix, {"weights.0": weight}, ([block],))

    inputs = [noise(2, 5, 3, 4).requires_grad_(), noise(2, *copies, 3, seed=1).requires_grad_()]
    assert torch.autograd.gradcheck(function, inputs)


def test_layer_norm_is_that_of_torch_for_each_head_and_copy():
    norm, x = LayerNorm(8, 2, (3,)).double(), noise(2, 3, 5, 8) * 4 + 1
    norm.weight.data, norm.bias.data = noise(2, 3, 8, seed=1), noise(2, 3, 8, seed=2)
    for head in range(2):
        for copy in range(3):
            wanted = nn.functional.layer_norm(x[head, copy], (8,), norm.weight[head, copy], norm.bias[head, copy])
            assert torch.allclose(norm(x)[head, copy], wanted, atol=1e-12)


# --- a head has nothing from its neighbours ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_have_the_bits_that_they_have_alone(dtype):
    shapes = [(7, 48, 5), (32, 768, 1), (15, 32, 5), (2, 96, 13), (1, 64, 32), (32, 256, 4), (3, 14, 256), (5, 3, 2)]
    for m, k, n in shapes:
        a, b = noise(5, m, k, dtype=dtype), noise(5, n, k, seed=1, dtype=dtype).transpose(1, 2)
        together, into = products(a, b), torch.empty(5, m, n, dtype=dtype)
        assert torch.equal(products(a, b, out=into), together) and torch.equal(into, together)
        assert torch.allclose(together, a @ b, atol=1e-4)
        for head in range(5):
            alone = products(a[head : head + 1].clone(), b[head : head + 1].clone())
            assert torch.equal(alone[0], together[head]), (m, k, n, head)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("copies", [(), (2,), (3,)])
def test_mixed_layers_have_the_bits_that_they_have_alone(copies, dtype):
    for clips, layers, dim in [(27, 25, 13), (2, 25, 65), (13, 13, 33), (1, 25, 65), (7, 3, 65)]:
        block = noise(5, clips, layers, dim, dtype=dtype)
        together = LayerMix([(layers, dim)], True, 5, copies).to(dtype)
        together.weights[0].data = noise(5, *copies, layers, seed=1, dtype=dtype)
        output = together([block])
        output.backward(weight := noise(*output.shape, seed=2, dtype=dtype))
        for head in range(5):
            alone = LayerMix([(layers, dim)], True, 1, copies).to(dtype)
            alone.weights[0].data = together.weights[0].data[head : head + 1].clone()
            one = alone([block[head : head + 1].clone()])
            one.backward(weight[head : head + 1].clone())
            assert torch.equal(one[0], output[head])
            assert torch.equal(alone.weights[0].grad[0], together.weights[0].grad[head])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("function", [nn.functional.gelu, nn.functional.silu, nn.functional.softplus, torch.sigmoid])
def test_activations_have_the_bits_that_they_have_alone(function, dtype):
    for shape in [(5, 3), (13, 33), (6, 1), (32, 64)]:
        x = noise(7, *shape, dtype=dtype).requires_grad_()
        together = elementwise(function, x)
        together.backward(weight := noise(7, *shape, seed=1, dtype=dtype))
        assert torch.allclose(together, function(x))
        for head in range(7):
            one = x.detach()[head : head + 1].clone().requires_grad_()
            alone = elementwise(function, one)
            alone.backward(weight[head : head + 1].clone())
            assert torch.equal(alone[0], together[head]) and torch.equal(one.grad[0], x.grad[head])


HEADS = [
    (Linear, {}),
    (MLP, {"hidden": 5, "depth": 2, "dropout": 0.3}),
    (MLP, {"hidden": 64}),
    (LayerSum, {"depth": 3, "hidden": 13, "activation": "silu", "dropout": 0.2}),
    (LayerSum, {"depth": 2, "norm": False, "unit": False}),
    (Gaussian, {"hidden": 6, "dropout": 0.2}),
    (Gaussian, {"hidden": 64}),
    (Adversarial, {"hidden": 6, "clusters": 3, "domains": "random"}),
    (Adversarial, {"hidden": 64, "clusters": 4, "domains": "random", "dropout": 0.1}),
]


def trained_once(head, seeds, blocks, targets, side, weighted):
    """Outputs, objective and gradients of a stack in one training step; seeds are places in blocks and targets."""
    head.weighted = weighted
    shapes = [tuple(block.shape[2:]) for block in blocks]
    module = head.build(shapes, targets.shape[2], draws(*seeds)).to(targets.dtype)
    batch = Batch([block[seeds] for block in blocks], chance=Chance(torch.tensor(seeds), 3))
    output = module(batch)
    value = head.objective(output, targets[seeds], {name: each[seeds] for name, each in side.items()}, {})
    value.sum().backward()
    gradients = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values())
    return gradients | {"outputs": output.outputs, "objective": value}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_a_head_has_the_same_bits_in_a_stack_of_any_size(kind, options, dtype):
    head = kind(options=options)
    side = {"weight": 1 + noise(9, 32).abs()} if kind is Gaussian else {}
    if kind is Adversarial:
        head.domains, side = options["clusters"], {"domain": torch.arange(9 * 32).view(9, 32) % 4 - 1}
    for clips, axes, shapes in [(32, 4, [(13, 48)]), (7, 1, [(2, 33), (4, 7)]), (27, 2, [(1, 80)])]:
        blocks = [noise(9, clips, *shape, seed=7, dtype=dtype) for shape in shapes]
        targets, some = (
            noise(9, clips, axes, seed=8, dtype=dtype),
            {name: each[:, :clips] for name, each in side.items()},
        )
        for weighted in (False, True):
            alone = trained_once(head, [4], blocks, targets, some, weighted)
            for seeds in ([0, 4], [8, 4, 1], list(range(9))):
                stacked = trained_once(head, seeds, blocks, targets, some, weighted)
                place = seeds.index(4)
                differ = [name for name in alone if not torch.equal(alone[name][0], stacked[name][place])]
                assert not differ, (clips, axes, weighted, seeds)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("kind", "options"), HEADS)
def test_shapes_are_the_same_on_other_devices(kind, options, weighted):
    head = kind(options=options, weighted=weighted)
    head.domains = 3
    module, block = head.build([(3, 5)], 2, draws(0, 1)), noise(2, 7, 3, 5, dtype=torch.float32)
    here = module(Batch([block]))
    there = module.to("meta")(Batch([block.to("meta")]))
    assert [x if x is None else x.shape for x in there] == [x if x is None else x.shape for x in here]
    assert there.outputs.device.type == "meta"


# --- chance -----------------------------------------------------------------------------------------------------------


def drawn(seed=5, step=3, place=0, count=200_000):
    return Chance(torch.tensor([seed]), step).uniform(place, (count,))[0].double().numpy()


@pytest.mark.parametrize(("seed", "step", "place"), [(0, 0, 0), (1, 0, 0), (2**32 - 1, 7, 1), (12345, 99_999, 1 << 16)])
def test_chance_is_uniform_and_its_neighbours_are_independent(seed, step, place):
    x = drawn(seed, step, place)
    assert x.min() >= 0 and x.max() < 1
    error = 1 / math.sqrt(len(x))
    assert abs(x.mean() - 0.5) < 5 * error * math.sqrt(1 / 12)
    assert abs(x.var() - 1 / 12) < 5 * error * math.sqrt(1 / 180)
    counts = np.histogram(x, 256, (0, 1))[0]
    # Chi squared with 255 degrees of freedom: 99.99 % of the time below 345.
    assert ((counts - len(x) / 256) ** 2).sum() / (len(x) / 256) < 345
    for lag in (1, 2, 3, 32, 256):
        assert abs(np.corrcoef(x[:-lag], x[lag:])[0, 1]) < 5 * error


@pytest.mark.parametrize(
    "other", [{"place": 1}, {"place": 2}, {"step": 4}, {"step": 2}, {"seed": 4}, {"seed": 6}, {"seed": 3, "step": 5}]
)
def test_other_places_steps_and_seeds_have_chances_of_their_own(other):
    x, y = drawn(), drawn(**other)
    assert abs(np.corrcoef(x, y)[0, 1]) < 5 / math.sqrt(len(x))
    # Nor are they the same numbers somewhere else.
    assert len(np.intersect1d(x[:500], y)) < 30


def test_chances_of_many_heads_at_one_place_are_independent():
    x = Chance(torch.arange(20_000), 0).uniform(3, (4,)).double().numpy()
    assert np.abs(x.mean(0) - 0.5).max() < 5 * math.sqrt(1 / 12 / 20_000)
    assert np.abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 5 / math.sqrt(20_000)
    assert np.abs(np.corrcoef(x.T) - np.eye(4)).max() < 5 / math.sqrt(20_000)


def test_chance_does_not_depend_on_the_group():
    seeds = torch.tensor([11, 7, 2**32 - 1, 0])
    together = Chance(seeds, 6).uniform(2, (3, 5))
    assert together.shape == (4, 3, 5) and together.dtype == torch.float32
    for head in range(4):
        assert torch.equal(Chance(seeds[head : head + 1], 6).uniform(2, (3, 5))[0], together[head])
    assert torch.equal(Chance(seeds.flip(0), 6).uniform(2, (3, 5)).flip(0), together)


def test_dropout_sets_its_share_to_zero_and_keeps_the_mean():
    x = torch.ones(2, 100, 500, requires_grad=True)
    y = dropout(x, 0.3, Chance(torch.tensor([1, 2]), 0), 0)
    y.sum().backward()
    for head in range(2):
        assert float((y[head] == 0).double().mean()) == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 50_000))
    assert torch.equal(y[y != 0], torch.full_like(y[y != 0], 1 / 0.7))
    assert torch.equal(x.grad, y)


def test_without_chance_or_share_dropout_leaves_everything():
    x = torch.ones(2, 3)
    assert dropout(x, 0.5, None, 0) is x and dropout(x, 0.0, Chance(torch.tensor([1, 2]), 0), 0) is x
