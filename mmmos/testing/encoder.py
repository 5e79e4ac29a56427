"""``check_encoder`` holds any encoder, ours or another's, to the promises of the store."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import numpy as np

from mmmos.features import encoding
from mmmos.features.encoders import Encoder, EncoderCard, encoder, find_device
from mmmos.features.encoders import load as load_card
from mmmos.features.spec import EncoderSpec, FeatureSpec
from mmmos.features.threads import threads
from mmmos.files import canonical_json
from mmmos.testing.promises import hold, unchanged_process

GPU_TOLERANCE = 1e-5
BATCH_TOLERANCE = 1e-5

Loader = Callable[[], Encoder]


def check_encoder(
    subject: str | EncoderCard | Loader, weights: str | None = None, *, device: str = "auto", long: float = 3600.0
) -> None:
    """Raise ``AssertionError`` with a sentence for each promise that an encoder breaks.

    ``subject``: a registered encoder, one in a local file (``mine.py:Mine``), a card, or a class or function that makes
    one without arguments.
    ``weights``: as in ``mmmos.encoder``. ``long``: s of the long input, which a large model may want shorter.
    """
    device = find_device(device)

    def load() -> Encoder:
        if isinstance(subject, EncoderCard):
            return load_card(subject, weights, device=device)
        return encoder(subject, weights, device=device) if isinstance(subject, str) else subject()

    hold(_Subject(load(), load, device, long), CHECKS)


class _Subject:
    """The encoder under test and inputs that fit it."""

    def __init__(self, loaded: Encoder, load: Loader, device: str, long: float) -> None:
        self.encoder, self.load, self.device, self.long = loaded, load, device, long

    @property
    def spec(self) -> EncoderSpec:
        return self.encoder.spec

    @property
    def window(self) -> float:
        """s of a window that the encoder takes, 2 s where it can."""
        longest = self.spec.maximum / self.spec.rate or 2.0
        return min(max(2.0, self.spec.minimum / self.spec.rate), longest)

    def noise(self, samples: int | None = None, seed: int = 0) -> np.ndarray:
        """Noise at -20 dB full scale, as long as a window."""
        samples = round(self.window * self.spec.rate) if samples is None else samples
        return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * np.float32(0.1)

    def states(self, *waves: np.ndarray) -> np.ndarray:
        """States of a batch."""
        import torch

        return self.encoder.encode(torch.from_numpy(np.stack(waves))).detach().cpu().numpy()

    def rows(self, **signals: np.ndarray) -> dict[str, np.ndarray]:
        """Raw window vectors of signals, by the same way that extraction takes."""
        found = encoding.encode(
            signals, FeatureSpec("check", self.spec, self.window, self.window, "float32"), self.encoder, self.device
        )
        assert all(found.values()), f"no sound vectors for {[key for key, rows in found.items() if rows is None]}"
        return {key: rows.unit * rows.norm[..., None] for key, rows in found.items() if rows}

    def same(self, one: np.ndarray, other: np.ndarray, tolerance: float, what: str) -> None:
        """Equal in every bit for a tolerance of 0, else within it relative to the largest number."""
        assert one.shape == other.shape, f"{what}: shape {one.shape} became {other.shape}"
        gap = float(np.abs(one - other).max())
        allowed = tolerance * float(np.abs(one).max())
        assert gap <= allowed, f"{what}: numbers differ by {gap:.2g}, allowed is {allowed:.2g}"


def the_spec_is_complete(subject: _Subject) -> None:
    """``spec`` is an EncoderSpec with sound facts that can be written as JSON."""
    spec = subject.spec
    assert isinstance(spec, EncoderSpec), f"spec is {type(spec).__name__}, not EncoderSpec"
    for name in ("rate", "layers", "dim", "hop", "minimum"):
        assert getattr(spec, name) > 0, f"spec.{name} is {getattr(spec, name)!r}; it must be positive"
    assert spec.maximum == 0 or spec.maximum >= spec.minimum, f"spec.maximum {spec.maximum} is below spec.minimum"
    names = spec.names()
    assert len(set(names)) == spec.layers, f"{spec.layers} layers need as many different names; got {names}"
    canonical_json(asdict(spec))


def states_have_the_shape_of_the_spec(subject: _Subject) -> None:
    """States are (batch, layers, frames, dim) float32 without gradients."""
    import torch

    spec, wave = subject.spec, subject.noise()
    states = subject.encoder.encode(torch.from_numpy(np.stack([wave, wave])))
    wanted = (2, spec.layers, "frames", spec.dim)
    fits = states.ndim == 4 and (*states.shape[:2], states.shape[3]) == (2, spec.layers, spec.dim)
    assert fits, f"states of two waves are {tuple(states.shape)}; by the spec they are {wanted}"
    assert states.dtype == torch.float32, f"states are {states.dtype}, not float32"
    assert not states.requires_grad, "states carry gradients; encode under torch.inference_mode()"


def frames_are_a_hop_apart(subject: _Subject) -> None:
    """``spec.hop`` agrees with the number of frames."""
    frames, wanted = subject.states(subject.noise()).shape[2], subject.window / subject.spec.hop
    assert abs(frames - wanted) <= 2 + 0.1 * wanted, (
        f"{subject.window:g} s gave {frames} frames; spec.hop = {subject.spec.hop:g} s means about {wanted:.0f}"
    )


def any_audio_gives_finite_states(subject: _Subject) -> None:
    """Silence, a constant, the faintest noise, full scale and far beyond it give finite states."""
    wave = subject.noise()
    kinds = {
        "silence": 0 * wave,
        "a constant": 0 * wave + 0.5,
        "faint noise": wave * 1e-7,
        "full scale": np.sign(wave),
        "40 dB too loud": wave * 1000,
    }
    for kind, input in kinds.items():
        states = subject.states(input.astype(np.float32))
        assert np.isfinite(states).all(), f"{kind} gave {int((~np.isfinite(states)).sum())} NaN or infinite numbers"


def the_input_matters(subject: _Subject) -> None:
    """Other audio gives other states."""
    one, other = subject.states(subject.noise(seed=1)), subject.states(subject.noise(seed=2))
    assert not np.array_equal(one, other), "two different waves gave the same states"


def the_input_is_left_alone(subject: _Subject) -> None:
    """The waves given in are not written to."""
    import torch

    wave = torch.from_numpy(subject.noise()[None])
    before = wave.clone()
    subject.encoder.encode(wave)
    assert torch.equal(wave, before), "the given waves were changed in place"


def the_same_wave_gives_the_same_bits(subject: _Subject) -> None:
    """Nothing is random and nothing is remembered from call to call."""
    wave = subject.noise()
    first = subject.states(wave)
    subject.states(subject.noise(seed=1) * 5)
    subject.states(subject.noise(max(len(wave) // 2, subject.spec.minimum), seed=2))
    subject.same(first, subject.states(wave), 0 if subject.device == "cpu" else GPU_TOLERANCE, "the same wave again")


def loading_again_gives_the_same_encoder(subject: _Subject) -> None:
    """Weights come from a file or a formula, never from chance."""
    other, wave = _Subject(subject.load(), subject.load, subject.device, subject.long), subject.noise()
    assert other.spec == subject.spec, f"a second load gave another spec: {other.spec}"
    tolerance = 0 if subject.device == "cpu" else GPU_TOLERANCE
    subject.same(subject.states(wave), other.states(wave), tolerance, "loaded a second time")


def neighbours_do_not_matter(subject: _Subject) -> None:
    """In a batch with strangers of any level, at any place in it, a wave's states are those it has alone."""
    wave = subject.noise()
    alone = subject.states(wave)
    strangers = [subject.noise(seed=1) * 10, 0 * wave, subject.noise(seed=2) * 1e-4]
    for place in range(len(strangers) + 1):
        batch = [*strangers[:place], wave, *strangers[place:]]
        got = subject.states(*batch)[place : place + 1]
        subject.same(alone, got, BATCH_TOLERANCE, f"at place {place} of a batch of {len(batch)}")


def order_does_not_matter(subject: _Subject) -> None:
    """Signals of mixed lengths, encoded as extraction does it, in any order, have the numbers that they have alone."""
    rate, minimum = subject.spec.rate, subject.spec.minimum
    lengths = [minimum, round(0.7 * subject.window * rate), round(2.3 * subject.window * rate), minimum + 1]
    signals = {f"s{seed}": subject.noise(max(length, minimum), seed) for seed, length in enumerate(lengths)}
    together, tolerance = subject.rows(**signals), 0 if subject.device == "cpu" else GPU_TOLERANCE
    backwards = subject.rows(**dict(reversed(signals.items())))
    for key, signal in signals.items():
        alone = subject.rows(**{key: signal})[key]
        subject.same(alone, together[key], tolerance, f"{len(signal)} samples among others")
        subject.same(alone, backwards[key], tolerance, f"{len(signal)} samples among others in reverse order")


def threads_do_not_matter(subject: _Subject) -> None:
    """Waves encoded at once in several threads have the states that they have one after the other."""
    waves, tolerance = [subject.noise(seed=seed) for seed in range(8)], 0 if subject.device == "cpu" else GPU_TOLERANCE
    with threads(subject.device):
        wanted = [subject.states(wave) for wave in waves]
    with threads(subject.device, 4), ThreadPoolExecutor(4) as pool:
        for one, other in zip(wanted, pool.map(subject.states, waves), strict=True):
            subject.same(one, other, tolerance, "in one of four threads")


def the_shortest_input_gives_a_frame(subject: _Subject) -> None:
    """``spec.minimum`` samples give a frame; a signal of one sample is filled up to them."""
    minimum = subject.spec.minimum
    frames = subject.states(subject.noise(minimum)).shape[2]
    assert frames >= 1, f"{minimum} samples, which is spec.minimum, gave no frame"
    assert len(subject.rows(one=np.array([0.5], np.float32))["one"]) == 1


def long_input_is_cut_into_windows(subject: _Subject) -> None:
    """A very long signal gives one row for each window, and each row is what the window alone gives."""
    window = round(subject.window * subject.spec.rate)
    short = subject.noise(window)
    count = max(int(subject.long / subject.window), 2)
    rows = subject.rows(long=np.tile(short, count))["long"]
    assert len(rows) == count, f"{count} windows gave {len(rows)} rows"
    tolerance = 0 if subject.device == "cpu" else GPU_TOLERANCE
    subject.same(
        np.repeat(subject.rows(short=short)["short"], count, axis=0), rows, tolerance, "windows of a long signal"
    )


def the_process_is_left_as_it_was(subject: _Subject) -> None:
    """Encoding leaves torch's random state, default dtype, threads and gradient mode alone."""
    with unchanged_process("encoding"):
        subject.states(subject.noise())


CHECKS: tuple[Callable[[_Subject], None], ...] = (
    the_spec_is_complete,
    states_have_the_shape_of_the_spec,
    frames_are_a_hop_apart,
    any_audio_gives_finite_states,
    the_input_matters,
    the_input_is_left_alone,
    the_same_wave_gives_the_same_bits,
    loading_again_gives_the_same_encoder,
    neighbours_do_not_matter,
    order_does_not_matter,
    threads_do_not_matter,
    the_shortest_input_gives_a_frame,
    long_input_is_cut_into_windows,
    the_process_is_left_as_it_was,
)
