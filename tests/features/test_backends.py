"""The same extraction on a cluster: the same bytes and the same status as in this process."""

import numpy as np
import pandas as pd
import pytest
import soundfile

from mmmos.features.extraction import settle
from mmmos.features.extraction.extract import complete, extract
from mmmos.features.extraction.options import Options
from mmmos.features.spec import EncoderRecipe, FeatureRecipe
from mmmos.parallel import Workers


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_cluster_leaves_the_store_of_one_process(backend, make_fake, make_clips, tmp_path, monkeypatch):
    """With relative paths of audio, plug-in and store, which only the driver understands."""
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    monkeypatch.setattr(settle, "CHUNK", 2)
    monkeypatch.chdir(tmp_path)
    make_fake("mine"), make_clips(7, seconds=1.3, rate=22_050, kind="mp3")
    soundfile.write("short.wav", np.zeros(100), 8000)
    clips = pd.DataFrame(
        {"path": [*(f"audio/c{number}.mp3" for number in range(7)), "short.wav"]}, index=list("abcdefgh")
    )
    recipe = FeatureRecipe(encoders=["melstats", EncoderRecipe(encoder="mine.py:FAKE")], window=0.5)
    whole = extract(clips, recipe, store="whole", device="cpu", jobs=1)
    options = Options("cpu", Workers(backend, jobs=2, logs="logs"))
    parts = [complete(clips, recipe, store="shards", options=options, shard=f"{number}/3") for number in (2, 3, 1)]
    pd.testing.assert_frame_equal(pd.concat(parts).loc[clips.index], whole.status)
    monkeypatch.setattr(settle, "encode_chunk", None)
    shards = extract(clips, recipe, store="shards", device="cpu", jobs=1)
    pd.testing.assert_frame_equal(shards.status, whole.status)
    for name in ("melstats", "FAKE"):
        rows, expected = (features[name].source.gather(whole.keys) for features in (shards, whole))
        for column in ("unit", "norm", "frames", "span", "clip"):
            np.testing.assert_array_equal(getattr(rows, column), getattr(expected, column))
    lines = "\n".join(file.read_text() for file in tmp_path.glob("logs/*"))
    assert lines.count(" begins") == lines.count(" ends after ") == 5
