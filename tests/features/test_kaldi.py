"""Kaldi's filter bank: a plain transcription in float64, the reference's numbers, and what the numbers mean."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from mmmos.features.encoders.kaldi import Fbank, mel_bank

TINY = Path(__file__).parents[1] / "data" / "beats_tiny"
FULL = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "encoders" / "BEATs_tiny_ref.npz"


@pytest.fixture(scope="module")
def fbank():
    return Fbank()


def noise(samples, rows=1, seed=0):
    return torch.rand(rows, samples, generator=torch.Generator().manual_seed(seed)) - 0.5


def slow_fbank(wave, rate, bins):
    """Log energies (frames, bins) frame by frame, bin by bin."""
    length, hop = round(0.025 * rate), round(0.010 * rate)
    size = 2 ** math.ceil(math.log2(length))

    def mel(hertz):
        return 1127 * math.log(1 + hertz / 700)

    edges = np.linspace(mel(20), mel(rate / 2), bins + 2)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / (length - 1))) ** 0.85
    rows = []
    for start in range(0, len(wave) - length + 1, hop):
        frame = np.asarray(wave[start : start + length], dtype=np.float64) * 32768
        frame = frame - frame.mean()
        frame = np.array([now - 0.97 * frame[max(i - 1, 0)] for i, now in enumerate(frame)])
        power = np.abs(np.fft.fft(frame * window, size)) ** 2
        row = []
        for left, centre, right in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for line in range(size // 2):
                place = mel(line * rate / size)
                if left < place < right:
                    rising = place <= centre
                    share = (place - left) / (centre - left) if rising else (right - place) / (right - centre)
                    energy += share * power[line]
            row.append(math.log(max(energy, 1.1920929e-07)))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize(("rate", "bins"), [(16_000, 128), (16_000, 40), (8000, 23)])
def test_energies_are_those_of_a_plain_transcription(rate, bins):
    waves = noise(rate // 10, 2)
    found = Fbank(rate, bins)(waves)
    wanted = np.stack([slow_fbank(wave.numpy(), rate, bins) for wave in waves])
    assert found.dtype == torch.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-3)


def assert_close_to_the_reference(found, wanted):
    """Normalised energies: exact to the rounding of a Fourier transform, which drowns bins 60 dB down."""
    gap = np.abs((found.numpy() - 15.41663) / (2 * 6.55582) - wanted)
    loud = wanted > wanted.max(-1, keepdims=True) - math.log(1e6) / (2 * 6.55582)
    assert found.shape == wanted.shape and loud.mean() > 0.85
    assert gap[loud].max() <= 1e-5 and gap.max() <= 3e-4 and gap.mean() <= 1e-6


def test_energies_are_those_of_the_reference(fbank):
    reference = np.load(TINY / "reference.npz")
    assert_close_to_the_reference(fbank(torch.from_numpy(reference["wav_3s"])), reference["fbank_3s"])


@pytest.mark.skipif(not FULL.exists(), reason="the full set of references is not here")
@pytest.mark.parametrize("case", ["3s", "12s"])
def test_energies_are_those_of_the_full_reference(fbank, case):
    reference = np.load(FULL)
    assert_close_to_the_reference(fbank(torch.from_numpy(reference[f"wav_{case}"])), reference[f"fbank_{case}"])


def test_silence_and_a_constant_are_at_the_floor(fbank):
    floor = math.log(1.1920929e-07)
    for level in (0.0, 0.25):
        np.testing.assert_allclose(fbank(torch.full((1, 800), level)).numpy(), floor, rtol=1e-6)


def test_whole_frames_only(fbank):
    for samples, frames in [(400, 1), (559, 1), (560, 2), (2800, 16), (48_000, 298)]:
        assert fbank(torch.zeros(1, samples)).shape == (1, frames, 128)
    assert [fbank.samples(frames) for frames in (1, 2, 16)] == [400, 560, 2800]


def test_ten_times_the_level_is_twenty_decibels(fbank):
    quiet = fbank(0.1 * noise(1600))
    # Some of the lowest triangles fall between two lines and hold nothing at any level.
    held = quiet > math.log(1e-6)
    torch.testing.assert_close(fbank(noise(1600))[held], quiet[held] + 2 * math.log(10), atol=1e-3, rtol=0)
    assert held.float().mean() > 0.9


@pytest.mark.parametrize("hertz", [300, 1000, 3000, 7000])
def test_a_tone_is_loudest_in_its_own_bin(fbank, hertz):
    tone = torch.sin(2 * math.pi * hertz / 16_000 * torch.arange(1600))
    mel = [1127 * math.log(1 + f / 700) for f in (20, 8000, hertz)]
    place = (mel[2] - mel[0]) / (mel[1] - mel[0]) * 129 - 1
    assert abs(int(fbank(tone[None]).mean(1).argmax()) - place) <= 1.5


def test_triangles_overlap_to_one():
    bank = mel_bank(16_000, 512, 40)
    inside = torch.arange(256) * 16_000 / 512
    held = (inside > 100) & (inside < 7500)
    assert bank.shape == (256, 40) and float(bank.min()) == 0 and float(bank.max()) <= 1
    torch.testing.assert_close(bank.sum(1)[held], torch.ones(int(held.sum())), atol=1e-4, rtol=0)


def test_a_wave_does_not_depend_on_its_batch(fbank):
    waves = noise(4000, 3)
    alone = torch.cat([fbank(wave[None]) for wave in waves])
    torch.testing.assert_close(fbank(waves), alone, atol=1e-5, rtol=0)


def test_no_state_to_load(fbank):
    assert not fbank.state_dict() and not list(fbank.parameters())
