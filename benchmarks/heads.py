"""Training many heads: ours against the loop of research code, alone and with the encoder in the loop.

    python benchmarks/heads.py [--json] [--quick] [--heads N] [--epochs N]

The task: 2,700 clips to learn and 250 held out, vectors of 2,560 numbers, a perceptron of 256 units, 4 axes, batches of
32, Adam at 1e-3, five losses; random vectors with a planted signal. The other side is a Dataset of dictionaries, a
DataLoader, the default Adam and one head after the other; losses, sizes and epochs are the same. Both run in one
process and one thread and take turns; CPU time counts, the best of the rounds. "bound": what no loop of torch in
float32 goes below, gathering a batch, the two large matrix products, and fused Adam on preallocated gradients.

Then the same heads in one process and in two; a grid of heads with early stopping and five folds, as a recipe trains
them; and the encoder in the loop: what 16 configurations cost when WavLM base (random weights) runs at every step, as
in released code, against encoding once. With a CUDA device: heads together against one after another.
"""

import argparse
import json
import os
import tempfile
import time

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.optim.adam import adam
from torch.utils.data import DataLoader, Dataset

import mmmos
from mmmos.ensembles.heads.inputs import Pooled, Standardiser
from mmmos.ensembles.heads.pooled import MLP
from mmmos.ensembles.losses import loss
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.training.engine import trainer
from mmmos.ensembles.training.engine.feeds import Member
from mmmos.ensembles.training.engine.trainer import feed_of
from mmmos.features.table import FeatureArray, Features
from mmmos.files import key_of

CLIPS, HELD, DIM, HIDDEN, BATCH = 2700, 250, 2560, 256, 32
LOSSES = ("mse", "mae_mse", "utmos", "ccc", "contrastive")
CONFIGURATIONS, EPOCHS_IN_THE_LOOP = 16, 10


def make_task(seed=0):
    """Vectors (clips, DIM) float32 and standardised scores (clips, 4) of which half the variance can be known."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((CLIPS + HELD, DIM)).astype(np.float32)
    y = x[:, :200] @ rng.standard_normal((200, 4)) / np.sqrt(200) + rng.standard_normal((CLIPS + HELD, 4))
    return x, (y - y.mean(0)) / y.std(0)


class Clips(Dataset):
    """What research code feeds its loop with."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return {"embedding": torch.from_numpy(self.x[index]), "scores": torch.from_numpy(self.y[index]).float()}


def research_loop(x, y, names, epochs):
    """Held-out loss of each head, trained one after the other."""
    train = DataLoader(Clips(x[:CLIPS], y[:CLIPS]), batch_size=BATCH, shuffle=True, drop_last=True)
    held = DataLoader(Clips(x[CLIPS:], y[CLIPS:]), batch_size=HELD)
    found = []
    for seed, name in enumerate(names):
        torch.manual_seed(seed)
        model, criterion = nn.Sequential(nn.Linear(DIM, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 4)), loss(name)
        adam, best = torch.optim.Adam(model.parameters(), lr=1e-3), float("inf")
        for _ in range(epochs):
            total = 0.0
            for batch in train:
                adam.zero_grad()
                value = criterion(model(batch["embedding"]), batch["scores"])
                value.backward()
                adam.step()
                total += value.item()
            with torch.no_grad():
                values = [criterion(model(batch["embedding"]), batch["scores"]).item() for batch in held]
            best = min(best, float(np.mean(values)))
        found.append(best)
    return found


def ours(x, y, names, epochs, together, device="cpu"):
    """The same by the engine, ``together`` heads in a stack."""
    found = []
    options = {"lr": 1e-3, "batch": BATCH, "epochs": epochs, "patience": epochs, "hidden": HIDDEN}
    learn, held = np.arange(CLIPS), np.arange(CLIPS, CLIPS + HELD)
    members = [
        Member(
            MLP(options=options, loss=name, seed=seed),
            Standardiser([], []),
            learn,
            held,
            CLIPS // BATCH,
            BATCH,
            (seed, 0),
        )
        for seed, name in enumerate(names)
    ]
    for first in range(0, len(members), together):
        some = members[first : first + together]
        feed = feed_of(Pooled([x[:, None]]), some, device)
        found += [each.loss for each in trainer.train(some, feed, [(1, DIM)], y, device=device)]
    return found


def bound(x, epochs):
    """The large operations of one head's steps, and nothing else."""
    table, room = torch.from_numpy(x[:CLIPS]), torch.empty(BATCH, DIM)
    weight, grad, mean, square = (torch.zeros(DIM, HIDDEN) for _ in range(4))
    hidden, step = torch.zeros(BATCH, HIDDEN), [torch.zeros(())]
    rule = {"beta1": 0.9, "beta2": 0.999, "lr": 1e-3, "weight_decay": 0.0, "eps": 1e-8}
    for _ in range(epochs):
        for rows in torch.randperm(CLIPS)[: CLIPS // BATCH * BATCH].split(BATCH):
            batch = torch.index_select(table, 0, rows, out=room)
            torch.mm(batch, weight, out=hidden)
            torch.mm(batch.T, hidden, out=grad)
            adam([weight], [grad], [mean], [square], [], step, fused=True, amsgrad=False, maximize=False, **rule)
    return [float("nan")]


def alone_and_together(heads, epochs, rounds):
    """CPU ms of a head's step for each way of training, and the mean held-out loss that it reached."""
    x, y = make_task()
    names = [LOSSES[number % len(LOSSES)] for number in range(heads)]
    ways = {"research loop": lambda: research_loop(x, y, names[: len(LOSSES)], epochs)}
    ways["bound"] = lambda: bound(x, epochs)
    ways |= {f"ours, {size} together": lambda size=size: ours(x, y, names, epochs, size) for size in (1, 2, 4, 8)}
    found = {name: {"ms": float("inf")} for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.process_time()
            losses = way()
            steps = len(losses) * epochs * (CLIPS // BATCH)
            found[name]["ms"] = min(found[name]["ms"], (time.process_time() - begin) / steps * 1000)
            found[name]["loss"] = float(np.mean(losses[: len(LOSSES)]))
    return found


def make_table(seed=0):
    """The task as features and a table of clips, as ``mmmos.train`` takes it."""
    x, y = make_task(seed)
    ids = [f"c{number}" for number in range(len(x))]
    clips = pd.DataFrame(5 + y, columns=list(mmmos.AXES), index=pd.Index(ids, name="id"))
    clips["set"] = ["train"] * CLIPS + ["dev"] * HELD
    array = FeatureArray("random", key_of("random"), ("0",), x[:, None])
    status = pd.DataFrame({"status": "done", "reason": "", "detail": "", "flags": ""}, index=ids)
    return Features(tuple(ids), tuple(map(key_of, ids)), {"random": array}, status), clips


def grid(heads, **options):
    """A recipe of ``heads`` perceptrons, the losses in turn."""
    seeds = list(range(-(-heads // len(LOSSES))))
    entry = {"head": "mlp", "loss": list(LOSSES), "seed": seeds, "normalise": "raw", "options": options}
    return EnsembleRecipe.model_validate({"grid": [entry]})


def seconds_of_training(recipe, features, clips, jobs):
    """Seconds on the clock to train a recipe from nothing."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        mmmos.train(recipe, features, clips, folder=folder, jobs=jobs)
        return time.perf_counter() - begin


def seconds_of_encoding(clips):
    """CPU seconds that WavLM base takes for a clip of 10 s, in one thread."""
    from transformers import WavLMConfig, WavLMModel

    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig()).eval()
    waves = torch.randn(clips, 160_000) * 0.1
    with torch.inference_mode():
        model(waves[:1])
        begin = time.process_time()
        for wave in waves:
            model(wave[None], output_hidden_states=True)
    return (time.process_time() - begin) / clips


def encoder_in_the_loop(clip, research, ours):
    """Ratios of the encoder in the loop over encoding once, from seconds of a clip and of a head's step."""
    steps, encodings = EPOCHS_IN_THE_LOOP * (CLIPS // BATCH), EPOCHS_IN_THE_LOOP * (CLIPS + HELD)
    theirs = CONFIGURATIONS * (encodings * clip + steps * research)
    once, training = (CLIPS + HELD) * clip, CONFIGURATIONS * steps * ours
    print(
        f"\nWavLM base takes {clip:.2f} CPU s for 10 s of audio. {CONFIGURATIONS} configurations of"
        f" {EPOCHS_IN_THE_LOOP} epochs over {CLIPS + HELD} clips, by these rates:\n"
        f"  with the encoder in the loop {theirs / 3600:.1f} CPU h; encoding once {once / 3600:.2f} h, training"
        f" {training / 60:.1f} min:\n"
        f"  {theirs / (once + training):.0f} times for the first grid, {theirs / training:.0f} times for every other"
    )
    return {
        "encoder_in_the_loop_over_first_time": round(theirs / (once + training), 1),
        "encoder_in_the_loop_over_stored": round(theirs / training),
    }


def on_gpu(heads, epochs):
    """Seconds on the clock of heads one after another and together on a CUDA device."""
    x, y = make_task()
    names = [LOSSES[number % len(LOSSES)] for number in range(heads)]
    ours(x, y, names[:5], 1, 5, "cuda")
    found = {}
    for label, some, size in (("one", names[:5], 1), ("all", names, heads)):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        ours(x, y, some, epochs, size, "cuda")
        torch.cuda.synchronize()
        found[label] = (time.perf_counter() - begin) / len(some)
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="few epochs and a small grid, within a minute")
    parser.add_argument("--heads", type=int, default=200, help="heads of the grid (default 200)")
    parser.add_argument("--epochs", type=int, default=3, help="of the comparison (default 3)")
    options = parser.parse_args()
    epochs, heads = (1, 20) if options.quick else (options.epochs, options.heads)
    torch.set_num_threads(1)
    ratios = {}
    found = alone_and_together(10, epochs, 1 if options.quick else 3)
    reference = found["research loop"]
    print(f"{'one thread, CPU time':<24}{'ms a step':>10}{'times':>8}{'held-out loss':>15}")
    for name, one in found.items():
        ratio = reference["ms"] / one["ms"]
        print(f"{name:<24}{one['ms']:>10.2f}{ratio:>8.2f}{one['loss']:>15.4f}")
        if name != "research loop":
            ratios[f"research_over_{name.replace(',', '').replace(' ', '_')}"] = round(ratio, 2)
    features, clips = make_table()
    few = grid(10 if options.quick else 40, epochs=epochs, patience=epochs)
    walls = [seconds_of_training(few, features, clips, jobs) for jobs in (1, 2)]
    ratios["two_processes"] = round(walls[0] / walls[1], 2)
    print(f"\n{len(few.specs(['random']))} heads × 5 folds: {walls[0]:.1f} s in one process, {walls[1]:.1f} s in two")
    if not options.quick:
        many = grid(heads, epochs=20, patience=5)
        wall = seconds_of_training(many, features, clips, os.cpu_count() or 1)
        ratios["minutes_of_the_grid"] = round(wall / 60, 2)
        print(
            f"{heads} heads × 5 folds, up to 20 epochs, patience 5: {wall / 60:.1f} min with {os.cpu_count()} processes"
        )
    best = min(one["ms"] for name, one in found.items() if name.startswith("ours")) / 1000
    clip = seconds_of_encoding(2 if options.quick else 6)
    ratios |= encoder_in_the_loop(clip, reference["ms"] / 1000, best)
    if torch.cuda.is_available():
        seconds = on_gpu(heads, epochs)
        ratios["gpu_one_after_another_over_together"] = round(seconds["one"] / seconds["all"], 1)
        print(f"\n{torch.cuda.get_device_name()}: {heads} heads together take {1000 * seconds['all']:.1f} ms a head")
        print(f"  one after another {1000 * seconds['one']:.1f} ms: {seconds['one'] / seconds['all']:.0f} times")
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
