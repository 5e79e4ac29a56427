"""Statistics of selection: ours against loops over scipy.

    python benchmarks/selection.py [--json] [--quick] [--clips N] [--resamples N]

The task: scores of one model for 1,000 clips against means of ten integer ratings (so with ties). "bootstrap": SRCC and
KTAU in 1,000 resamples; the other side writes every resample out and calls scipy. "measure": SRCC and KTAU of 5,000
models. Both sides run in one process and one thread and take turns; CPU time counts, the best of the rounds; the
largest difference between them is shown. scipy does part of the work, the time of which is scaled to all of it.
"""

import argparse
import json
import time

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from mmmos.statistics import bootstrap, measure, resample_counts

SCIPY = {"SRCC": stats.spearmanr, "KTAU": stats.kendalltau}


def make_task(models, clips, seed=0):
    """Predictions (models, clips) and a truth (clips,) of means of ten ratings."""
    rng = np.random.default_rng(seed)
    expected = rng.normal(5, 1.3, clips)
    truth = np.clip(np.rint(expected[:, None] + rng.normal(0, 1.8, (clips, 10))), 0, 10).mean(axis=1)
    return expected + rng.uniform(0.3, 2, (models, 1)) * rng.standard_normal((models, clips)), truth


def scipy_bootstrap(metric, x, y, counts):
    """The metric on every resample written out."""
    return [SCIPY[metric](np.repeat(x, row), np.repeat(y, row)).statistic for row in counts]


def scipy_measure(metric, predictions, truth):
    """The metric of one model after the other."""
    return [SCIPY[metric](model, truth).statistic for model in predictions]


def in_turns(ours, theirs, whole, part, rounds):
    """CPU µs for each of ``whole`` values by ours and of ``part`` by theirs, and the largest difference."""
    best = {"ours": float("inf"), "scipy": float("inf")}
    for _ in range(rounds):
        begin = time.process_time()
        found = ours()
        middle = time.process_time()
        expected = theirs()
        end = time.process_time()
        best["ours"] = min(best["ours"], (middle - begin) / whole * 1e6)
        best["scipy"] = min(best["scipy"], (end - middle) / part * 1e6)
    return best, float(np.abs(found[:part] - expected).max())


def of_bootstrap(clips, resamples, part, rounds):
    """Times and differences of SRCC and KTAU in every resample."""
    (x,), y = make_task(1, clips)
    counts = resample_counts(clips, resamples)
    return {
        metric: in_turns(
            lambda metric=metric: bootstrap(metric, x, y, counts),
            lambda metric=metric: scipy_bootstrap(metric, x, y, counts[:part]),
            resamples,
            part,
            rounds,
        )
        for metric in SCIPY
    }


def of_models(models, clips, part, rounds):
    """Times and differences of SRCC and KTAU of every model."""
    predictions, truth = make_task(models, clips)
    return {
        metric: in_turns(
            lambda metric=metric: measure(metric, predictions, truth),
            lambda metric=metric: scipy_measure(metric, predictions[:part], truth),
            models,
            part,
            rounds,
        )
        for metric in SCIPY
    }


def show(title, found):
    """Lines of a table; returns named ratios and the largest difference."""
    total = {side: sum(best[side] for best, _ in found.values()) for side in ("scipy", "ours")}
    rows = {**{metric: best for metric, (best, _) in found.items()}, "both": total}
    for name, best in rows.items():
        print(f"{title:<12}{name:<8}{best['scipy']:>12.1f}{best['ours']:>10.1f}{best['scipy'] / best['ours']:>8.1f}")
    ratios = {f"{title}_{name}": round(best["scipy"] / best["ours"], 2) for name, best in rows.items()}
    return ratios | {f"{title}_error": max(error for _, error in found.values())}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and less of scipy's work, within a minute")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    options = parser.parse_args()
    rounds, part = (2, 100) if options.quick else (5, options.resamples)
    for metric in SCIPY:  # compiled, or read from the cache, before anything is timed
        bootstrap(metric, [1.0, 2.0], [1.0, 2.0], np.ones((1, 2), int))
        measure(metric, [[1.0, 2.0]], [1.0, 2.0])
    with threadpool_limits(1):
        print(f"{'one thread, CPU µs each':<20}{'scipy':>12}{'ours':>10}{'times':>8}")
        ratios = show("bootstrap", of_bootstrap(options.clips, options.resamples, part, rounds))
        ratios |= show("measure", of_models(5000, options.clips, part, rounds))
    print(f"largest difference {max(ratios['bootstrap_error'], ratios['measure_error']):.1e}")
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
