"""Extraction with WavLM base: ours against the way Audiobox's inference works, on the same model, weights and clips.

    python benchmarks/encoders.py [--json] [--quick] [--clips N]

Weights are random (speed does not depend on them), clips are noise of 2–10 s at 44.1 kHz. The other side takes file by
file: decode, windowed-sinc resampling, zeros to 10 s with a mask, transformers' WavLM in float32, masked means of all
layers. Ours is `mmmos.extract`. Both run in one process, first in one thread each, and take turns; the best of the
rounds counts. The last lines compare what a user of this machine waits for: the other side with all cores in one
process, ours with its defaults. With a CUDA device, encoder throughput there as a share of the card's measured peak.
"""

import argparse
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import torch

import mmmos
from mmmos.features.spec import EncoderRecipe
from mmmos.resampling import resample

WINDOW, RATE = 160_000, 16_000
GFLOP_PER_SECOND = 14.8  # of WavLM base, a multiplication and an addition counted as two


def make_model(folder):
    """A WavLM base with random weights, in the layout of transformers."""
    from transformers import WavLMConfig, WavLMModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    model = WavLMModel(WavLMConfig()).eval()
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    return model


def make_clips(folder, count):
    """Clips of 2–10 s, spread evenly."""
    random, paths = np.random.default_rng(0), {}
    for number, seconds in enumerate(np.linspace(2, 10, count)):
        paths[f"c{number}"] = str(folder / f"c{number}.wav")
        soundfile.write(paths[f"c{number}"], random.standard_normal(round(seconds * 44_100)) * 0.1, 44_100)
    return pd.DataFrame({"path": paths})


def theirs(model, clips):
    """Layer means (layers, dim) of each clip from zero-padded, masked windows."""
    means = []
    for path in clips["path"]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        wave = torch.from_numpy(resample(samples.mean(1), rate, RATE, "sinc-hann"))
        for first in range(0, len(wave), WINDOW):
            window = wave[first : first + WINDOW]
            mask = (torch.arange(WINDOW) < len(window)).long()[None]
            padded = torch.nn.functional.pad(window, (0, WINDOW - len(window)))[None]
            with torch.inference_mode():
                states = model(padded, attention_mask=mask, output_hidden_states=True).hidden_states
            valid = model._get_feat_extract_output_lengths(mask.sum(1))
            means.append(torch.stack([state[0, : int(valid)].mean(0) for state in states]))
    return means


def ours(folder, clips, **settings):
    """The same through the store, which is fresh."""
    jobs = settings.pop("jobs", 1)
    with tempfile.TemporaryDirectory() as store:
        table = EncoderRecipe(encoder="wavlm", weights=str(folder), **settings)
        return mmmos.extract(clips, [table], store=store, device="cpu", jobs=jobs)


def seconds(function, *arguments, **settings):
    """Wall time of one call."""
    started = time.perf_counter()
    function(*arguments, **settings)
    return time.perf_counter() - started


@contextlib.contextmanager
def threads(count):
    """Torch with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def on_cpu(model, folder, clips, rounds):
    """Best seconds of each side; every round runs all of them in turn."""
    sides = {
        "theirs, 1 thread": lambda some: theirs(model, some),
        "ours float32, 1 thread": lambda some: ours(folder, some),
        "ours bfloat16, 1 thread": lambda some: ours(folder, some, precision="bfloat16"),
    }
    best = dict.fromkeys(sides, float("inf"))
    with threads(1):
        for _ in range(rounds):
            for name, run in sides.items():
                # One clip first, so that the model of this side is loaded and warm.
                run(clips.head(1))
                best[name] = min(best[name], seconds(run, clips))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with threads(cores):
        best["theirs, all cores"] = seconds(theirs, model, clips)
        best["ours float32, all cores"] = seconds(ours, folder, clips, jobs=0)
    return best


def on_gpu(folder):
    """Clips of 10 s a second and TFLOP/s of the encoder, and the peak of the card's matrix product, by precision."""
    from mmmos.features.encoders import encoder

    found = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        square = torch.randn(8192, 8192, device="cuda", dtype=dtype)
        peak = 2 * 8192**3 / cuda_seconds(lambda square=square: square @ square) / 1e12
        loaded = encoder("wavlm", weights=str(folder), device="cuda", precision=precision)
        for batch in (1, 16, 64):
            waves = torch.randn(batch, WINDOW, device="cuda") * 0.1
            rate = batch / cuda_seconds(lambda loaded=loaded, waves=waves: loaded.encode(waves).mean(2))
            found[precision, batch] = rate, rate * 10 * GFLOP_PER_SECOND / 1e3, peak
    return found


def cuda_seconds(run, rounds=5):
    """Best seconds of a call on the card."""
    best = float("inf")
    for _ in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object of named ratios as the last line")
    parser.add_argument("--quick", action="store_true", help="one round of 5 clips")
    parser.add_argument("--clips", type=int, default=12)
    options = parser.parse_args()
    count, rounds = (5, 1) if options.quick else (options.clips, 3)
    with tempfile.TemporaryDirectory() as scratch:
        model = make_model(Path(scratch))
        clips = make_clips(Path(scratch), count)
        total = sum(soundfile.info(path).duration for path in clips["path"])
        best = on_cpu(model, Path(scratch), clips, rounds)
        gpu = on_gpu(Path(scratch)) if torch.cuda.is_available() else {}
    print(f"{count} clips, {total:.0f} s of audio, CPU {torch.backends.cpu.get_cpu_capability()}")
    ratios = {}
    for name, taken in best.items():
        base = best["theirs, all cores" if "all cores" in name else "theirs, 1 thread"]
        print(f"{name:<28}{taken:8.1f} s{total / taken:8.1f} x real time{base / taken:8.2f} x")
        ratios[name.replace(",", "").replace(" ", "_")] = round(base / taken, 3)
    for (precision, batch), (rate, flops, peak) in gpu.items():
        card = f"{torch.cuda.get_device_name()}, {precision}, batch {batch}"
        print(f"{card:<48}{rate:8.0f} clips/s{flops:8.1f} of {peak:.0f} TFLOP/s ({flops / peak:.0%})")
        ratios[f"gpu_{precision}_{batch}_share"] = round(flops / peak, 3)
    if options.json:
        print(json.dumps(ratios))


if __name__ == "__main__":
    main()
