"""Coverage of 95 % intervals: how often they hold the value of the population that the sample was drawn from.

    python benchmarks/intervals.py [RATINGS.jsonl] [--json] [--quick] [--simulations N] [--axes PQ,PC,CE,CU] [--parts …]

The population is one of systems. A system has a level, drawn with a normal kernel around the systems of the official
ratings (RATINGS.jsonl, the list of the evaluation set), and clips whose scores scatter as the clips of such a system
do. Without the file, levels are normal and clips have ten integer-valued ratings in 0 to 10. Three models of known
quality predict each clip: its score shrunk towards the mean, plus an error for the system and one for the clip. What an
interval has to hold is the metric over infinitely many systems (here 60,000, or 8,000 with all their clips). Each
simulation draws 36 systems with 85 clips and asks several kinds of interval: of system means, of their clips (leaving
out and resampling whole systems, or clips as if they had nothing to do with each other), of new clips of one draw of
systems, and of 1,000 clips each of a system of its own.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mmmos.axes import AXES, LONG_NAMES
from mmmos.statistics import METRICS, bootstrap, measure, sampling
from mmmos.statistics.intervals import METHODS

SYSTEMS, CLIPS, RATERS = 36, 85, 10
MODELS = {"strong": (0.9, 0.25, 0.5), "middling": (0.7, 0.5, 0.8), "weak": (0.4, 0.9, 1.0)}  # slope, errors


@dataclass(frozen=True)
class Population:
    """Levels of known systems (systems,) and deviations of their clips (systems, clips); None: a synthetic one."""

    levels: np.ndarray | None
    deviations: np.ndarray | None

    def draw(self, rng, systems, clips=CLIPS):
        """Scores of new systems: (systems, clips)."""
        if self.levels is None:
            expected = rng.normal(5, 1, (systems, 1)) + rng.normal(0, 1, (systems, clips))
            ratings = np.clip(np.rint(expected[..., None] + rng.normal(0, 1.8, (systems, clips, RATERS))), 0, 10)
            return ratings.mean(axis=-1)
        kernel = 0.9 * self.levels.std() * len(self.levels) ** -0.2
        known = rng.integers(len(self.levels), size=systems)
        levels = self.levels[known] + rng.normal(0, kernel, systems)
        chosen = rng.integers(self.deviations.shape[1], size=(systems, clips))
        return levels[:, None] + self.deviations[known[:, None], chosen]


def population(path, axis):
    """The population of one axis of a list of ratings, or the synthetic one."""
    if path is None:
        return Population(None, None)
    with Path(path).open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    scores = pd.Series([np.mean(row[LONG_NAMES[axis]]) for row in rows])
    by_system = scores.groupby([row["data_path"].split("-")[2] for row in rows]).apply(np.array)
    table = np.stack(by_system.to_list())
    return Population(table.mean(axis=1), table - table.mean(axis=1, keepdims=True))


def predict(rng, truth, model):
    """Predicted scores (systems, CLIPS) of a model of known quality."""
    slope, system_error, clip_error = MODELS[model]
    errors = system_error * rng.standard_normal((len(truth), 1)) + clip_error * rng.standard_normal(truth.shape)
    return 5.3 + slope * (truth - 5) + errors


def true_values(where, model, level):
    """Each metric over a sample so large that its own error does not count."""
    rng, parts = np.random.default_rng(2**20), []
    for _ in range(30 if level == "system" else 4):
        truth = where.draw(rng, 2000)
        parts.append((predict(rng, truth, model), truth))
    x, y = (np.concatenate(side) for side in zip(*parts, strict=True))
    x, y = (x.mean(axis=1), y.mean(axis=1)) if level == "system" else (x.ravel(), y.ravel())
    return {metric: float(measure(metric, x[None], y)[0]) for metric in METRICS}


def of_systems(where, model, simulations):
    """Share of simulations whose interval of system means holds the true value, by (interval, metric)."""
    true, held = true_values(where, model, "system"), {}
    ways = {method: sampling(SYSTEMS, method=method) for method in METHODS}
    for simulation in range(simulations):
        rng = np.random.default_rng([simulation, 1])
        truth = where.draw(rng, SYSTEMS)
        x, y = predict(rng, truth, model).mean(axis=1), truth.mean(axis=1)
        for metric, value in true.items():
            for method, way in ways.items():
                low, high = way.interval(bootstrap(metric, x, y, way.counts), metric)
                held.setdefault((method, metric), []).append(low <= value <= high)
    return {key: float(np.mean(found)) for key, found in held.items()}


def held_in(held, ways, x, y, true):
    """Note for each metric and way of sampling whether its interval holds the true value."""
    for name, (jackknife, bca) in ways.items():
        for metric, value in true.items():
            samples = bca if metric == "SRCC" else jackknife
            low, high = samples.interval(bootstrap(metric, x, y, samples.counts), metric)
            held.setdefault((name, metric), []).append(low <= value <= high)


def both(n, units=None):
    """The parts of method "auto", each by itself to save time."""
    return tuple(sampling(n, units, method=method) for method in ("jackknife", "bca"))


def of_clips(where, model, simulations):
    """The same for clips of new systems."""
    true, held, unit = true_values(where, model, "utterance"), {}, np.repeat(np.arange(SYSTEMS), CLIPS)
    ways = {"unit: system": both(len(unit), unit), "unit: clip": both(len(unit))}
    for simulation in range(simulations):
        rng = np.random.default_rng([simulation, 2])
        truth = where.draw(rng, SYSTEMS)
        held_in(held, ways, predict(rng, truth, model).ravel(), truth.ravel(), true)
    return {key: float(np.mean(found)) for key, found in held.items()}


def of_same_systems(where, model, simulations):
    """The same for new clips of one draw of systems."""
    rng, held = np.random.default_rng(4), {}
    truth = where.draw(rng, SYSTEMS, 20_000)
    predicted = predict(rng, truth, model)
    true = {metric: float(measure(metric, predicted.reshape(1, -1), truth.ravel())[0]) for metric in METRICS}
    ways = {"unit: clip": both(SYSTEMS * CLIPS)}
    for _ in range(simulations):
        some = rng.integers(truth.shape[1], size=CLIPS)
        held_in(held, ways, predicted[:, some].ravel(), truth[:, some].ravel(), true)
    return {key: float(np.mean(found)) for key, found in held.items()}


def of_single_clips(where, model, simulations, clips=1000):
    """The same for clips each of a system of its own."""
    true, held = true_values(where, model, "utterance"), {}
    ways = {"unit: clip": both(clips)}
    for simulation in range(simulations):
        rng = np.random.default_rng([simulation, 3])
        truth = where.draw(rng, clips, 1)
        held_in(held, ways, predict(rng, truth, model).ravel(), truth.ravel(), true)
    return {key: float(np.mean(found)) for key, found in held.items()}


PARTS = {
    "systems": of_systems,
    "clips of new systems": of_clips,
    "clips of the same systems": of_same_systems,
    "single clips": of_single_clips,
}


def show(title, found):
    """One line for each kind of interval; returns the rates in percent by name."""
    for name in dict.fromkeys(key[0] for key in found):
        cells = "".join(f"{100 * found[name, metric]:>8.1f}" for metric in METRICS)
        print(f"{title:<42}{name:<14}{cells}", flush=True)
    return {f"{title}, {name}, {metric}": round(100 * rate, 2) for (name, metric), rate in found.items()}


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", nargs="?", help="official ratings of the evaluation set; synthetic ones otherwise")
    parser.add_argument("--json", action="store_true", help="one JSON object of coverages in percent as the last line")
    parser.add_argument("--quick", action="store_true", help="few simulations, within a minute")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--axes", default="PQ,PC,CE,CU", help="of the official ratings (default all)")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to run (default all)")
    options = parser.parse_args()
    simulations = 60 if options.quick else options.simulations
    axes = options.axes.split(",") if options.ratings else ["synthetic"]
    rates = {}
    print(f"{f'{simulations} simulations':<56}" + "".join(f"{metric:>8}" for metric in METRICS))
    for part in options.parts.split(","):
        for axis in axes:
            where = population(options.ratings, axis if axis in AXES else AXES[0])
            for model in MODELS if part == "systems" else ["strong"]:
                found = PARTS[part](where, model, simulations)
                rates |= show(f"{part}, {axis}, {model}", found)
    if options.json:
        print(json.dumps(rates))


if __name__ == "__main__":
    main()
