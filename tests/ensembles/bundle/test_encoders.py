"""The encoders of a bundle: found where they are, refused where they are others, missed with all that helps."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants

from mmmos.ensembles.bundle import encoders, read_bundle
from mmmos.ensembles.bundle.about import FeatureSet, encoder_facts
from mmmos.errors import SetupError, StoreError, UnknownName, UsageError
from mmmos.features import spec as feature_spec
from mmmos.features.encoders import encoder
from mmmos.features.spec import FeatureSpec

TINY = Path(__file__).parents[2] / "data" / "wavlm_tiny"


def feature_set(name="wavlm", weights=str(TINY), recorded="wavlm_tiny", **changes) -> FeatureSet:
    """The feature set of an encoder as an export records it."""
    facts = encoder(name, weights or None, device="cpu").spec
    spec = FeatureSpec("a", facts, 4.0, 2.0, "float32", (facts.names()[-1],))
    fields = {
        "name": "a",
        "encoder": name,
        "weights": recorded,
        "window": spec.window,
        "hop": spec.hop,
        "dtype": spec.dtype,
        "frames": spec.frames,
        "facts": encoder_facts(facts, recorded),
        "fingerprint": spec.fingerprint,
        "commercial": True,
    }
    return FeatureSet.model_validate(fields | changes)


def load(each, given=None, places=()):
    return encoders.load(each, given or {}, places, "cpu", "0.1.0")


def test_an_encoder_without_weights_is_loaded_as_it_was():
    each = feature_set("melstats", "", "")
    loaded = load(each)
    assert loaded.spec.fingerprint == each.fingerprint == each.spec().fingerprint
    assert (loaded.spec.window, loaded.spec.hop, loaded.spec.frames) == (4.0, 2.0, each.frames)
    assert loaded.encoder.spec.name == "melstats"


@pytest.mark.parametrize("given", [{"a": TINY}, {"wavlm": str(TINY)}, {"a": TINY, "wavlm": "/nowhere"}])
def test_given_weights_go_before_recorded_ones(given):
    assert load(feature_set(), given).spec.encoder.sha256 == feature_set().facts.sha256


def test_local_weights_are_found_by_their_name_beside_the_bundle_and_in_the_current_folder(tmp_path):
    shutil.copytree(TINY, tmp_path / "wavlm_tiny")
    each = feature_set()
    assert load(each, places=(tmp_path / "elsewhere", tmp_path)).spec.fingerprint == each.fingerprint
    with pytest.raises(SetupError, match="neither beside the bundle nor in the current folder"):
        load(each, places=(tmp_path / "elsewhere",))


def test_absent_weights_are_named_with_all_that_helps():
    each = feature_set(recorded="owner/model", revision="abc123", commercial=False)
    with pytest.raises(SetupError) as raised:
        load(each)
    told = str(raised.value)
    for part in ("wavlm", "owner/model abc123", each.facts.sha256, "not for commercial use", "--weights a=PATH"):
        assert part in told
    assert "mmmos features fetch owner/model --revision abc123" in told and "see the weights" in told


def test_weights_of_the_hub_are_those_of_its_cache_when_they_are_the_recorded_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--tiny" / "snapshots" / ("0" * 40)
    shutil.copytree(TINY, snapshot)
    each = feature_set(recorded="owner/tiny", revision="0" * 40)
    loaded = load(each)
    assert (loaded.spec.fingerprint, loaded.spec.encoder.weights) == (each.fingerprint, "owner/tiny")
    with (snapshot / "model.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(SetupError, match="owner/tiny is another file than the heads were trained on"):
        load(each)


def test_an_encoder_that_brings_other_weights_of_its_own_is_refused():
    facts = feature_set("melstats", "", "").facts.model_copy(update={"sha256": "a" * 64})
    with pytest.raises(SetupError, match=r"The weights of melstats are another file .* in the bundle aaaa"):
        load(feature_set("melstats", "", "", facts=facts, fingerprint="1" * 64))


def test_a_release_is_not_fetched_unasked():
    with pytest.raises(SetupError, match=r"mmmos features fetch https://example\.org/m\.zip"):
        load(feature_set(recorded="https://example.org/m.zip"))


@pytest.mark.parametrize("recorded", ["../wavlm_tiny", "/etc/passwd", "a/../../b", "..", "C:\\x", "hf://a/b/../c"])
def test_recorded_weights_are_no_path(recorded, tmp_path, monkeypatch):
    """Not even one that is there."""
    shutil.copytree(TINY, tmp_path / "wavlm_tiny")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(SetupError, match="the weights of the encoder wavlm"):
        load(feature_set(recorded=recorded), places=(Path(),))


def test_other_weights_are_refused_before_they_are_read(tmp_path):
    (tmp_path / "wavlm_tiny").write_bytes(b"\x80\x04not a checkpoint")
    with pytest.raises(SetupError, match="is another file than the heads were trained on: its SHA-256 is"):
        load(feature_set(), places=(tmp_path,))
    with pytest.raises(UsageError, match="There are no weights at"):
        load(feature_set(), {"a": tmp_path / "absent"})


def test_an_encoder_that_runs_in_another_way_is_refused_in_words(monkeypatch):
    facts = encoder_facts(encoder("melstats", device="cpu").spec, "").model_dump() | {"code": "0"}
    old = feature_set("melstats", "", "", facts=facts, fingerprint="1" * 64)
    with pytest.raises(SetupError, match=r"in another way.*\(other: code\).*Install mmmos==0\.1\.0"):
        load(old)
    each = feature_set("melstats", "", "")
    monkeypatch.setattr(feature_spec, "POLICY", {**feature_spec.POLICY, "channels": "left"})
    with pytest.raises(SetupError, match=r"in another way.*Install mmmos==0\.1\.0"):
        load(each)


def test_weights_are_given_for_encoders_that_are_there(small):
    with pytest.raises(UnknownName, match=r"feature set or encoder of the bundle 'wavlm'.*a, b, melstats"):
        read_bundle(small.files, weights={"wavlm": "x"})
    with pytest.raises(UnknownName, match="melstats"):
        read_bundle(small.files, weights={"melstat": "x"})
    assert read_bundle(small.files, weights={"melstats": "x"}).weights == {"melstats": "x"}


def test_facts_that_contradict_each_other_are_refused(small, tools):
    def fewer(fields):
        fields["encoders"][0]["facts"]["layer_names"] = ["only"]

    with pytest.raises(StoreError, match="names 1 layers, of 3"):
        read_bundle(tools.changed(small.files, fewer))
