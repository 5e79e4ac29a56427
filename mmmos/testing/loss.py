"""``check_loss`` holds any loss, ours or another's, to what training relies on."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mmmos.ensembles.losses import Loss, loss
from mmmos.features.threads import threads
from mmmos.metrics import srcc
from mmmos.testing.loss_subject import AXES, CLIPS, HEADS, Subject, gradient
from mmmos.testing.promises import hold

EXACT = 1e-12


def check_loss(subject: str | Loss) -> None:
    """Raise ``AssertionError`` with a sentence for each promise that a loss breaks.

    ``subject``: a registered loss, one in a local file (``mine.py:LOSS``), or a ``Loss``.
    """
    with threads("cpu"):
        hold(Subject(loss(subject) if isinstance(subject, str) else subject), CHECKS)


def _same(one: Tensor, other: Tensor, what: str, tolerance: float = EXACT) -> None:
    assert one.shape == other.shape, f"{what}: shape {tuple(one.shape)} became {tuple(other.shape)}"
    gap, allowed = _gap(one, other), tolerance * max(1.0, float(one.abs().max()))
    assert gap <= allowed, f"{what}: numbers differ by {gap:.2g}, allowed is {allowed:.2g}"


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def _finite(function: Callable[[Tensor], Tensor], x: Tensor, what: str) -> None:
    for name, numbers in zip(("value", "gradient"), gradient(function, x), strict=True):
        assert numbers.isfinite().all(), f"{what}: the {name} has NaN or infinite numbers"


def the_parts_fit_together(subject: Subject) -> None:
    """Several outputs need a decode, a memory an embedding, and options are parameters."""
    loss = subject.loss
    assert loss.outputs >= 1 and loss.memory >= 0, f"outputs = {loss.outputs} and memory = {loss.memory}"
    assert loss.outputs == 1 or loss.decode, f"{loss.outputs} outputs need a decode that makes a score of them"
    assert not loss.memory or loss.embedding, f"memory = {loss.memory} without an embedding to use it"
    replace(loss, options={}).given(loss.options)


def constants_have_a_row_for_each_axis(subject: Subject) -> None:
    """Constants are finite arrays (axes, …), also of one clip and of scores that are all equal."""
    one = np.array([subject.scores[0], np.ones(AXES)])
    cases = {
        "60 clips": (subject.scores, subject.scale),
        "one clip": (subject.scores[:1], one),
        "equal scores": (np.repeat(subject.scores[:1], 9, 0), one),
    }
    for case, (scores, scale) in cases.items():
        for name, values in subject.loss.of_training(scores, scale).items():
            shape = np.shape(values)
            assert shape[:1] == (AXES,), f"{name!r} has shape {shape}; the first dimension is that of {AXES} axes"
            assert np.isfinite(values).all(), f"{name!r} has NaN or infinite numbers for {case}"


def there_is_a_number_for_each_head_and_axis(subject: Subject) -> None:
    """(…, B) or (…, B, outputs) to (…) for any leading dimensions; the embedding's term gives (heads,)."""
    p, y = subject.batch()
    for case, got, wanted in (
        ("(axes, B)", subject.values(p[0], y[0]), (AXES,)),
        ("(heads, axes, B)", subject.values(p, y), (HEADS, AXES)),
        ("(1, heads, axes, B)", subject.values(p[None], y[None]), (1, HEADS, AXES)),
    ):
        assert got.shape == wanted, f"targets {case} gave shape {tuple(got.shape)}, not {wanted}"
    if subject.loss.embedding:
        shape = tuple(subject.embedded(*subject.embeddings()).shape)
        assert shape == (HEADS,), f"the embedding's term has shape {shape}, not {(HEADS,)}"


def values_and_gradients_are_finite(subject: Subject) -> None:
    """Also in a batch of one, with ties, constants, a perfect prediction and huge errors, in float32."""
    p, y = subject.batch(dtype=torch.float32)
    single, equal = 0 * p + 0.3, 0 * y + 0.3
    cases = {
        "an ordinary batch": (p, y),
        "a batch of one": (p[:, :, :1], y[:, :, :1]),
        "a batch of two": (p[:, :, :2], y[:, :, :2]),
        "tied targets": (p, y.round()),
        "constant targets": (p, equal),
        "constant predictions": (single, y),
        "constant predictions and targets": (single, equal),
        "predictions of a million": (p * 1e6, y),
        "targets far from those of training": (p, y + 50),
    }
    if subject.loss.outputs == 1:
        cases |= {"a perfect prediction": (y, y), "a perfect batch of one": (y[:, :, :1], y[:, :, :1])}
    for case, (predictions, targets) in cases.items():
        _finite(partial(subject.values, y=targets), predictions, case)


def embeddings_of_any_kind_give_finite_numbers(subject: Subject) -> None:
    """Also with nothing remembered, with nobody near or far enough, and of equal or large embeddings."""
    if not subject.loss.embedding:
        return
    z, y, known_z, known_y, chance = subject.embeddings(dtype=torch.float32)
    cases = {
        "an ordinary batch": (z, y, known_z, known_y, chance),
        "a batch of one": subject.embeddings(clips=1, dtype=torch.float32),
        "targets all equal": (z, 0 * y, known_z, 0 * known_y, chance),
        "targets all far apart": (z, y + 100 * torch.arange(CLIPS), known_z, known_y - 100, chance),
        "embeddings all equal": (0 * z, y, 0 * known_z, known_y, chance),
        "embeddings in thousands": (z * 1000, y, known_z * 1000, known_y, chance),
    }
    if subject.loss.memory:
        cases["an empty memory"] = subject.embeddings(known=0, dtype=torch.float32)
        cases["a memory of one"] = subject.embeddings(known=1, dtype=torch.float32)
    for case, (z, *others) in cases.items():
        _finite(lambda x, others=others: subject.embedded(x, *others), z, case)  # type: ignore[misc]


def heads_and_axes_do_not_touch(subject: Subject) -> None:
    """A head and an axis have the value and the gradient that they have alone."""
    p, y = subject.batch()
    values, slopes = gradient(lambda x: subject.values(x, y), p)
    for head, axis in np.ndindex(HEADS, AXES):
        here = np.s_[head : head + 1, axis : axis + 1]
        one = partial(subject.values, y=y[here], constants=subject.constants(y.dtype, here[1]))
        alone = gradient(one, p[here])
        _same(alone[0], values[here], f"the value of head {head}, axis {axis}, alone and among others")
        _same(alone[1], slopes[here], f"the gradient of head {head}, axis {axis}, alone and among others")
    if subject.loss.embedding:
        inputs = subject.embeddings()
        together = subject.embedded(*inputs)
        for head in range(HEADS):
            single = subject.embedded(*(each[head : head + 1] for each in inputs))
            _same(single, together[head : head + 1], f"the embedding's term of head {head}, alone and among others")


def the_order_of_a_batch_does_not_matter(subject: Subject) -> None:
    """Clips in another order have the same value, and their gradients in that order."""
    p, y = subject.batch()
    order = torch.randperm(CLIPS, generator=torch.Generator().manual_seed(0))
    values, slopes = gradient(lambda x: subject.values(x, y), p)
    other, moved = gradient(lambda x: subject.values(x, y[:, :, order]), p[:, :, order])
    _same(values, other, "the value of the same clips in another order")
    _same(slopes[:, :, order], moved, "the gradient of the same clips in another order")


def the_inputs_are_left_alone(subject: Subject) -> None:
    """Nothing that is given in is written to."""
    p, y = subject.batch()
    constants = subject.constants(y.dtype)
    embeddings = subject.embeddings() if subject.loss.embedding else ()
    inputs = [p, y, *constants.values(), *embeddings]
    before = [each.clone() for each in inputs]
    subject.values(p, y, constants)
    if embeddings:
        subject.embedded(*embeddings)
    assert all(map(torch.equal, inputs, before)), "the given tensors were changed in place"


def the_same_input_gives_the_same_bits(subject: Subject) -> None:
    """Nothing is random, beside the chance that is given in, and nothing is remembered from call to call."""
    for what, function, x in subject.terms():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            first, state = function(x), torch.get_rng_state()
            function(2 * x)
            torch.manual_seed(2)
            assert torch.equal(first, function(x)), f"{what} gave other numbers for the same input"
            torch.manual_seed(1)
            assert torch.equal(state, torch.get_rng_state()), f"{what} changed the random state of the process"


def gradients_are_those_of_finite_differences(subject: Subject) -> None:
    """Along random directions, in float64."""
    step = 1e-6
    for what, function, x in subject.terms():
        _, slopes = gradient(function, x)
        for seed in range(4):
            direction = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
            slope = float((slopes * direction).sum())
            wanted = float((function(x + step * direction) - function(x - step * direction)).sum()) / (2 * step)
            fits = abs(slope - wanted) <= 1e-5 * (1 + abs(wanted))
            assert fits, f"{what} has the gradient {slope:.6g} where finite differences give {wanted:.6g}"


def the_dtype_is_kept(subject: Subject) -> None:
    """float32 gives float32 and float64 float64, with the same numbers within 0.01 %."""
    wide = {what: function(x) for what, function, x in subject.terms(torch.float64)}
    narrow = {what: function(x) for what, function, x in subject.terms(torch.float32)}
    for what, values in wide.items():
        assert values.dtype == torch.float64, f"{what} made {values.dtype} of float64"
        assert narrow[what].dtype == torch.float32, f"{what} made {narrow[what].dtype} of float32"
        _same(values, narrow[what].double(), f"{what} in float64 and float32", 1e-4)


def an_anchored_loss_feels_an_offset(subject: Subject) -> None:
    """Where ``anchored``, a constant added to all targets or to all predictions changes something."""
    if not subject.loss.anchored:
        return
    p, y = subject.batch()
    value, slopes = gradient(lambda x: subject.values(x, y), p)
    _, other = gradient(lambda x: subject.values(x, y + 3), p)
    mend = "; with anchored = False its heads are calibrated before they are averaged"
    assert _gap(slopes, other) > 1e-9, f"3 standard deviations added to all targets change no gradient{mend}"
    if subject.loss.outputs == 1 and subject.loss.decode is None:
        gap = _gap(value, subject.values(p + 3, y))
        assert gap > 1e-9, f"3 standard deviations added to all predictions change no value{mend}"


def descending_it_ranks_the_clips(subject: Subject) -> None:
    """Free predictions that follow the gradient end in the order of their targets, and on their scale if anchored."""
    p = subject.batch(16)[0] + 2
    y = torch.linspace(-1.5, 1.5, 16, dtype=p.dtype).expand(HEADS, AXES, 16)
    x = p.requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        subject.values(x, y).sum().backward()
        optimiser.step()
    scores, constants = x.detach(), subject.constants(y.dtype)
    if subject.loss.decode:
        scores = subject.loss.decode(scores, **constants)
    for got in scores.flatten(0, 1):
        rank = srcc(got.numpy(), y[0, 0].numpy())
        assert rank > 0.9, f"400 steps down the gradient rank 16 free predictions with an SRCC of {rank:.2f}"
        offset, ratio = float(got.mean() - y[0, 0].mean()), float(got.std() / y[0, 0].std())
        on_scale = abs(offset) < 1 and 0.5 < ratio < 2
        assert on_scale or not subject.loss.anchored, (
            f"400 steps down the gradient leave free predictions {offset:.2f} standard deviations off, with"
            f" {ratio:.2f} times the targets' deviation; set anchored = False"
        )


def scores_are_made_clip_by_clip(subject: Subject) -> None:
    """Outputs (…, B, axes × outputs) give finite scores (…, B, axes) of their dtype, each of its clip alone."""
    loss = subject.loss
    p = subject.batch(dtype=torch.float32)[0].reshape(HEADS, AXES, CLIPS, loss.outputs)
    outputs = p.permute(0, 2, 1, 3).flatten(2)
    constants = subject.constants(torch.float32)
    for case, given in {"ordinary": outputs, "zero": 0 * outputs, "huge": 1e6 * outputs}.items():
        scores = loss.scores(given, constants)
        shape, wanted = tuple(scores.shape), (HEADS, CLIPS, AXES)
        assert shape == wanted, f"outputs {tuple(given.shape)} gave scores {shape}, not {wanted}"
        assert scores.isfinite().all(), f"{case} outputs gave NaN or infinite scores"
        assert scores.dtype == torch.float32, f"scores of float32 outputs are {scores.dtype}"
        _same(loss.scores(given[0, :1], constants), scores[0, :1], "the score of a clip alone and among others", 1e-5)


def every_option_matters(subject: Subject) -> None:
    """A parameter set to 0 gives finite numbers; set to 0 or to twice its value it changes some."""
    before = [part for _, function, x in subject.terms() for part in gradient(function, x)]
    for name, value in subject.loss.parameters().items():
        changes = []
        for setting in (0.0, 2 * value or 1.0):
            other = Subject(subject.loss.given({name: setting}))
            after = [part for _, function, x in other.terms() for part in gradient(function, x)]
            finite = all(part.isfinite().all() for part in after)
            assert finite, f"{name} = {setting:g} gives NaN or infinite numbers"
            changes.append(max(map(_gap, before, after)))
        assert max(changes) > 0, f"{name} = 0 and {name} = {2 * value or 1:g} give what {name} = {value:g} gives"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    the_parts_fit_together,
    constants_have_a_row_for_each_axis,
    there_is_a_number_for_each_head_and_axis,
    values_and_gradients_are_finite,
    embeddings_of_any_kind_give_finite_numbers,
    heads_and_axes_do_not_touch,
    the_order_of_a_batch_does_not_matter,
    the_inputs_are_left_alone,
    the_same_input_gives_the_same_bits,
    gradients_are_those_of_finite_differences,
    the_dtype_is_kept,
    an_anchored_loss_feels_an_offset,
    descending_it_ranks_the_clips,
    scores_are_made_clip_by_clip,
    every_option_matters,
)
