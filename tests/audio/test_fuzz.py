"""Damaged files of every kind: each gives samples or one known reason, and never harms the process that asks."""

import os
import shutil
import sys

import numpy as np
import pytest

from mmmos import audio
from mmmos.audio import isolated
from mmmos.errors import Rejected

resource = pytest.importorskip("resource", reason="memory is measured by POSIX")
SOAK = int(os.environ.get("MMMOS_SOAK", "1"))
SEEDS = {
    "wav": ("WAV", "PCM_16"),
    "float.wav": ("WAVEX", "FLOAT"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_24"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", None),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "ULAW"),
    "caf": ("CAF", "ALAC_16"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
}
ODD = (0, 1, 0x7F, 0x80, 0xFF)


def mutant(content, random):
    """A copy with damage: bits, odd bytes in the header, pieces cut out, doubled, zeroed or put elsewhere."""
    data = bytearray(content)
    for _ in range(random.integers(1, 6)):
        at, length = random.integers(0, max(len(data), 1)), random.integers(1, 64)
        kind = random.integers(0, 8)
        if kind == 0 and data:
            data[at] ^= 1 << random.integers(0, 8)
        elif kind in (1, 2) and data:
            data[random.integers(0, min(len(data), 128))] = random.choice(ODD)
        elif kind == 3 and len(data) > 132:
            place = random.integers(0, 128)
            data[place : place + 4] = bytes([random.choice(ODD)]) * 4
        elif kind == 4:
            del data[at : at + length]
        elif kind == 5:
            data[at:at] = data[max(at - length, 0) : at]
        elif kind == 6:
            data[at : at + length] = random.bytes(min(length, len(data) - at))
        elif kind == 7:
            del data[at:]
    return bytes(data)


@pytest.mark.parametrize("kind", SEEDS)
def test_a_damaged_file_gives_samples_or_a_known_reason(put, noise, tmp_path, kind):
    format, subtype = SEEDS[kind]
    seed = put(tmp_path / "seed", noise(0.5, 16_000, 2), 16_000, subtype, format).read_bytes()
    random = np.random.default_rng(list(kind.encode()))
    path, outcomes = tmp_path / f"mutant.{kind}", set()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(40 * SOAK):
        content = mutant(seed, random)
        path.write_bytes(content)
        try:
            with isolated.stream(path) as clip:
                samples = np.concatenate(list(clip.blocks))
                measures = clip.measures()
            assert np.isfinite(samples).all() and len(samples) >= 0.1 * clip.rate
            assert measures[0] == len(samples) / clip.rate
            outcomes.add("samples")
        except Rejected as error:
            assert error.reason in audio.REASONS, number
            if error.reason in audio.FAILED:
                shutil.copy(path, tmp_path / f"{error.reason}-{number}.{kind}")
            outcomes.add(error.reason)
    assert len(outcomes) > 1 or kind == "adpcm.wav"
    assert not outcomes & {"missing", "unreadable", "changed", "encoder_failed", "needs_ffmpeg"}
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < 300e6
    (tmp_path / "sound.wav").write_bytes(put(tmp_path / "a.wav").read_bytes())
    with isolated.stream(tmp_path / "sound.wav") as clip:
        assert sum(map(len, clip.blocks)) == 16_000
