"""``check_selector`` holds any selector, ours or another's, to what ``select`` relies on."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np

from mmmos import registry
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.selectors import Selection
from mmmos.errors import UnknownName, UsageError
from mmmos.testing.promises import hold, unchanged_process
from mmmos.testing.selector_subject import (
    Selector,
    Subject,
    an_axis_unknown,
    pool,
    some_unknown,
    with_scores,
    with_truth,
    without,
)

TOLERANCE = 1e-6


def check_selector(subject: str | Selector, **parameters: Any) -> None:
    """Raise ``AssertionError`` with a sentence for each promise that a selector breaks.

    ``subject``: a registered selector, one in a local file (``mine.py:mine``), or a function. ``parameters``: of the
    selector, in place of its own; not ``on``.
    """
    selector = registry.load("selectors", subject) if isinstance(subject, str) else subject
    assert callable(selector), f"A selector is a function of a Pool; got {type(selector).__name__}."
    hold(Subject(selector, parameters), CHECKS)


def parameters_have_defaults(subject: Subject) -> None:
    """A selector is called with a pool alone, and all else by keyword."""
    first, *others = subject.known.values()
    assert first.name == "pool", f"the first parameter is called {first.name!r}; call it pool"
    for each in others:
        assert each.kind is each.KEYWORD_ONLY, f"{each.name} must be given by keyword only: put a * before it"
        assert each.default is not each.empty, f"{each.name} has no default, which a recipe without it needs"


def members_ascend_and_weights_sum_to_one(subject: Subject) -> None:
    """For pools of any size, with ties, equal runs, one axis, and truth that is known in part."""
    equal = pool(5)
    cases = {
        "12 runs": pool(),
        "1 run": pool(1),
        "2 runs": pool(2),
        "40 runs": pool(40),
        "1 axis": pool(axes=("PQ",)),
        "tied scores": pool(decimals=0),
        "equal runs": replace(equal, scores={k: np.repeat(v[:1], 5, 0) for k, v in equal.scores.items()}),
        "clips without truth": with_truth(with_truth(pool(), "pam", some_unknown), "dev", some_unknown),
        "an axis without truth": with_truth(with_truth(pool(), "pam", an_axis_unknown), "dev", an_axis_unknown),
    }
    for case, some in cases.items():
        _hold_selection(subject.choose(some), some, case)


def _hold_selection(found: Selection, some: Pool, case: str) -> None:
    members, weights = np.asarray(found.members), np.asarray(found.weights)
    assert members.ndim == 1 and members.dtype.kind in "iu", f"{case}: members are {members.dtype} {members.shape}"
    assert len(members), f"{case}: no run is chosen"
    assert (np.diff(members) > 0).all(), f"{case}: members are {members.tolist()}; they ascend and are distinct"
    inside = members[0] >= 0 and members[-1] < len(some)
    assert inside, f"{case}: members are {members.tolist()} of {len(some)} runs, which are counted from 0"
    wanted = (len(members), len(some.axes))
    assert weights.shape == wanted, f"{case}: weights are {weights.shape}; (members, axes) is {wanted}"
    assert np.isfinite(weights).all(), f"{case}: weights are not finite"
    sums = weights.sum(axis=0)
    assert np.abs(sums - 1).max() < TOLERANCE, f"{case}: the weights of an axis sum to {sums.tolist()}, not to 1"


def the_same_pool_gives_the_same_choice(subject: Subject) -> None:
    """To the last bit, whatever was chosen in between."""
    first = subject.weights(pool())
    subject.weights(pool(5, seed=1))
    assert np.array_equal(first, subject.weights(pool())), "the same pool gave another choice"


def the_process_is_left_as_it_was(subject: Subject) -> None:
    """Choosing leaves random states and settings of the process alone."""
    with unchanged_process("choosing"):
        subject.choose(pool())


def the_pool_is_left_alone(subject: Subject) -> None:
    """Nothing in the pool is written to."""
    some = pool()
    before: dict[str, dict[str, Any]] = deepcopy({"scores": some.scores, "truth": some.truth})
    subject.choose(some)
    for kind, arrays in before.items():
        now = getattr(some, kind)
        same = list(now) == list(arrays) and all(np.array_equal(now[name], arrays[name]) for name in arrays)
        assert same, f"the {kind} of the pool were changed in place"


def the_evaluation_set_does_not_matter(subject: Subject) -> None:
    """Other predictions of it, in another order, or none at all leave the choice as it is."""
    wanted = subject.weights(pool())
    for case, some in {"other": with_scores(pool(), "eval"), "no": without(pool(), "eval")}.items():
        same = np.array_equal(subject.weights(some), wanted)
        assert same, f"{case} predictions of the evaluation set give another choice"


def only_the_named_sets_matter(subject: Subject) -> None:
    """With ``on``, the choice depends on that set alone, and does depend on it."""
    if "on" not in subject.known:
        return
    some = pool()
    for name, other in (("dev", "pam"), ("pam", "dev")):
        wanted = subject.weights(some, on=name)
        changed = with_scores(with_truth(some, other, lambda truth: 10 - truth), other)
        for case, each in {"other truth and scores of": changed, "no": without(some, other)}.items():
            same = np.array_equal(subject.weights(each, on=name), wanted)
            assert same, f"on = {name!r}: {case} {other!r} gives another choice"
        told = subject.weights(with_truth(some, name, lambda truth: 10 - truth), on=name)
        assert not np.array_equal(told, wanted), f"on = {name!r}: with the truth of {name!r} upside down it is the same"


def sets_are_named_in_any_way(subject: Subject) -> None:
    """``on`` is a name, several, or weights by name."""
    for on in ("dev", ["dev", "pam"], {"dev": 1.0, "pam": 2.0}) if "on" in subject.known else ():
        _hold_selection(subject.choose(pool(), on=on), pool(), f"on = {on!r}")


def unknown_and_sealed_sets_are_refused(subject: Subject) -> None:
    """UnknownName for a set that the pool lacks, UsageError for the evaluation set."""
    if "on" not in subject.known:
        return
    cases: list[tuple[Pool, dict[str, str], type[UsageError]]] = [
        (pool(), {"on": "nowhere"}, UnknownName),
        (pool(), {"on": "eval"}, UsageError),
        *((without(pool(), name), {}, UnknownName) for name in subject.looks_at),
    ]
    for some, parameters, kind in cases:
        what = parameters.get("on") or f"a set of {', '.join(subject.looks_at)} that the pool lacks"
        try:
            subject.choose(some, **parameters)
        except kind:
            continue
        except Exception as error:
            raise AssertionError(f"on = {what}: {type(error).__name__} is raised, not {kind.__name__}") from None
        raise AssertionError(f"on = {what}: nothing is raised; Pool.measure and Pool.pairs raise {kind.__name__}")


def the_order_of_runs_matters_for_ties_alone(subject: Subject) -> None:
    """Without ties, runs in another order have the weights that they had; a selector with a seed may draw by place."""
    if subject.draws:
        return
    some, order = pool(), np.random.default_rng(3).permutation(12)
    moved = subject.weights(some.only([int(run) for run in order]))
    gap = np.abs(moved - subject.weights(some)[order]).max()
    assert gap < TOLERANCE, f"the same runs in another order have other weights: they differ by {gap:.2g}"


def ties_go_to_the_earlier_run(subject: Subject) -> None:
    """Of two equal runs the later one never weighs more; a selector with a seed may draw by place."""
    if subject.draws:
        return
    weights = subject.weights(pool().only([*range(12), *range(12)]))
    gap = (weights[12:] - weights[:12]).max()
    assert gap < TOLERANCE, f"of two equal runs the later one weighs {gap:.2g} more"


CHECKS: tuple[Callable[[Subject], None], ...] = (
    parameters_have_defaults,
    members_ascend_and_weights_sum_to_one,
    the_same_pool_gives_the_same_choice,
    the_process_is_left_as_it_was,
    the_pool_is_left_alone,
    the_evaluation_set_does_not_matter,
    only_the_named_sets_matter,
    sets_are_named_in_any_way,
    unknown_and_sealed_sets_are_refused,
    the_order_of_runs_matters_for_ties_alone,
    ties_go_to_the_earlier_run,
)
