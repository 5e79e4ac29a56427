"""Features without a store: the same arrays as from one."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos import audio
from mmmos.errors import UsageError
from mmmos.features import decoding, encoding, held
from mmmos.features.extraction.extract import extract
from mmmos.features.extraction.work import feature_spec, load_encoders
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.features.threads import threads


def rows_of(path, spec, encoder):
    """The rows of a file, decoded and encoded here."""
    bench = encoding.Bench(spec, encoder, "cpu")
    with audio.stream(path) as stream, threads("cpu"):
        for _, start, wave in decoding.windows(stream.blocks, stream.rate, [spec], [encoding.cutter(spec)]):
            bench.add("x", start, wave)
    bench.complete("x")
    bench.flush()
    return encoding.joined(bench.finished()[0])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_arrays_are_those_that_come_back_from_a_store(make_fake, tmp_path, store, dtype):
    draw, paths = np.random.default_rng(0), {}
    for number, (seconds, rate) in enumerate([(0.11, 8000), (0.5, 8000), (3.21, 44_100), (14.1, 16_000)]):
        paths[f"c{number}"] = str(tmp_path / f"{number}.wav")
        soundfile.write(paths[f"c{number}"], draw.uniform(-0.5, 0.5, round(seconds * rate)), rate)
    own = {"frames": "all", "window": 0.2, "hop": 0.15}
    recipe = FeatureRecipe(
        encoders=[EncoderRecipe(encoder=make_fake().name, name="fake", **own), "melstats"], dtype=dtype
    )
    stored = extract(pd.DataFrame({"path": paths}), recipe, store=store, device="cpu")
    pairs = [
        (feature_spec(table, each), each)
        for table, each in zip(recipe.tables(), load_encoders(recipe.tables(), "cpu"), strict=True)
    ]
    specs = [spec for spec, _ in pairs]
    found = held.features(specs, {name: [rows_of(path, *pair) for pair in pairs] for name, path in paths.items()})
    assert found.ids == stored.ids and set(found.status["status"]) == {"done"}
    for name in ("fake", "melstats"):
        np.testing.assert_array_equal(found[name].raw, stored[name].raw)
        assert replace(found[name], raw=None, source=None) == replace(stored[name], raw=None, source=None)
        here, there = found.windows([name]), stored.windows([name])
        np.testing.assert_array_equal(here.arrays[0].raw, there.arrays[0].raw)
        np.testing.assert_array_equal(here.share, there.share)
        np.testing.assert_array_equal(here.first, there.first)
    for clip in range(len(paths)):
        for part in ("unit", "norm", "windows"):
            here, there = (getattr(each.frames("fake", clip), part) for each in (found, stored))
            np.testing.assert_array_equal(here, there)
            assert here.dtype == there.dtype
    with pytest.raises(UsageError, match="melstats keeps no frames"):
        found.frames("melstats", 0)


def test_part_of_a_clip_is_what_these_windows_alone_would_be(make_fake, tmp_path):
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    table = EncoderRecipe(encoder=make_fake().name, window=0.25, hop=0.25, frames="all")
    loaded = load_encoders([table], "cpu")[0]
    spec = feature_spec(table, loaded)
    whole, tail = (encoding.encode({"x": wave}, spec, loaded, "cpu")["x"] for wave in (signal, signal[4000:]))
    part = held.part_of(whole, [2, 3], 4000, 8000)
    for name in ("unit", "norm", "frames", "span", "frame_unit", "frame_norm"):
        np.testing.assert_array_equal(getattr(part, name), getattr(tail, name))
