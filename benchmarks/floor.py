"""The floor: what anyone would write in 40 lines, against `melstats` with the recipe `quick`, on the same clips.

    python benchmarks/floor.py [FOLDER ...] [--json] [--quick]

A FOLDER holds train.csv, dev.csv, pam.csv and test.csv in the challenge's layout. Both sides train on train.csv alone
(natural audio) and predict test.csv (synthetic); without a FOLDER the demo corpora of three seeds are used.
Prints mean SRCC over axes at system and utterance level for both, and ours minus the floor's.
"""

import argparse
import csv
import json
import logging
import tempfile
from pathlib import Path

AXES = {
    "PQ": "Production_Quality",
    "PC": "Production_Complexity",
    "CE": "Content_Enjoyment",
    "CU": "Content_Usefulness",
}


def floor(train, test):
    """Predictions (clips, 4) of the test list: mean and deviation of 64 log-mel bands, extremely randomised trees."""
    import librosa
    import numpy as np
    from sklearn.ensemble import ExtraTreesRegressor

    def features(row):
        wave, rate = librosa.load(train.parent / row["data_path"], sr=16000)
        logmel = librosa.power_to_db(librosa.feature.melspectrogram(y=wave, sr=rate, n_mels=64))
        return np.concatenate([logmel.mean(axis=1), logmel.std(axis=1)])

    rows = {path: list(csv.DictReader(path.open(encoding="utf-8-sig"))) for path in (train, test)}
    x = {path: np.stack([features(row) for row in rows[path]]) for path in rows}
    y = np.array([[float(row[axis]) for axis in AXES.values()] for row in rows[train]])
    model = ExtraTreesRegressor(500, random_state=0, n_jobs=-1).fit(x[train], y)
    return [row["sample_id"] for row in rows[test]], model.predict(x[test])


def ours(folder, workspace):
    """Scores of the test list from `mmmos run` with melstats and quick."""
    from mmmos import pipeline

    sets = {"train": "train", "dev": "dev", "pam": "pam", "eval": "test"}
    lines = ["[data]", *(f'{name} = ["{(folder / file).resolve()}.csv"]' for name, file in sets.items())]
    lines += ["[features]", 'recipe = "melstats"', "[ensembles]", 'recipe = "quick"']
    challenge = Path(workspace) / "challenge.toml"
    challenge.write_text("\n".join(lines))
    return pipeline.run(challenge, intervals=0).ensemble.predict("eval")


def compare(folder):
    """System and utterance SRCC, mean over axes, of the floor and of ours on one folder."""
    import pandas as pd

    from mmmos.metrics import evaluate, summary

    ids, values = floor(folder / "train.csv", folder / "test.csv")
    with tempfile.TemporaryDirectory() as workspace:
        predictions = {"floor": pd.DataFrame(values, index=ids, columns=list(AXES)), "mmmos": ours(folder, workspace)}
    truth = folder / "test.csv"
    found = {name: summary(evaluate(scores, str(truth))) for name, scores in predictions.items()}
    return {name: (scores["sys_SRCC"], scores["utt_SRCC"]) for name, scores in found.items()}


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
    print(f"{'corpus':<24}{'level':<12}{'floor':>8}{'mmmos':>8}{'gain':>8}")
    gains = {}
    for folder in folders:
        scores = compare(folder)
        for level, (low, high) in zip(("system", "utterance"), zip(*scores.values(), strict=True), strict=True):
            gains[f"{folder.name}_{level}_gain"] = round(high - low, 4)
            print(f"{folder.name:<24}{level:<12}{low:8.3f}{high:8.3f}{high - low:+8.3f}")
    if options.json:
        print(json.dumps(gains))


if __name__ == "__main__":
    main()
