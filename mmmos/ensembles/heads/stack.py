"""Parts of many heads at once: every parameter has a leading dimension of heads, and heads never touch each other.

On a CPU in one thread a head's numbers have the same bits in a stack of any size.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_MASK = 0xFFFFFFFF
# Bytes; and numbers that fill whole vectors on any CPU, two at a time.
CACHE_LINE = 64
WHOLE = 64


class Affine(nn.Module):
    """x W + b for each head: (heads, B, inputs) to (heads, B, outputs); with ``copies`` (heads, *copies, B, …), each
    copy with weights of its own.

    Weights are drawn as those of ``nn.Linear``. The backward pass overwrites ``weight.grad`` and ``bias.grad`` where
    they are allocated, so that nothing is zeroed or allocated at each step; the layer is used once in a forward pass.
    """

    def __init__(
        self, inputs: int, outputs: int, draws: Sequence[torch.Generator], copies: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(max(inputs, 1))
        self.weight = nn.Parameter(uniform(draws, (*copies, inputs, outputs), bound))
        self.bias = nn.Parameter(uniform(draws, (*copies, outputs), bound))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        result: Tensor = _Affine.apply(x.flatten(0, -3), self.weight, self.bias)
        return result if x.dim() == 3 else result.view(*x.shape[:-1], -1)


class _Affine(torch.autograd.Function):
    """x (stack, B, inputs) to (stack, B, outputs); weight (…, inputs, outputs) and bias (…, outputs), stack in all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, weight, bias)
        return products(x, _one_stack(weight, 2)).add_(_one_stack(bias, 1)[:, None])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight, bias = ctx.saved_tensors
        grad = grads[0].contiguous()
        inner = products(grad, _one_stack(weight, 2).transpose(1, 2)) if ctx.needs_input_grad[0] else None
        if weight.grad is None or bias.grad is None:
            return inner, products(x.transpose(1, 2), grad).view_as(weight), grad.sum(1).view_as(bias)
        products(x.transpose(1, 2), grad, out=_one_stack(weight.grad, 2))
        torch.sum(grad, 1, out=_one_stack(bias.grad, 1))
        return inner, None, None


def _one_stack(x: Tensor, own: int) -> Tensor:
    """A view of x with one dimension before its last ``own``."""
    return x.view(-1, *x.shape[-own:])


def products(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """a (stack, m, k) times b (stack, k, n), each product with the bits that it has alone.

    The last bit of a product on a CPU depends on where in a cache line its matrices begin, and for single rows and
    columns on how many products there are. Where matrices fill cache lines they are multiplied together, else in turn.
    """
    (_, m, k), n = a.shape, b.shape[2]
    filled = all(size * a.element_size() % CACHE_LINE == 0 for size in (m * k, k * n, m * n))
    if (filled and min(m, n) > 1) or a.device.type != "cpu":
        return torch.bmm(a, b) if out is None else torch.bmm(a, b, out=out)
    parts = [torch.mm(x, y) for x, y in zip(_parts(a), _parts(b), strict=True)]
    return torch.stack(parts) if out is None else torch.stack(parts, out=out)


def _parts(x: Tensor) -> list[Tensor]:
    """The parts of x (stack, …), each at the beginning of a cache line."""
    return [part.clone() if part.data_ptr() % CACHE_LINE else part for part in x.unbind()]


class LayerNorm(nn.Module):
    """Layer norm over the last dimension of (heads, *copies, B, dim), each copy with a scale and a shift of its own."""

    def __init__(self, dim: int, heads: int, copies: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(heads, *copies, dim))
        self.bias = nn.Parameter(torch.zeros(heads, *copies, dim))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        normed = nn.functional.layer_norm(x, x.shape[-1:])
        return torch.addcmul(self.bias[..., None, :], normed, self.weight[..., None, :])


def uniform(draws: Sequence[torch.Generator], shape: tuple[int, ...], bound: float) -> Tensor:
    """Numbers (heads, *shape) float32 in [−bound, bound), each head's from its own generator."""
    return torch.stack([torch.empty(shape).uniform_(-bound, bound, generator=draw) for draw in draws])


class LayerMix(nn.Module):
    """Feature sets side by side: (heads, B, layers, dim) each to (heads, B, size), with ``copies`` (heads, *copies, B,
    size).

    With ``weighted``, a feature set is the sum of its layers under a learned softmax, of length 1 where ``unit``; each
    copy has weights of its own.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int]],
        weighted: bool,
        heads: int,
        copies: tuple[int, ...] = (),
        unit: bool = True,
    ) -> None:
        super().__init__()
        layers = [layers for layers, _ in shapes if weighted]
        self.weights = nn.ParameterList([nn.Parameter(torch.zeros(heads, *copies, each)) for each in layers])
        self.size = sum(dim if weighted else layers * dim for layers, dim in shapes)
        self.unit = unit

    def forward(self, blocks: Sequence[Tensor]) -> Tensor:
        """See the class."""
        if not len(self.weights):
            flat = [block.flatten(2) for block in blocks]
            return flat[0] if len(flat) == 1 else torch.cat(flat, dim=2)
        sums = [self._sums(block, weight) for block, weight in zip(blocks, self.weights, strict=True)]
        return torch.cat(sums, dim=-1)

    def _sums(self, block: Tensor, weight: Tensor) -> Tensor:
        """(heads, B, layers, dim) with weights (heads, *copies, layers) to (heads, *copies, B, dim)."""
        shares = weight.softmax(-1).view(len(weight), -1, weight.shape[-1])
        on_cpu = block.device.type == "cpu"
        sums: Tensor = _LayerSums.apply(block, shares) if on_cpu else torch.matmul(shares[:, None], block)
        sums = sums.transpose(1, 2).reshape(*weight.shape[:-1], block.shape[1], block.shape[3])
        return nn.functional.normalize(sums, dim=-1) if self.unit else sums


class _LayerSums(torch.autograd.Function):
    """shares (heads, sums, layers) times blocks (heads, B, layers, dim), each head with the bits that it has alone."""

    @staticmethod
    def forward(ctx: Any, block: Tensor, shares: Tensor) -> Tensor:
        block = block.contiguous()
        ctx.save_for_backward(block, shares)
        pairs = zip(_parts(shares), _parts(block), strict=True)
        return torch.stack([torch.bmm(share.expand(len(own), -1, -1), own) for share, own in pairs])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:
        block, shares = ctx.saved_tensors
        parts = _parts(grads[0].contiguous())
        pairs = zip(parts, _parts(block), strict=True)
        of_shares = torch.stack([torch.bmm(grad, own.transpose(1, 2)).sum(0) for grad, own in pairs])
        if not ctx.needs_input_grad[0]:
            return None, of_shares
        pairs = zip(_parts(shares), parts, strict=True)
        return torch.stack([torch.bmm(share.T.expand(len(grad), -1, -1), grad) for share, grad in pairs]), of_shares


def elementwise(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A function of single numbers, such as an activation, of x (heads, …), with the bits that each head has alone.

    On a CPU torch computes whole vectors of numbers and the last few of a tensor in two ways, which differ in the last
    bit; so a head whose numbers do not fill vectors gets a call of its own.
    """
    if x.device.type != "cpu" or x[0].numel() % WHOLE == 0:
        return function(x)
    return torch.stack([function(each) for each in x])


class Chance:
    """Random numbers of one training step: functions of each head's seed, the step and the place of use alone."""

    def __init__(self, seeds: Tensor, step: int) -> None:
        """``seeds`` (heads,) int64 of 0 up to 2³²."""
        self._seeds, self._step = seeds, step

    def uniform(self, place: int, shape: Sequence[int]) -> Tensor:
        """Numbers (heads, *shape) float32 in [0, 1); other places give other numbers."""
        step = _mixed(torch.full_like(self._seeds, self._step & _MASK))
        keys = _mixed(_mixed(self._seeds ^ step) ^ (place * 0x9E3779B1 & _MASK))
        count = torch.arange(math.prod(shape), device=keys.device)
        bits = _mixed(_mixed(count)[None] ^ keys[:, None])
        return ((bits >> 8).float() * 2.0**-24).view(len(keys), *shape)


def _mixed(bits: Tensor) -> Tensor:
    """A bijection of 32-bit integers (held in int64) under which neighbours look random ("lowbias32", C. Wellons)."""
    bits = ((bits ^ (bits >> 16)) * 0x7FEB352D) & _MASK
    bits = ((bits ^ (bits >> 15)) * 0x846CA68B) & _MASK
    return bits ^ (bits >> 16)


def dropout(x: Tensor, share: float, chance: Chance | None, place: int) -> Tensor:
    """x (heads, …) with a share of its numbers set to 0 and the others scaled up; x itself without ``chance``."""
    if chance is None or not share:
        return x
    kept = chance.uniform(place, x.shape[1:]) >= share
    return x * (kept.to(x.dtype) / (1 - share))
