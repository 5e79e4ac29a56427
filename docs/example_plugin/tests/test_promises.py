"""What MMMOS relies on, and what is particular to this plug-in."""

import math

import torch
from mmmos_loudness.encoder import BANDS, RATE, Loudness
from mmmos_loudness.loss import log_cosh

from mmmos.testing import check_encoder, check_loss


def test_the_encoder_keeps_its_promises():
    check_encoder("loudness", device="cpu", long=10)


def test_the_loss_keeps_its_promises():
    check_loss("log_cosh")


def test_a_tone_is_loud_in_its_octave():
    time = torch.arange(RATE) / RATE
    tone = torch.sin(2 * math.pi * 750 * time)
    loudness, change = Loudness().encode(tone[None])[0]
    wanted = torch.zeros(BANDS)
    wanted[4] = 0.5**0.3  # 500 to 1000 Hz
    assert torch.allclose(loudness, wanted.expand_as(loudness), atol=0.02)
    assert torch.allclose(change, torch.zeros_like(change), atol=0.02)


def test_the_loss_is_half_the_square_of_a_small_error_and_a_large_error_less_log_2():
    errors = torch.tensor([[0.01], [50.0]])
    assert torch.allclose(log_cosh(errors, 0 * errors), torch.tensor([0.5e-4, 50 - math.log(2)]), atol=1e-7)
