"""The transformer of WavLM and BEATs: each part against its slow, literal form."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmos.errors import SetupError, UnknownName
from mmmos.features.encoders.unilm import (
    ACTIVATIONS,
    Block,
    GatedAttention,
    Shape,
    TransformerEncoder,
    bucket,
    even_padding,
    folded,
)

SHAPE = Shape(layers=3, dim=12, heads=3, ffn=20, pos_kernel=6, pos_groups=2, buckets=32, max_distance=40)


def scrambled(module, seed=0):
    """The module with every parameter drawn anew, none left at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return module.eval().requires_grad_(False)


def draw(*size, seed=1):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def padded(*valid, frames):
    return torch.arange(frames) >= torch.tensor(valid)[:, None]


def slow_bucket(distance, buckets, max_distance):
    half = buckets // 2
    first = half if distance > 0 else 0
    distance, exact = abs(distance), half // 2
    if distance < exact:
        return first + distance
    share = math.log(distance / exact) / math.log(max_distance / exact)
    # A hair more, so that an edge that is a whole number in theory is one here.
    return first + min(exact + math.floor(share * (half - exact) + 1e-9), half - 1)


@pytest.mark.parametrize(("buckets", "max_distance"), [(320, 800), (32, 128), (32, 40), (64, 100), (4, 9), (22, 70)])
def test_buckets_are_those_of_the_literal_rule(buckets, max_distance):
    distances = range(-2 * max_distance, 2 * max_distance + 1)
    found = bucket(torch.tensor(distances), buckets, max_distance).tolist()
    wanted = [slow_bucket(distance, buckets, max_distance) for distance in distances]
    assert found == wanted
    assert min(found) == 0 and max(found) == 2 * (buckets // 2) - 1


def test_the_bias_is_the_tables_entry_of_key_minus_query():
    encoder = scrambled(TransformerEncoder(SHAPE))
    table = encoder.layers[0].self_attn.relative_attention_bias.weight
    bias = encoder._bias(60)
    assert bias.shape == (3, 60, 60)
    for query, key in [(0, 0), (0, 59), (59, 0), (10, 13), (13, 10), (30, 5)]:
        assert torch.equal(bias[:, query, key], table[slow_bucket(key - query, 32, 40)])


def slow_attention(attention, x, bias, padding, gate_on_query):
    """One frame, head and item at a time."""
    batch, frames, dim = x.shape
    heads, size = attention.heads, dim // attention.heads
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    mixed = torch.zeros_like(x)
    for item in range(batch):
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for query in range(frames):
                read = (q if gate_on_query else x)[item, query, part]
                eight = attention.grep_linear(read)
                a, b = torch.sigmoid(eight[:4].sum()), torch.sigmoid(eight[4:].sum())
                gate = a * (b * attention.grep_a[0, head, 0, 0] - 1) + 2
                weights = torch.zeros(frames)
                for key in range(frames):
                    product = (q[item, query, part] * k[item, key, part]).sum() / math.sqrt(size)
                    hidden = padding is not None and bool(padding[item, key])
                    weights[key] = 0 if hidden else torch.exp(product + gate * bias[head, query, key])
                mixed[item, query, part] = (weights / weights.sum()) @ v[item, :, part]
    return attention.out_proj(mixed)


@pytest.mark.parametrize("gate_on_query", [False, True])
@pytest.mark.parametrize("padding", [None, padded(7, 4, frames=7)])
def test_attention_is_a_softmax_with_a_gated_bias(gate_on_query, padding):
    attention = scrambled(GatedAttention(replace(SHAPE, gate_on_query=gate_on_query)))
    x, bias = draw(2, 7, 12), draw(3, 7, 7, seed=2)
    wanted = slow_attention(attention, x, bias, padding, gate_on_query)
    torch.testing.assert_close(attention(x, bias, padding), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_block_normalises_before_or_behind(activation):
    x, bias = draw(1, 5, 12), draw(3, 5, 5, seed=2)
    for pre_norm, residual in [(False, 1.0), (False, 1.7), (True, 1.0)]:
        shape = replace(SHAPE, pre_norm=pre_norm, residual=residual, activation=activation)
        block = scrambled(Block(shape))

        def norm(layer, y):
            y = y - y.mean(-1, keepdim=True)
            return y / torch.sqrt(y.square().mean(-1, keepdim=True) + 1e-5) * layer.weight + layer.bias

        def feed(y, block=block):
            return block.fc2(ACTIVATIONS[activation](block.fc1(y)))

        first, second = block.self_attn_layer_norm, block.final_layer_norm
        if pre_norm:
            y = x + block.self_attn(norm(first, x), bias, None)
            wanted = y + feed(norm(second, y))
        else:
            y = norm(first, residual * x + block.self_attn(x, bias, None))
            wanted = norm(second, residual * y + feed(y))
        torch.testing.assert_close(block(x, bias, None), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pos_kernel", [6, 5])
@pytest.mark.parametrize("pre_norm", [False, True])
def test_states_are_the_input_each_raw_output_and_the_last_norm(pre_norm, pos_kernel):
    encoder = scrambled(TransformerEncoder(replace(SHAPE, pre_norm=pre_norm, pos_kernel=pos_kernel)))
    x = draw(2, 9, 12)
    around = F.pad(x.transpose(1, 2), (pos_kernel // 2, pos_kernel // 2))
    conv = F.conv1d(around, encoder.pos_conv.weight, encoder.pos_conv.bias, groups=2)[..., :9]
    state = x + F.gelu(conv).transpose(1, 2)
    state = state if pre_norm else encoder.layer_norm(state)
    wanted = [state]
    for block in encoder.layers:
        wanted.append(block(wanted[-1], encoder._bias(9), None))
    if pre_norm:
        wanted.append(encoder.layer_norm(wanted[-1]))
    found = encoder(x)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_padding_does_not_reach_the_frames_before_it():
    encoder = scrambled(TransformerEncoder(SHAPE))
    x = draw(2, 9, 12)
    other = x.clone()
    other[1, 6:] = 100.0
    padding = padded(9, 6, frames=9)
    for one, two in zip(encoder(x, padding), encoder(other, padding), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    # Behind its end, the positional convolution sees zeros either way.
    alone = encoder(x[1:, :6])
    torch.testing.assert_close(encoder(x, padding)[-1][1, :6], alone[-1][0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 2])
def test_weight_norm_is_folded_as_torch_computes_it(axis):
    conv = nn.Conv1d(6, 4, 5)
    normed = scrambled(nn.utils.parametrizations.weight_norm(conv, dim=axis))
    size, direction = normed.parametrizations.weight.original0, normed.parametrizations.weight.original1
    plain = folded({"conv.weight_g": size, "conv.weight_v": direction, "conv.bias": conv.bias, "other": size})
    assert sorted(plain) == ["conv.bias", "conv.weight", "other"]
    torch.testing.assert_close(plain["conv.weight"], normed.weight, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(5,), (1, 1, 4), (1, 6, 5), ()])
def test_what_is_no_weight_norm_stays_as_it_is(size):
    state = {"conv.weight_g": torch.ones(size), "conv.weight_v": torch.ones(4, 6, 5)}
    assert set(folded(state)) == set(state)
    assert set(folded({"conv.weight_g": torch.ones(1)})) == {"conv.weight_g"}


def test_a_frame_is_padding_when_all_its_samples_are():
    padding = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1, 1, 1]], dtype=torch.bool)
    assert even_padding(padding, 4).tolist() == [[False, False, True, True], [False, False, False, True]]
    # 8 samples in 3 frames: the last 2 are left out.
    assert even_padding(padding, 3).tolist() == [[False, False, True], [False, False, False]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"layers": 0},
        {"heads": 5},
        {"heads": 0},
        {"pos_groups": 5},
        {"pos_kernel": 0},
        {"ffn": -1},
        {"buckets": 3},
        {"max_distance": 8},
        {"max_distance": 0},
    ],
)
def test_numbers_of_no_model_are_refused(wrong):
    with pytest.raises(SetupError, match=r"settings of x\.pt describe no model"):
        replace(SHAPE, **wrong).check(Path("x.pt"))


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(UnknownName, match="no activation 'glu'"):
        replace(SHAPE, activation="glu").check(Path("x.pt"))
