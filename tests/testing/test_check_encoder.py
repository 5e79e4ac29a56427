"""check_encoder: what is sound passes, each kind of broken one is caught and named."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmmos.errors import UsageError
from mmmos.features.encoders import EncoderCard
from mmmos.features.spec import EncoderSpec
from mmmos.testing import check_encoder

SPEC = EncoderSpec("sound", "sound", rate=4000, layers=2, dim=3, hop=0.02, minimum=80, licence="MIT")


class Sound:
    """Two layers of three statistics of 20 ms frames."""

    spec = SPEC

    def encode(self, waves):
        frames = waves.unfold(1, 80, 80)
        low = torch.stack([frames.mean(2), frames.abs().mean(2), frames.square().mean(2).clamp_min(1e-12).sqrt()], 2)
        return torch.stack([low, low.tanh()], 1)


class AveragesTheBatch(Sound):
    def encode(self, waves):
        states = super().encode(waves)
        return states - states.mean(0, keepdim=True) + states.mean()


class ScalesByTheLoudestNeighbour(Sound):
    def encode(self, waves):
        return super().encode(waves / waves.abs().max().clamp_min(1e-5))


class DependsOnThePlace(Sound):
    def encode(self, waves):
        return super().encode(waves) + torch.arange(len(waves))[:, None, None, None]


class DividesByZero(Sound):
    def encode(self, waves):
        return super().encode(waves / waves.square().mean(1, keepdim=True).sqrt())


class Drops(Sound):
    def encode(self, waves):
        return torch.dropout(super().encode(waves), 0.1, train=True)


class Remembers(Sound):
    def __init__(self):
        self.mean = 0.0

    def encode(self, waves):
        self.mean = 0.9 * self.mean + 0.1 * float(waves.abs().mean())
        return super().encode(waves) + self.mean


class WritesToItsInput(Sound):
    def encode(self, waves):
        waves -= waves.mean(1, keepdim=True)
        return super().encode(waves)


class GivesDoubles(Sound):
    def encode(self, waves):
        return super().encode(waves).double()


class CarriesGradients(Sound):
    def encode(self, waves):
        return super().encode(waves) * torch.ones(1, requires_grad=True)


class HasAnotherDimension(Sound):
    spec = replace(SPEC, dim=4)


class NeedsMoreThanItSays(Sound):
    spec = replace(SPEC, minimum=40)


class CountsFramesWrongly(Sound):
    spec = replace(SPEC, hop=0.04)


class IgnoresItsInput(Sound):
    def encode(self, waves):
        return 0 * super().encode(waves) + 1


class BeginsByChance(Sound):
    def __init__(self):
        self.weight = torch.rand(3)

    def encode(self, waves):
        return super().encode(waves) * self.weight


class SeedsTheProcess(Sound):
    def encode(self, waves):
        torch.manual_seed(0)
        return super().encode(waves) + torch.rand(1)


class NamesLayersTwice(Sound):
    spec = replace(SPEC, layer_names=("a", "a"))


class TiresInTheLongRun(Sound):
    """Right at first, wrong from the hundredth call on."""

    def __init__(self):
        self.calls = 0

    def encode(self, waves):
        self.calls += 1
        return super().encode(waves) * (1 if self.calls < 100 else 0.5)


class KeepsItsInput(Sound):
    """Right in one thread."""

    def encode(self, waves):
        self.waves = waves
        time.sleep(0.002)
        return super().encode(self.waves)


BROKEN = {
    KeepsItsInput: "threads_do_not_matter: in one of four threads: numbers differ",
    AveragesTheBatch: "neighbours_do_not_matter: at place 0 of a batch of 4: numbers differ",
    ScalesByTheLoudestNeighbour: "neighbours_do_not_matter",
    DependsOnThePlace: "neighbours_do_not_matter: at place 1",
    DividesByZero: "any_audio_gives_finite_states: silence gave",
    Drops: "the_same_wave_gives_the_same_bits",
    Remembers: "the_same_wave_gives_the_same_bits",
    WritesToItsInput: "the_input_is_left_alone: the given waves were changed",
    GivesDoubles: "states_have_the_shape_of_the_spec: states are torch.float64",
    CarriesGradients: "states_have_the_shape_of_the_spec: states carry gradients",
    HasAnotherDimension: r"states of two waves are \(2, 2, 100, 3\); by the spec they are \(2, 2, 'frames', 4\)",
    NeedsMoreThanItSays: "the_shortest_input_gives_a_frame",
    CountsFramesWrongly: "frames_are_a_hop_apart: 2 s gave 100 frames; spec.hop = 0.04 s means about 50",
    IgnoresItsInput: "the_input_matters: two different waves gave the same states",
    BeginsByChance: "loading_again_gives_the_same_encoder: loaded a second time",
    SeedsTheProcess: "the_process_is_left_as_it_was: encoding changed the random state",
    NamesLayersTwice: "the_spec_is_complete: 2 layers need as many different names",
    TiresInTheLongRun: "long_input_is_cut_into_windows: windows of a long signal",
}


def test_a_sound_encoder_passes_also_with_an_hour_of_audio():
    check_encoder(Sound, device="cpu")


@pytest.mark.parametrize(("broken", "said"), BROKEN.items(), ids=lambda part: getattr(part, "__name__", ""))
def test_a_broken_encoder_is_caught(broken, said):
    with pytest.raises(AssertionError, match=said):
        check_encoder(broken, device="cpu", long=400.0)


def test_the_embedded_encoder_passes():
    check_encoder("melstats", device="cpu", long=20.0)


def test_an_encoder_in_a_file_is_checked_by_its_name(tmp_path):
    (tmp_path / "mine.py").write_text("CARD = 3")
    with pytest.raises(UsageError, match="is no EncoderCard but int"):
        check_encoder(f"{tmp_path}/mine.py:CARD", device="cpu")


def test_a_card_is_checked():
    check_encoder(EncoderCard("sound", "sound", lambda *rest: Sound(), "MIT", 4000), device="cpu", long=20.0)
    with pytest.raises(AssertionError, match=r"states_have_the_shape_of_the_spec: states are .*float64"):
        check_encoder(EncoderCard("wide", "wide", lambda *rest: GivesDoubles(), "MIT", 4000), device="cpu", long=20.0)


class SeedsNumpy(Sound):
    def encode(self, waves):
        np.random.seed(0)
        return super().encode(waves)


def test_random_states_of_numpy_are_watched():
    with pytest.raises(AssertionError, match="encoding changed the random state of numpy"):
        check_encoder(SeedsNumpy, device="cpu", long=20.0)
