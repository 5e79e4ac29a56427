"""Encoders by name: every card is complete, every mistake is a sentence."""

from importlib import import_module
from inspect import signature
from pathlib import Path
from threading import Event, Thread

import pytest
import torch

from mmmos.errors import SetupError, UnknownName, UsageError
from mmmos.features.encoders import Deferred, Encoder, EncoderCard, card, cards, encoder, find_device, load
from mmmos.features.encoders.base import exact


def test_every_card_says_what_a_user_must_know():
    for each in cards():
        assert each.licence and each.rate > 0 and each.minimum > 0
        assert bool(each.revision) == (each.weights[:8] not in ("", "https://")), each.name
        assert each.weights or not each.sha256
        assert len(each.revision) in (0, 40) and len(each.sha256) in (0, 64)


def test_every_card_knows_the_code_of_its_network():
    families = ("audiobox", "beats", "muq", "wavlm")
    networks = {family: import_module(f"mmmos.features.encoders.{family}") for family in families}
    for each in cards():
        assert list(signature(each.load).parameters)[:4] == ["card", "weights", "revision", "device"]
        assert each.rate == getattr(networks.get(each.family), "RATE", each.rate), each.name
    assert card("muq").minimum == networks["muq"].FFT // 2 + 1


def test_code_that_is_not_there_is_named():
    mine = EncoderCard("mine", "mine", Deferred("mmmos.nowhere:load"), "MIT", 8000)
    with pytest.raises(SetupError, match=r"code of an encoder .* 'mmmos\.nowhere:load'.* mend load in its card"):
        load(mine)


def test_the_embedded_encoder_needs_nothing():
    found = encoder("melstats", device="cpu")
    assert isinstance(found, Encoder)
    assert (found.spec.weights, found.spec.sha256) == ("", "")


def test_an_unknown_encoder_is_named():
    with pytest.raises(UnknownName, match=r"There is no encoder 'wavlm-bas-plus'\. Did you mean 'wavlm-base-plus'\?"):
        encoder("wavlm-bas-plus")


def test_a_plugin_that_is_no_encoder_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("CARD = 3")
    with pytest.raises(UsageError, match="is no EncoderCard but int"):
        encoder(f"{tmp_path}/mine.py:CARD")


def test_devices_are_found_or_refused():
    assert find_device("cpu") == "cpu"
    assert find_device("auto").split(":")[0] in {"cpu", "cuda", "mps"}
    for device in ("cuda:99", "gpu", "cpu:x"):
        with pytest.raises(UsageError, match=f"The device '{device}' cannot be used"):
            find_device(device)


def test_a_licence_that_forbids_commerce_is_said_once(make_fake, caplog):
    fake = make_fake("restricted", commercial=False)
    for _ in range(3):
        encoder(fake.name, device="cpu")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "may not be used commercially (for no use at all)" in caplog.text


def test_what_the_process_allows_of_precision_changes_no_number():
    torch.manual_seed(0)
    wave, tiny = torch.rand(1, 32_000) - 0.5, Path(__file__).parents[1] / "data" / "wavlm_tiny"
    loaded, allowed = encoder("wavlm", weights=str(tiny), device="cpu"), torch.backends.mkldnn.matmul
    before, states = allowed.fp32_precision, loaded.encode(wave)
    try:
        allowed.fp32_precision = "bf16"
        assert torch.equal(loaded.encode(wave), states)
        assert allowed.fp32_precision == "bf16"
    finally:
        allowed.fp32_precision = before
    assert not loaded.encode(wave).requires_grad


def test_what_the_process_allows_is_restored_by_the_last_who_leaves():
    allowed = torch.backends.mkldnn.matmul
    before = allowed.fp32_precision
    inside, left = Event(), Event()

    def first():
        with exact():
            inside.set()
            left.wait(10)

    try:
        allowed.fp32_precision = "bf16"
        thread = Thread(target=first)
        thread.start()
        assert inside.wait(10)
        with exact():
            left.set()
            thread.join()
            assert allowed.fp32_precision == "ieee"
        assert allowed.fp32_precision == "bf16"
    finally:
        allowed.fp32_precision = before
