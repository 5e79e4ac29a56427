"""Adam over a stack: each head with its own rate, decay and clipping; gradients are allocated once."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from mmmos.ensembles.heads.neural import TrainingOptions
from mmmos.ensembles.heads.stack import Affine


class _Span(NamedTuple):
    """Heads from ``first`` up to ``end`` that share a rate and a decay, with their parts of the parameters, gradients
    and moments.
    """

    first: int
    end: int
    options: TrainingOptions
    parameters: list[Tensor]
    grads: list[Tensor]
    means: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


class Adam:
    """Fused Adam (Kingma and Ba, 2015) on the parameters (heads, …) of a module, or on those of a module of one head.

    On a CPU every head is updated on its own, so that its bits do not depend on its neighbours; on other devices
    neighbours with the same rate and decay are updated together.
    """

    def __init__(self, module: nn.Module, options: Sequence[TrainingOptions], stacked: bool) -> None:
        self._options, self._stacked = list(options), stacked
        self._parameters = list(module.parameters())
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._grads = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        overwritten = {id(each) for part in module.modules() if isinstance(part, Affine) for each in part.parameters()}
        pairs = zip(self._parameters, self._grads, strict=True)
        self._added = [grad for parameter, grad in pairs if id(parameter) not in overwritten]
        self._means = [torch.zeros_like(grad) for grad in self._grads]
        self._squares = [torch.zeros_like(grad) for grad in self._grads]
        self._separate = not stacked or self._grads[0].device.type == "cpu"
        self._clips = any(each.clip for each in options)
        self._spans = self._cut(0.0)

    def _cut(self, steps: float) -> list[_Span]:
        """Neighbours of the same rate and decay, or every head by itself, after some steps."""
        ends = [0]
        for number, (one, other) in enumerate(zip(self._options[:-1], self._options[1:], strict=True), start=1):
            if self._separate or (one.lr, one.weight_decay) != (other.lr, other.weight_decay):
                ends.append(number)
        return [self._span(*pair, steps) for pair in zip(ends, [*ends[1:], len(self._options)], strict=True)]

    def _span(self, first: int, end: int, steps: float) -> _Span:
        def part(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [each.detach()[first:end] if self._stacked else each.detach() for each in tensors]

        return _Span(
            first,
            end,
            self._options[first],
            part(self._parameters),
            part(self._grads),
            part(self._means),
            part(self._squares),
            [torch.full((), steps, device=grad.device) for grad in self._grads],
        )

    def zero(self) -> None:
        """Clear the gradients that the backward pass adds to."""
        for grad in self._added:
            grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """Clip every head's gradient to its norm and update."""
        if self._clips:
            for span in self._spans:
                self._clip(span)
        for span in self._spans:
            adam(
                span.parameters,
                span.grads,
                span.means,
                span.squares,
                [],
                span.steps,
                fused=True,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=span.options.lr,
                weight_decay=span.options.weight_decay,
                eps=1e-8,
                maximize=False,
            )

    def _clip(self, span: _Span) -> None:
        """As ``torch.nn.utils.clip_grad_norm_`` for each head."""
        options = self._options[span.first : span.end]
        whole = [grad[None] if self._separate else grad for grad in span.grads]
        norms = torch.stack([grad.flatten(1).square().sum(1) for grad in whole]).sum(0).sqrt()
        limits = torch.tensor([each.clip or float("inf") for each in options]).to(norms)
        shares = (limits / (norms + 1e-6)).clamp_max(1)
        for grad in whole:
            grad.mul_(shares.view(-1, *[1] * (grad.dim() - 1)))

    def keep(self, module: nn.Module, heads: Sequence[int]) -> "Adam":
        """The same for a module that holds some of the heads, with their moments."""
        other = Adam(module, [self._options[head] for head in heads], self._stacked)
        other._means = [each[list(heads)] for each in self._means]
        other._squares = [each[list(heads)] for each in self._squares]
        other._spans = other._cut(float(self._spans[0].steps[0]))
        return other
