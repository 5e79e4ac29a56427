"""check_selector: what is sound passes, each kind of broken one is caught and named."""

import numpy as np
import pytest

from mmmos import registry
from mmmos.ensembles.selectors import METRIC, Selection, quality, top_k
from mmmos.testing import check_selector


def of(pool, order, k=3):
    members = np.sort(np.asarray(order)[: min(k, len(pool))])
    return Selection(members, np.full((len(members), len(pool.axes)), 1 / len(members)))


def sound(pool, *, on="pam", k=3, metric=METRIC):
    return of(pool, np.argsort(-np.mean([quality(pool, name, metric) for name in _names(on)], 0), kind="stable"), k)


def _names(on):
    return [on] if isinstance(on, str) else list(on)


def needs_a_set(pool, *, on):
    return sound(pool, on=on)


def takes_by_place(pool, on="pam"):
    return sound(pool, on=on)


def gives_an_array(pool, *, on="pam"):
    return sound(pool, on=on).members


def descends(pool, *, on="pam"):
    found = sound(pool, on=on)
    return Selection(found.members[::-1], found.weights)


def sums_to_more(pool, *, on="pam"):
    found = sound(pool, on=on)
    return Selection(found.members, found.weights * 1.01)


def weighs_by_run_alone(pool, *, on="pam"):
    found = sound(pool, on=on)
    return Selection(found.members, found.weights[:, 0])


def chooses_none_of_few(pool, *, on="pam"):
    return sound(pool, on=on, k=3 if len(pool) > 1 else 0)


def divides_by_what_is_unknown(pool, *, on="pam"):
    found = sound(pool, on=on)
    known = np.mean([pool.truth[name].sum(0) for name in _names(on)], 0)
    return Selection(found.members, found.weights * known / known)


def draws(pool, *, on="pam"):
    return of(pool, np.random.default_rng().permutation(len(pool)))


def seeds(pool, *, on="pam"):
    np.random.seed(0)
    return sound(pool, on=on)


def sorts_the_pool(pool, *, on="pam"):
    found = sound(pool, on=on)
    pool.scores["pam" if "pam" in pool.scores else "dev"].sort(axis=1)
    return found


def follows_the_evaluation_set(pool, *, on="pam"):
    sound(pool, on=on)
    return of(pool, np.argsort([scores.std() for scores in pool.scores.get("eval", np.zeros((len(pool), 1)))]))


def ignores_on(pool, *, on="pam"):
    quality(pool, _names(on)[0])
    return sound(pool, on=next(iter(pool.truth)))


def looks_everywhere(pool, *, on="pam"):
    quality(pool, _names(on)[0])
    return sound(pool, on=list(pool.truth))


def takes_one_name_alone(pool, *, on="pam"):
    return top_k(pool, on=on) if isinstance(on, str) else 1 / 0


def takes_any_name(pool, *, on="pam"):
    return sound(pool, on=on if set(_names(on)) <= set(pool.truth) else next(iter(pool.truth)))


def gives_key_errors(pool, *, on="pam"):
    return [pool.truth[name] for name in _names(on)] and sound(pool, on=on)


def prefers_the_first_runs(pool, *, on="pam"):
    return of(pool, np.argsort(-quality(pool, _names(on)[0]) + np.arange(len(pool))))


def prefers_the_later(pool, *, on="pam"):
    merit = np.mean([quality(pool, name) for name in _names(on)], 0)
    return of(pool, len(pool) - 1 - np.argsort(-merit[::-1], kind="stable"), 1)


BROKEN = {
    needs_a_set: "parameters_have_defaults: on has no default",
    takes_by_place: "parameters_have_defaults: on must be given by keyword only",
    gives_an_array: "members_ascend_.*: a selector gives a Selection; got ndarray",
    descends: "members_ascend_.*: 12 runs: members are .*; they ascend and are distinct",
    sums_to_more: r"members_ascend_.*: 12 runs: the weights of an axis sum to \[1\.01",
    weighs_by_run_alone: r"members_ascend_.*: weights are \(3,\); \(members, axes\) is \(3, 2\)",
    chooses_none_of_few: "members_ascend_.*: (1 run|ZeroDivisionError)",
    divides_by_what_is_unknown: "members_ascend_.*: clips without truth: weights are not finite",
    draws: "the_same_pool_gives_the_same_choice: the same pool gave another choice",
    seeds: "the_process_is_left_as_it_was: choosing changed the random state of numpy",
    sorts_the_pool: "the_pool_is_left_alone: the scores of the pool were changed in place",
    follows_the_evaluation_set: "the_evaluation_set_does_not_matter: other predictions of the evaluation set give",
    ignores_on: "only_the_named_sets_matter: on = 'pam': with the truth of|only_the_named_sets_matter: on = 'pam'",
    looks_everywhere: "only_the_named_sets_matter: on = 'dev': other truth and scores of 'pam' gives another choice",
    takes_one_name_alone: "sets_are_named_in_any_way: ZeroDivisionError",
    takes_any_name: "unknown_and_sealed_sets_are_refused: on = nowhere: nothing is raised",
    gives_key_errors: "unknown_and_sealed_sets_are_refused: on = nowhere: KeyError is raised, not UnknownName",
    prefers_the_first_runs: "the_order_of_runs_matters_for_ties_alone: the same runs in another order",
    prefers_the_later: "ties_go_to_the_earlier_run: of two equal runs the later one weighs 1 more",
}


@pytest.mark.parametrize("name", registry.names("selectors"))
def test_every_registered_selector_passes(name):
    check_selector(name)


def test_a_sound_selector_passes_also_with_parameters_of_its_own():
    check_selector(sound)
    check_selector("stack", method="nnls", per_axis=False)


@pytest.mark.parametrize(("broken", "said"), BROKEN.items(), ids=lambda part: getattr(part, "__name__", ""))
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_broken_selector_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_selector(broken)


def test_a_selector_in_a_file_is_checked_by_its_name(tmp_path):
    (tmp_path / "mine.py").write_text("from mmmos.ensembles.selectors import best\nmine = best\nnone = 3\n")
    check_selector(f"{tmp_path}/mine.py:mine")
    with pytest.raises(AssertionError, match="A selector is a function of a Pool; got int"):
        check_selector(f"{tmp_path}/mine.py:none")
