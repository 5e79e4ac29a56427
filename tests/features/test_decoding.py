"""Samples in memory pass through what files pass through."""

import numpy as np
import pytest
import soundfile

from mmmos import audio
from mmmos.errors import Rejected
from mmmos.features import decoding


def taken(stream):
    samples = np.concatenate(list(stream.blocks))
    return samples, stream.rate, stream.channels, dict(zip(audio.MEASURES, stream.measures().tolist(), strict=True))


@pytest.mark.parametrize("segment", [(None, None), (0.5, 1.25), (0.3, None), (None, 41.0)])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_samples_are_the_same_as_from_a_file(tmp_path, channels, segment):
    samples = np.random.default_rng(0).uniform(-1.5, 1.5, (44_100 * 42, channels)).astype(np.float32)
    if channels == 3:
        samples[:, 1:] = -samples[:, :1] / 2
    soundfile.write(tmp_path / "x.wav", samples, 44_100, "FLOAT")
    here = taken(decoding.of_samples(samples if channels > 1 else samples[:, 0], 44_100, *segment))
    with audio.stream(tmp_path / "x.wav", *segment) as stream:
        there = taken(stream)
    np.testing.assert_array_equal(here[0], there[0])
    assert here[1:3] == there[1:3]
    own = {"container", "declared"}
    assert {name: value for name, value in here[3].items() if name not in own} == {
        name: value for name, value in there[3].items() if name not in own
    }
    assert here[3]["cancel"] == (channels == 3)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_32", "DOUBLE"])
def test_integers_have_their_own_full_scale(tmp_path, subtype):
    kind = {"PCM_U8": np.uint8, "PCM_16": np.int16, "PCM_32": np.int32, "DOUBLE": np.float64}[subtype]
    draw = np.random.default_rng(0)
    if kind is np.float64:
        samples = draw.uniform(-1, 1, 4000)
    else:
        samples = draw.integers(np.iinfo(kind).min, np.iinfo(kind).max, 4000, kind, endpoint=True)
    shifted = (samples.astype(np.int16) - 128 << 8) if kind is np.uint8 else samples
    soundfile.write(tmp_path / "x.wav", shifted, 8000, subtype)
    np.testing.assert_array_equal(taken(decoding.of_samples(samples, 8000))[0], audio.read(tmp_path / "x.wav")[0])


@pytest.mark.parametrize(
    ("samples", "rate", "segment", "reason"),
    [
        (np.zeros(0), 8000, (None, None), "no_samples"),
        (np.zeros(100), 8000, (None, None), "too_short"),
        (np.full(8000, np.nan), 8000, (None, None), "non_finite"),
        (np.full(8000, 1e300), 8000, (None, None), "non_finite"),
        (np.zeros(8000), 1, (None, None), "bad_rate"),
        (np.zeros(8000), -8000, (None, None), "bad_rate"),
        (np.zeros((8000, 40)), 8000, (None, None), "bad_channels"),
        (np.zeros((8000, 0)), 8000, (None, None), "bad_channels"),
        (np.zeros(8000), 8000, (2.0, None), "bad_segment"),
        (np.zeros(8000), 8000, (0.5, 3.0), "bad_segment"),
        (np.zeros(8000), 8000, (0.5, 0.5), "bad_segment"),
    ],
)
def test_what_a_file_would_be_refused_for_samples_are(samples, rate, segment, reason):
    with pytest.raises(Rejected) as error:
        taken(decoding.of_samples(samples, rate, *segment))
    assert error.value.reason == reason
