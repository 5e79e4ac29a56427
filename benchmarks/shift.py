"""What the options against domain shift do: the recipe `quick` on `melstats` with and without each of them.

    python benchmarks/shift.py [FOLDER ...] [--json] [--quick]

A FOLDER holds train.csv, dev.csv, pam.csv and test.csv in the challenge's layout: natural clips to train on, a labelled
synthetic set, and the clips to predict, whose scores only this table reads. Without a FOLDER the demo corpora of
three seeds are used. Prints SRCC and MSE, means over axes, at system and utterance level.
"""

import argparse
import json
import logging
import tempfile
from pathlib import Path

NUMBERS = ("sys_SRCC", "utt_SRCC", "sys_MSE", "utt_MSE")
OPTIONS = {
    "quick": {},
    "importance for eval": {"target": "eval", "importance": True},
    "importance for pam": {"target": "pam", "importance": True},
    "leave_out 0.2 for eval": {"target": "eval", "leave_out": 0.2},
    "leave_out 0.2 for pam": {"target": "pam", "leave_out": 0.2},
}


def measure(folder, workspace):
    """The four numbers on test.csv of each option, by its name."""
    import mmmos
    from mmmos.ensembles.recipe import read_recipe
    from mmmos.ensembles.shift.anchoring import anchored
    from mmmos.metrics import summary

    truth = mmmos.read_manifest(str(folder / "test.csv"))
    sets = {"train": "train", "dev": "dev", "pam": "pam", "eval": "test"}
    sources = {name: str(folder / f"{file}.csv") for name, file in sets.items()}
    clips = mmmos.read_manifest(sources, labels={"train", "dev", "pam"})
    features = mmmos.extract(clips, ["melstats"], store=str(workspace / "features"))
    recipe, found = read_recipe("quick"), {}
    for option, changed in OPTIONS.items():
        grid = [entry.model_copy(update=changed) for entry in recipe.grid]
        own = recipe.model_copy(update={"grid": grid})
        pool = mmmos.train(own, features, clips, folder=str(workspace / "runs"), name=option.replace(" ", "-"))
        ensemble = mmmos.select(pool, own.select)
        answers = {option: ensemble.predict("eval")}
        if not changed:
            chosen = ensemble.selection
            parts = pool, chosen.members, chosen.weights, "eval", "pam"
            answers["calibrate on pam"] = anchored(*parts)
            answers["calibrate by domain"] = anchored(*parts, by_domain=True)
        found |= {each: summary(mmmos.evaluate(scores, truth)) for each, scores in answers.items()}
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--json", action="store_true", help="one JSON object of named numbers as the last line")
    parser.add_argument("--quick", action="store_true", help="one tiny corpus, within a minute")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    folders = options.folders
    if not folders:
        from mmmos import make_corpus

        seeds, size = ([0], "tiny") if options.quick else ([0, 1, 2], "small")
        made = Path(tempfile.mkdtemp())
        folders = [make_corpus(made / f"demo-{size}-{seed}", seed=seed, size=size).parent for seed in seeds]
    print(f"{'corpus':<16}{'option':<26}" + "".join(f"{name:>10}" for name in NUMBERS))
    gains = {}
    for folder in folders:
        with tempfile.TemporaryDirectory() as workspace:
            found = measure(folder, Path(workspace))
        for option, numbers in found.items():
            print(f"{folder.name:<16}{option:<26}" + "".join(f"{numbers[name]:10.3f}" for name in NUMBERS), flush=True)
            gains |= {
                f"{folder.name} {option} {name}": round(numbers[name] - found["quick"][name], 4)
                for name in NUMBERS
                if option != "quick"
            }
    if options.json:
        print(json.dumps(gains))


if __name__ == "__main__":
    main()
