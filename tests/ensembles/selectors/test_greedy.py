"""Forward selection against a literal loop over scipy, with ties, constants, gaps in the truth and broken runs."""

import numpy as np
import pytest
from scipy import stats

from mmmos.ensembles import selectors
from mmmos.ensembles.selectors import greedy_pass
from mmmos.ensembles.selectors.greedy_pass import RankedTruth, correlations
from mmmos.errors import UnknownName, UsageError

USUAL = {"utt_SRCC": 1, "utt_KTAU": 1, "utt_MSE": 1}
PLAIN = {"bags": 1, "share": 1.0}


def score(metric, p, y):
    """One metric as scipy has it, higher being better; 0 for a constant."""
    if metric == "MSE":
        return -np.mean((p - y) ** 2)
    if np.ptp(p) <= 1e-12 * np.abs(p).max():
        return 0.0
    return {"SRCC": stats.spearmanr, "KTAU": stats.kendalltau, "LCC": stats.pearsonr}[metric](p, y).statistic


def objective(pool, mean, on, mix, axes):
    """The objective of predictions by set name, written out."""
    total = 0.0
    for name, set_weight in on.items():
        for metric, weight in mix.items():
            level, short = metric.split("_")
            values = []
            for axis in axes:
                y = pool.truth[name][:, axis]
                known = np.isfinite(y)
                p, y, systems = mean[name][known, axis], y[known], pool.systems[name][known]
                if level == "sys":
                    p, y = (np.array([v[systems == s].mean() for s in sorted(set(systems))]) for v in (p, y))
                if len(y) and (short == "MSE" or np.ptp(y) > 0):
                    values.append(score(short, p, y))
            total += set_weight * weight * np.mean(values) if values else 0.0
    return total / sum(on.values()) / sum(mix.values())


def literal_path(pool, runs, k, start, on, mix, axes):
    """Runs picked one after the other, up to the best beginning, each mean made anew."""
    scores = {name: pool.scores[name].astype(float) for name in on}
    picks, values = [], []
    for step in range(k):
        found = []
        for run in runs:
            mean = {name: sum(scores[name][pick] for pick in [*picks, run]) / (step + 1) for name in on}
            found.append(round(objective(pool, mean, on, mix, axes), 10))
        if step == 0:
            first = sorted(range(len(runs)), key=lambda run: (-found[run], run))[:start]
        choice = first[step] if step < start else int(np.argmax(found))
        picks.append(runs[choice])
        values.append(found[choice])
    return picks[: int(np.argmax(values)) + 1]


def literal(pool, k, start=1, on=("pam",), mix=None, axes=(0, 1)):
    on, mix = dict.fromkeys(on, 1.0) if not isinstance(on, dict) else on, mix or {"utt_SRCC": 1.0}
    picks = literal_path(pool, list(range(len(pool))), k, start, on, mix, axes)
    return np.bincount(picks, minlength=len(pool)) / len(picks)


def all_weights(pool, selection):
    weights = np.zeros((len(pool), len(pool.axes)))
    weights[selection.members] = selection.weights
    return weights


MIXES = [
    {"utt_SRCC": 1},
    {"utt_KTAU": 1},
    {"utt_LCC": 1},
    {"utt_MSE": 1},
    {"sys_SRCC": 1},
    {"sys_LCC": 2, "utt_KTAU": 1},
    {"sys_MSE": 1, "sys_KTAU": 1},
    USUAL,
]


@pytest.mark.parametrize("mix", MIXES, ids=" ".join)
@pytest.mark.parametrize(("seed", "decimals"), [(0, None), (1, 0), (2, 1)])
def test_picks_are_those_of_a_literal_loop(pools, mix, seed, decimals):
    pool = pools.make(seed, runs=9, clips=20, decimals=decimals)
    got = selectors.greedy(pool, metric=mix, k=7, **PLAIN)
    expected = literal(pool, 7, mix=mix)
    assert all_weights(pool, got) == pytest.approx(np.stack([expected, expected], axis=1), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_every_axis_can_be_chosen_for_alone(pools, seed):
    pool = pools.make(seed, runs=9, clips=20)
    got = all_weights(pool, selectors.greedy(pool, metric=USUAL, k=6, per_axis=True, **PLAIN))
    for axis in (0, 1):
        assert got[:, axis] == pytest.approx(literal(pool, 6, mix=USUAL, axes=(axis,)), abs=1e-12)


def test_sets_count_by_their_weights(pools):
    pool = pools.make(3, runs=9, clips=20)
    on = {"pam": 3.0, "dev": 1.0}
    got = selectors.greedy(pool, on=on, metric=USUAL, k=6, **PLAIN)
    assert all_weights(pool, got)[:, 0] == pytest.approx(literal(pool, 6, on=on, mix=USUAL), abs=1e-12)
    as_list = selectors.greedy(pool, on=["pam", "dev"], k=6, **PLAIN)
    assert all_weights(pool, as_list)[:, 0] == pytest.approx(literal(pool, 6, on=["pam", "dev"]), abs=1e-12)


@pytest.mark.parametrize("start", [1, 3, 9])
def test_the_best_runs_come_first(pools, start):
    pool = pools.make(4, runs=9, clips=20)
    got = selectors.greedy(pool, metric=USUAL, k=9, start=start, **PLAIN)
    assert all_weights(pool, got)[:, 0] == pytest.approx(literal(pool, 9, start, mix=USUAL), abs=1e-12)


def test_clips_without_truth_are_left_out_and_an_axis_without_any_gets_the_joint_choice(pools):
    pool = pools.make(5, runs=9, clips=20)
    pool.truth["pam"][:5, 0] = np.nan
    got = selectors.greedy(pool, metric=USUAL, k=6, **PLAIN)
    assert all_weights(pool, got)[:, 0] == pytest.approx(literal(pool, 6, mix=USUAL), abs=1e-12)
    pool.truth["pam"][:, 1] = np.nan
    alone = all_weights(pool, selectors.greedy(pool, metric=USUAL, k=6, per_axis=True, **PLAIN))
    assert (alone[:, 0] == alone[:, 1]).all()
    assert alone[:, 0] == pytest.approx(literal(pool, 6, mix=USUAL, axes=(0,)), abs=1e-12)


@pytest.mark.parametrize("mix", [{"utt_SRCC": 1}, {"utt_LCC": 1}, {"utt_MSE": 1}, USUAL], ids=" ".join)
def test_a_run_that_is_not_finite_is_never_picked_and_a_constant_counts_as_0(pools, mix):
    def spoil(scores):
        scores[:] = -scores
        scores[0, 3, 1], scores[1, 0, 0], scores[2] = np.nan, np.inf, 5.1
        return scores

    pool = pools.make(6, runs=5, pam=spoil)
    chosen = set(selectors.greedy(pool, metric=mix, k=1, **PLAIN).members)
    assert chosen == {2}
    assert not {0, 1} & set(selectors.greedy(pool, metric=mix).members)


@pytest.mark.parametrize("metric", ["utt_LCC", "utt_SRCC"])
def test_runs_that_cancel_are_constant_together(pools, metric):
    rng = np.random.default_rng(0)
    truth = rng.normal(5, 1, (12, 2)).astype(np.float32).astype(float)
    noise = rng.normal(5, 1, (12, 2))
    scores = np.float32(np.stack([-truth, truth, noise, np.full_like(truth, 0.1)]))
    pool = pools.of({"pam": scores}, {"pam": truth})
    assert selectors.greedy(pool, metric=metric, k=4, start=2, **PLAIN).members.tolist() == [1]


def test_bags_average_paths_over_parts_of_the_pool(pools):
    pool = pools.make(7, runs=12, clips=20)
    got = all_weights(pool, selectors.greedy(pool, metric=USUAL, k=5, bags=6, share=0.4, seed=3))
    rng, expected = np.random.default_rng(3), np.zeros(12)
    for _ in range(6):
        subset = sorted(rng.permutation(12)[:5].tolist())
        picks = literal_path(pool, subset, 5, 1, {"pam": 1.0}, USUAL, (0, 1))
        expected += np.bincount(picks, minlength=12) / len(picks) / 6
    assert got[:, 0] == pytest.approx(expected, abs=1e-12)
    assert got.sum(axis=0) == pytest.approx(1)
    again = all_weights(pool, selectors.greedy(pool, metric=USUAL, k=5, bags=6, share=0.4, seed=3))
    other = all_weights(pool, selectors.greedy(pool, metric=USUAL, k=5, bags=6, share=0.4, seed=4))
    assert (got == again).all() and (got != other).any()


def test_of_equal_runs_the_earlier_is_picked_and_the_path_is_not_longer_than_it_helps(pools):
    pool = pools.make(8, pam=lambda scores: np.repeat(scores[:1], 7, axis=0))
    selection = selectors.greedy(pool, k=5, **PLAIN)
    assert selection.members.tolist() == [0] and (selection.weights == 1).all()


def test_what_is_chosen_is_at_least_as_good_as_the_best_run(pools):
    for seed in range(5):
        pool = pools.make(seed, runs=30, clips=40)
        selection = selectors.greedy(pool, metric=USUAL, **PLAIN)
        mean = pool.mean("pam", selection.members, selection.weights).to_numpy()
        best = selectors.quality(pool, "pam", USUAL).max()
        assert objective(pool, {"pam": mean}, {"pam": 1.0}, USUAL, (0, 1)) >= best - 1e-9


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"k": 0}, "k must be a whole number, 1 or more; got 0"),
        ({"bags": "many"}, "bags must be a whole number, 1 or more; got 'many'"),
        ({"bags": True}, "bags must be a whole number"),
        ({"start": 1.5}, "start must be a whole number"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
        ({"share": 0}, "share must be a number above 0 to 1; got 0"),
        ({"share": float("nan")}, "share must be a number above 0 to 1"),
        ({"per_axis": "yes"}, "per_axis must be True or False; got 'yes'"),
    ],
)
def test_parameters_out_of_range_are_sentences(pools, parameters, sentence):
    with pytest.raises(UsageError, match=sentence):
        selectors.greedy(pools.make(), **parameters)


def test_sets_and_metrics_are_checked(pools):
    pool = pools.make()
    with pytest.raises(UsageError, match="sealed"):
        selectors.greedy(pool, on={"pam": 1, "eval": 1})
    with pytest.raises(UnknownName, match="no metric 'SRCC'"):
        selectors.greedy(pool, metric={"SRCC": 1})
    pool.truth["pam"][:] = 4.0
    with pytest.raises(UsageError, match="utt_SRCC is undefined on 'pam'"):
        selectors.greedy(pool, metric=["utt_MSE", "utt_SRCC"])
    assert len(selectors.greedy(pool, metric="utt_MSE").members)
    pool.scores["pam"][:] = np.nan
    with pytest.raises(UsageError, match="No head predicts finite numbers"):
        selectors.greedy(pool, metric="utt_MSE")


@pytest.mark.parametrize("levels", [2, 7, 40, 0])
@pytest.mark.parametrize("n", [2, 63, 64, 65, 300])
def test_one_pass_gives_scipys_coefficients_from_any_order(n, levels):
    rng = np.random.default_rng(n + levels)
    draw = rng.normal if not levels else lambda size: rng.integers(levels, size=size).astype(float)
    y, predictions, total = draw(size=n), draw(size=(6, n)), draw(size=n)
    y[:2] = 0, 1
    order = np.stack([rng.permutation(n) for _ in predictions]).astype(np.int32)
    srcc, ktau = correlations(predictions, total, 3, order, RankedTruth(y), tau=True)
    x = (predictions + total) / 3
    assert srcc == pytest.approx([score("SRCC", row, y) for row in x], abs=1e-12)
    assert ktau == pytest.approx([score("KTAU", row, y) for row in x], abs=1e-12)
    assert (np.diff(np.take_along_axis(x, order, axis=1)) >= 0).all()
    assert (np.sort(order) == np.arange(n)).all()


@pytest.mark.parametrize("levels", [0, 2, 9])
def test_the_compiled_pass_gives_what_the_same_lines_do_in_plain_python(levels, monkeypatch):
    rng = np.random.default_rng(levels)
    draw = rng.normal if not levels else lambda size: rng.integers(levels, size=size).astype(float)
    y, predictions, total = draw(size=130), draw(size=(4, 130)), draw(size=130)
    predictions[2] = 5 - total
    # Of the first from the highest down, for which an insertion sort takes long.
    order = np.stack([rng.permutation(130) for _ in predictions]).astype(np.int32)
    order[0] = np.argsort(-(predictions[0] + total))
    for truth, tau in ((RankedTruth(y), True), (RankedTruth(np.zeros(130)), True), (RankedTruth(y), False)):
        orders = order.copy(), order.copy()
        compiled = correlations(predictions, total, 3, orders[0], truth, tau=tau)
        with monkeypatch.context() as patch, np.errstate(over="ignore"):
            for name in ("_correlate", "_sort", "_insert", "_discordant", "_ones"):
                patch.setattr(greedy_pass, name, getattr(greedy_pass, name).py_func)
            plain = correlations(predictions, total, 3, orders[1], truth, tau=tau)
        np.testing.assert_allclose(compiled, plain, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(*orders)
        assert compiled[0][2] == compiled[1][2] == 0
