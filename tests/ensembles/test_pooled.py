"""Linear heads and multilayer perceptrons on pooled vectors."""

import numpy as np
import pytest
import torch
from torch import nn

from mmmos.ensembles.heads.neural import Batch
from mmmos.ensembles.heads.pooled import MLP, Linear
from mmmos.ensembles.heads.stack import Chance
from mmmos.errors import MmmosError

SHAPES = [(2, 3), (1, 4)]


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def draws(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def blocks(heads=2, clips=5):
    return [noise(heads, clips, *shape, seed=number) for number, shape in enumerate(SHAPES)]


def learned(kind, weighted=False, seed=1, **options):
    head = kind(options=options, weighted=weighted)
    module = head.build(SHAPES, 4, draws(seed))
    return head.learned(SHAPES, 4, {name: parameter.detach()[0] for name, parameter in module.named_parameters()})


def by_torch(module, head, x):
    """The module of one head as a plain sequence of linear layers and ReLU."""
    layers = [*module.hidden, module.last]
    for number, layer in enumerate(layers):
        x = nn.functional.linear(x, layer.weight[head].T, layer.bias[head])
        x = x.relu() if number < len(layers) - 1 else x
    return x


@pytest.mark.parametrize(
    ("kind", "options", "sizes"),
    [
        (Linear, {}, [(10, 4)]),
        (MLP, {"hidden": 6}, [(10, 6), (6, 4)]),
        (MLP, {"hidden": 6, "depth": 3}, [(10, 6), (6, 6), (6, 6), (6, 4)]),
    ],
)
def test_every_head_of_a_stack_is_its_own_perceptron_on_all_vectors(kind, options, sizes):
    module = kind(options=options).build(SHAPES, 4, draws(0, 1))
    layers = [*module.hidden, module.last]
    assert [tuple(layer.weight.shape[1:]) for layer in layers] == sizes
    output = module(Batch(blocks()))
    flat = torch.cat([block.flatten(2) for block in blocks()], 2)
    for head in range(2):
        assert torch.allclose(output.outputs[head], by_torch(module, head, flat[head]), atol=1e-6)


def test_weighted_layers_are_unit_vectors_side_by_side():
    module = Linear(options={}, weighted=True).build(SHAPES, 4, draws(0))
    x = torch.cat([nn.functional.normalize(block.mean(2), dim=2) for block in blocks(1)], 2)
    assert torch.allclose(module(Batch(blocks(1))).outputs[0], by_torch(module, 0, x[0]), atol=1e-6)


def test_the_embedding_is_what_the_last_layer_reads():
    module = MLP(options={"hidden": 6, "depth": 2}).build(SHAPES, 4, draws(0, 1))
    output = module(Batch(blocks()))
    assert output.embedding.shape == (2, 5, 6)
    assert torch.allclose(output.outputs, module.last(output.embedding))
    assert Linear(options={}).build(SHAPES, 4, draws(0))(Batch(blocks(1))).embedding is None


def test_dropout_is_of_training_alone():
    module = MLP(options={"hidden": 64, "dropout": 0.5, "depth": 2}).build(SHAPES, 4, draws(0, 1))
    quiet = module(Batch(blocks())).outputs
    seeds = torch.tensor([1, 2])
    first, again, other = (module(Batch(blocks(), chance=Chance(seeds, step))).outputs for step in (0, 0, 1))
    assert torch.equal(quiet, module(Batch(blocks())).outputs) and torch.equal(first, again)
    assert not torch.equal(first, quiet) and not torch.equal(first, other)


def test_a_loss_with_several_outputs_gets_them():
    head = MLP(options={"hidden": 6}, loss="gaussian_nll")
    assert head.build(SHAPES, 4, draws(0))(Batch(blocks(1))).outputs.shape == (1, 5, 8)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("kind", "options"), [(Linear, {}), (MLP, {"hidden": 6, "depth": 2})])
def test_a_restored_head_predicts_the_same_bits_and_clips_do_not_depend_on_each_other(kind, options, weighted):
    head = learned(kind, weighted, **options)
    x = [block[0].numpy() for block in blocks(1, 50)]
    predicted = head.predict(x)
    assert predicted.shape == (50, 4) and predicted.dtype == np.float32
    state = {name: array.copy() for name, array in head.state().items()}
    assert kind(options=options, weighted=weighted).restore(state).predict(x).tobytes() == predicted.tobytes()
    assert head.predict([block[7:8] for block in x]) == pytest.approx(predicted[7:8], abs=1e-6)
    assert head.predict([block[:0] for block in x]).shape == (0, 4)


def test_many_rows_are_predicted_in_pieces(monkeypatch):
    head, x = learned(MLP, hidden=6), [block[0].numpy() for block in blocks(1, 50)]
    whole = head.predict(x)
    monkeypatch.setattr("mmmos.ensembles.heads.neural.ROWS", 16)
    assert head.predict(x) == pytest.approx(whole, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"hidden": 0}, {"depth": 0}, {"dropout": 1.0}, {"lr": 0}, {"batch": 1}, {"depht": 2}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises((MmmosError, ValueError)):
        MLP(options=options)
