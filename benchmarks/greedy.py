"""Forward selection: ours against a loop over scipy, with the same picks.

    python benchmarks/greedy.py [--json] [--quick] [--models N] [--clips N] [--steps N]

The task: predictions of 500 models for 1,000 clips on 4 axes against means of ten integer ratings (so with ties); the
objective is SRCC + KTAU − MSE, one path without bags. The other side makes every mean anew and calls scipy. Both run in
one process and one thread; CPU time counts. "large": every rule on a pool of 5,000 runs and 250 clips.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from mmmos.axes import AXES
from mmmos.ensembles import selectors
from mmmos.ensembles.pool import Pool
from mmmos.ensembles.spec import HeadSpec

METRIC = ("utt_SRCC", "utt_KTAU", "utt_MSE")
ONE_PATH = {"bags": 1, "share": 1.0, "metric": METRIC}


def make_pool(models, clips, seed=0):
    """Runs with an error in common, as heads on the same features have, and one of their own."""
    rng = np.random.default_rng(seed)
    expected = rng.normal(5, 1.3, (clips, 4, 1))
    truth = np.clip(np.rint(expected + rng.normal(0, 1.8, (clips, 4, 10))), 0, 10).mean(axis=2)
    own = rng.uniform(0.3, 2, (models, 1, 1)) * rng.standard_normal((models, clips, 4))
    scores = np.float32(expected[..., 0] + rng.normal(0, 0.7, (clips, 4)) + own)
    specs = tuple(HeadSpec(head="ridge", features=("a",), axes=AXES, seed=seed) for seed in range(models))
    keys, ids = tuple(map(str, range(models))), tuple(map(str, range(clips)))
    names = ("pam",)
    parts = [dict.fromkeys(names, each) for each in (ids, scores, truth, None)]
    return Pool("p", Path(), "", AXES, specs, keys, *parts)


def scipy_picks(pool, steps):
    """Picks and CPU seconds of each step."""
    scores, truth = pool.scores["pam"].astype(float), pool.truth["pam"]
    total, picks, seconds = np.zeros(truth.shape), [], []
    for step in range(1, steps + 1):
        begin, values = time.process_time(), []
        for run in scores:
            mean, value = (total + run) / step, 0.0
            for p, y in zip(mean.T, truth.T, strict=True):
                value += stats.spearmanr(p, y).statistic + stats.kendalltau(p, y).statistic - np.mean((p - y) ** 2)
            values.append(value / 12)
        picks.append(int(np.round(values, 10).argmax()))
        total += scores[picks[-1]]
        seconds.append(time.process_time() - begin)
    return picks, seconds


def our_picks(pool, steps):
    """Picks and CPU seconds of each step; the first one's have all that is prepared."""
    from mmmos.ensembles.selectors import forward, objective

    begin = time.process_time()
    runs = np.arange(len(pool))
    judges = [forward._Judge(term, runs) for term in objective.terms(pool, "pam", METRIC)]
    means, picks, seconds = [forward._Mean(judge, runs) for judge in judges], [], []
    for _ in range(steps):
        picks.append(int(np.round(np.sum([mean.scores() for mean in means], axis=0), 10).argmax()))
        for mean in means:
            mean.add(picks[-1])
        end = time.process_time()
        seconds.append(end - begin)
        begin = end
    return picks, seconds


def large():
    """CPU seconds of each rule on 5,000 runs and 250 clips."""
    pool, found = make_pool(5000, 250, seed=1), {}
    rules = {
        "top_k": selectors.top_k,
        "stack, ridge": selectors.stack,
        "stack, nnls": lambda pool: selectors.stack(pool, method="nnls"),
        "greedy": selectors.greedy,
        "greedy, three metrics": lambda pool: selectors.greedy(pool, metric=METRIC),
    }
    for name, rule in rules.items():
        begin = time.process_time()
        rule(pool)
        found[name] = time.process_time() - begin
    return found


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer models and steps, within a minute")
    parser.add_argument("--models", type=int, default=500)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    models, steps = (100, 5) if options.quick else (options.models, options.steps)
    our_picks(make_pool(3, 10), 2)  # compiled, or read from the cache, before anything is timed
    with threadpool_limits(1):
        pool = make_pool(models, options.clips)
        (expected, theirs), (picks, ours) = scipy_picks(pool, steps), our_picks(pool, steps)
        print(f"{'step':<6}{'pick':>6}{'scipy, CPU s':>14}{'ours':>8}{'times':>8}")
        for step, (pick, slow, fast) in enumerate(zip(picks, theirs, ours, strict=True), start=1):
            print(f"{step:<6}{pick:>6}{slow:>14.2f}{fast:>8.3f}{slow / fast:>8.1f}")
        ratio = sum(theirs) / sum(ours)
        each = sum(ours) / (steps * models * 4) * 1e6
        print(f"{'all':<12}{sum(theirs):>14.2f}{sum(ours):>8.3f}{ratio:>8.1f}, {each:.0f} µs for a model and an axis")
        print("identical picks" if picks == expected else f"DIFFERENT PICKS: scipy {expected}")
        seconds = {} if options.quick else large()
        for name, value in seconds.items():
            print(f"5,000 runs, 250 clips: {name:<24}{value:>6.1f} CPU s")
    if options.json:
        print(json.dumps({"greedy": round(ratio, 2), "identical": picks == expected}))


if __name__ == "__main__":
    main()
