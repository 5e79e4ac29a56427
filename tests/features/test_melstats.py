"""melstats: blocks of log-mel statistics, checked against librosa and numpy."""

import librosa
import numpy as np
import pytest
import torch
from scipy.fft import dct

from mmmos.features.encoders import encoder
from mmmos.features.encoders.melstats import BANDS, FFT, HOP, LAYERS, RATE


@pytest.fixture(scope="module")
def melstats():
    return encoder("melstats")


@pytest.fixture(scope="module")
def wave():
    """1.5 s of noise under a slow envelope, with a tone that comes and goes."""
    random = np.random.default_rng(0)
    time = np.arange(48_000) / RATE
    tone = np.sin(2 * np.pi * 1000 * time) * (time % 0.3 < 0.1)
    return (0.05 * random.normal(size=time.size) * (1 + np.sin(2 * np.pi * time)) + 0.2 * tone).astype(np.float32)


@pytest.fixture(scope="module")
def logmel(wave):
    """dB relative to the mean power (frames, bands), by librosa."""
    wave = wave - wave.mean()
    wave = wave / (np.sqrt(np.mean(wave**2)) + 1e-6)
    bands = {"n_mels": BANDS, "fmin": 30, "fmax": RATE / 2}
    power = librosa.feature.melspectrogram(
        y=wave, sr=RATE, n_fft=FFT, hop_length=HOP, pad_mode="constant", power=2.0, **bands
    )
    return 10 * np.log10(power.T / (power.mean() + 1e-10) + 1e-6)


def blocks(melstats, wave):
    states = melstats.encode(torch.from_numpy(np.asarray(wave, dtype=np.float32))[None])[0]
    assert torch.equal(states, states[:, :1].expand_as(states))
    return dict(zip(LAYERS, states[:, 0].numpy(), strict=True))


def test_blocks_are_what_their_names_say(melstats, wave, logmel):
    found = blocks(melstats, wave)
    delta = np.diff(logmel, axis=0)
    ordered = np.sort(logmel, axis=1)
    around = np.pad(logmel, ((0, 0), (1, 1)), mode="reflect")
    fine = logmel - (around[:, 2:] + around[:, :-2]) / 2
    cepstrum = dct(logmel, norm="ortho", axis=1)
    quantile = {share: np.quantile(logmel, share, axis=0) for share in (0.05, 0.1, 0.5, 0.9, 0.95)}
    centred = logmel - logmel.mean(0)
    scaled = centred / (logmel.std(0) + 0.3)
    wanted = {
        "bandmean": logmel.mean(0),
        "bandstd": logmel.std(0),
        "sorted": ordered.mean(0),
        "sorteddev": np.abs(ordered - ordered.mean(0)).mean(0),
        "range": quantile[0.95] - quantile[0.05],
        "q90rel": quantile[0.9] - quantile[0.5],
        "q10rel": quantile[0.1] - quantile[0.5],
        "absdelta": np.abs(delta).mean(0),
        "absdelta8": np.abs(logmel[8:] - logmel[:-8]).mean(0),
        "flux": np.sqrt((np.maximum(delta, 0) ** 2).mean(0)),
        "deltaq": np.quantile(delta, np.linspace(0, 1, BANDS)),
        "fine": np.abs(fine).mean(0),
        "finedev": np.abs(fine - fine.mean(0)).mean(0),
        "finemean": fine.mean(0),
        "bandcorr": np.append((scaled[:, 1:] * scaled[:, :-1]).mean(0), 0),
        "mfcc": cepstrum.mean(0),
        "mfccdev": np.abs(cepstrum - cepstrum.mean(0)).mean(0),
        "logcepabs": np.log(np.abs(cepstrum).mean(0) + 0.3),
        "logcepdev": np.log(np.abs(cepstrum - cepstrum.mean(0)).mean(0) + 0.3),
    }
    correlation = sum(np.correlate(band, band, "full")[len(logmel) - 1 :] for band in centred.T)
    lags = np.unique(np.logspace(0, np.log10(200), BANDS).round().astype(int))
    at_lags = np.append(correlation / correlation[0], np.zeros(200))[lags]
    wanted["modac"] = np.interp(np.linspace(0, 1, BANDS), np.linspace(0, 1, len(lags)), at_lags)
    assert set(wanted) == set(LAYERS)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=5e-3, err_msg=name)


def test_a_beat_shows_in_the_autocorrelation(melstats):
    random = np.random.default_rng(1)
    time = np.arange(3 * RATE) / RATE
    noise = 0.1 * random.normal(size=time.size)
    pulses = blocks(melstats, noise * (time % 0.5 < 0.05))["modac"]
    steady = blocks(melstats, noise)["modac"]
    # 64 lags from 1 to 200 frames, finer where they are short: entry 40 is near 0.5 s, entry 51 near 1 s.
    assert pulses[38:42].max() > 0.5 and pulses[43:50].max() < 0 and pulses[51] > 0.25
    assert np.abs(steady[20:]).max() < 0.2


def test_level_and_offset_do_not_matter(melstats, wave):
    one, other = blocks(melstats, wave), blocks(melstats, 0.01 * wave + 0.2)
    for name in LAYERS:
        np.testing.assert_allclose(other[name], one[name], atol=0.05, err_msg=name)


def test_frames_follow_the_length_and_a_batch_is_its_waves(melstats, wave):
    waves = torch.from_numpy(np.stack([wave, wave[::-1]]))
    states = melstats.encode(waves)
    assert states.shape == (2, melstats.spec.layers, 1 + wave.size // HOP, melstats.spec.dim)
    for row in range(2):
        assert torch.equal(states[row], melstats.encode(waves[row : row + 1])[0])


@pytest.mark.parametrize("samples", [FFT, FFT + 1, RATE, 10 * RATE])
@pytest.mark.parametrize("kind", ["silence", "constant", "click", "loud"])
def test_every_signal_gives_finite_blocks_that_are_not_all_zero(melstats, samples, kind):
    wave = np.zeros(samples, np.float32)
    wave += {"silence": 0, "constant": 0.5, "click": 0, "loud": 0}[kind]
    wave[samples // 2] += kind == "click"
    wave[::3] += 1000 * (kind == "loud")
    states = melstats.encode(torch.from_numpy(wave)[None])
    assert torch.isfinite(states).all() and states.any() and states.abs().max() < 1e4
