"""Adam over a stack: each head with its own rate, decay and clipping; gradients are allocated once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmmos.ensembles.heads.neural import TrainingOptions
from mmmos.ensembles.heads.stack import Affine


@dataclass(frozen=True)
class _Span:
    """Heads from ``first`` up to ``end`` that share a rate and a decay."""

    first: int
    end: int
    lr: float
    weight_decay: float


class Adam:
    """Fused Adam on the parameters (heads, …) of a module, or on those of a module of one head.

    On a CPU every head is updated on its own, so that its bits do not depend on its neighbours; on other devices
    neighbours with the same rate and decay are updated together.
    """

    def __init__(self, module: nn.Module, options: Sequence[TrainingOptions], stacked: bool) -> None:
        self._module, self._options, self._stacked = module, list(options), stacked
        overwritten = {id(p) for part in module.modules() if isinstance(part, Affine) for p in part.parameters()}
        self._parameters = list(module.parameters())
        for parameter in self._parameters:
            parameter.grad = torch.zeros_like(parameter)
        self._added = [p.grad for p in self._parameters if id(p) not in overwritten and p.grad is not None]
        self._separate = not stacked or self._parameters[0].device.type == "cpu"
        self._spans = _spans(self._options, self._separate)
        self._views = [[self._view(parameter, span) for parameter in self._parameters] for span in self._spans]
        groups = [
            {"params": views, "lr": span.lr, "weight_decay": span.weight_decay}
            for span, views in zip(self._spans, self._views, strict=True)
        ]
        self._adam = torch.optim.Adam(groups, fused=True)
        self._clips = any(each.clip for each in options)

    def _view(self, parameter: nn.Parameter, span: _Span) -> Tensor:
        """The part of a parameter that belongs to some heads, with the same part of its gradient."""
        whole, grad = parameter.detach(), parameter.grad
        assert grad is not None
        view = whole[span.first : span.end] if self._stacked else whole
        view.grad = grad[span.first : span.end] if self._stacked else grad
        return view

    def zero(self) -> None:
        """Clear the gradients that the backward pass adds to."""
        for grad in self._added:
            grad.zero_()

    def step(self) -> None:
        """Clip every head's gradient to its norm and update."""
        if self._clips and self._separate:
            for views, options in zip(self._views, self._options, strict=True):
                if options.clip:
                    nn.utils.clip_grad_norm_(views, options.clip)
        elif self._clips:
            self._clip_together()
        self._adam.step()

    def _clip_together(self) -> None:
        """As ``clip_grad_norm_`` for each head of a stack."""
        grads = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        norms = torch.stack([grad.flatten(1).square().sum(1) for grad in grads]).sum(0).sqrt()
        limits = torch.tensor([each.clip or float("inf") for each in self._options]).to(norms)
        for grad in grads:
            grad.mul_((limits / (norms + 1e-6)).clamp_max(1).view(-1, *[1] * (grad.dim() - 1)))

    def keep(self, module: nn.Module, heads: Sequence[int]) -> "Adam":
        """The same for a module that holds some of the heads, with their moments."""
        other = Adam(module, [self._options[head] for head in heads], self._stacked)
        for span, views in zip(other._spans, other._views, strict=True):
            kept = list(heads[span.first : span.end])
            source = next(number for number, each in enumerate(self._spans) if each.first <= kept[0] < each.end)
            places = [head - self._spans[source].first for head in kept]
            for view, old in zip(views, self._views[source], strict=True):
                state = self._adam.state[old]
                other._adam.state[view] = {
                    name: value[places].clone() if name != "step" else value.clone() for name, value in state.items()
                }
        return other


def _spans(options: Sequence[TrainingOptions], separate: bool) -> list[_Span]:
    """Neighbours of the same rate and decay, or every head by itself."""
    spans: list[_Span] = []
    for number, each in enumerate(options):
        last = spans[-1] if spans else None
        if last and not separate and (last.lr, last.weight_decay) == (each.lr, each.weight_decay):
            spans[-1] = _Span(last.first, number + 1, last.lr, last.weight_decay)
        else:
            spans.append(_Span(number, number + 1, each.lr, each.weight_decay))
    return spans
