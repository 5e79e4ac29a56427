"""Fingerprints hold all that changes the numbers; feature recipes leave no gaps and no two sets of one name."""

from dataclasses import fields, replace

import pytest

from mmmos import recipe
from mmmos.errors import RecipeError
from mmmos.features import spec
from mmmos.features.spec import EncoderRecipe, EncoderSpec, FeatureRecipe, FeatureSpec

ENCODER = EncoderSpec("wavlm-base-plus", "wavlm", 16_000, 13, 768, 0.02, 400, "MIT", "a/b", "r1", "abc")
SET = FeatureSpec("set", ENCODER)

OTHER = {
    "family": "muq",
    "rate": 24_000,
    "layers": 25,
    "dim": 1024,
    "hop": 0.04,
    "minimum": 500,
    "sha256": "abd",
    "config": "other",
    "code": "2",
    "front": "zero mean",
    "precision": "bfloat16",
    "layer_names": tuple("abcdefghijklm"),
    "resampler": "sinc-hann",
}


@pytest.mark.parametrize("name", OTHER)
def test_what_changes_the_numbers_changes_the_fingerprint(name):
    changed = replace(SET, encoder=replace(ENCODER, **{name: OTHER[name]}))
    assert changed.fingerprint != SET.fingerprint


@pytest.mark.parametrize("change", [{"window": 5.0}, {"hop": 5.0}, {"dtype": "float32"}, {"frames": ("1",)}])
def test_windows_dtype_and_frames_are_in_the_fingerprint(change):
    assert replace(SET, **change).fingerprint != SET.fingerprint


def test_the_policy_of_audio_and_the_schema_are_in_the_fingerprint(monkeypatch):
    before = SET.fingerprint
    monkeypatch.setitem(spec.POLICY, "mono", "other")
    other = SET.fingerprint
    monkeypatch.setattr(spec, "SCHEMA", 99)
    assert len({before, other, SET.fingerprint}) == 3


def test_where_weights_lie_and_what_they_are_called_is_not_in_the_fingerprint():
    same = {"name": "wavlm", "licence": "other", "weights": "/elsewhere", "revision": "r2", "maximum": 9}
    assert replace(SET, encoder=replace(ENCODER, **same), name="mine").fingerprint == SET.fingerprint
    assert replace(SET, window=10, hop=10).fingerprint == SET.fingerprint
    assert {*same, *OTHER} == {field.name for field in fields(EncoderSpec)}


def test_without_weights_the_name_says_which_encoder_it_is():
    one, other = (FeatureSpec("set", replace(ENCODER, name=name, sha256="")) for name in ("one", "other"))
    assert one.fingerprint != other.fingerprint


def test_defaults_of_a_recipe_are_filled_in_and_leave_no_gaps():
    short = EncoderRecipe(encoder="b", window=4)
    tables = FeatureRecipe(encoders=["a", short], window=8, dtype="float32").tables()
    assert [(t.set_name, t.window, t.hop, t.dtype) for t in tables] == [("a", 8, 8, "float32"), ("b", 4, 4, "float32")]
    assert FeatureRecipe(encoders=["a"], window=8, hop=2).tables()[0].hop == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('encoders = ["a", "a"]', "two feature sets are called 'a'"),
        ('encoders = ["x.py:A", "y.py:A"]', "two feature sets are called 'A'"),
        ("encoders = []", "at least 1 item"),
        ('encoders = [{ encoder = "a", name = "../x" }]', r"encoders.0.name: string should match pattern"),
        ('encoders = [{ encoder = "a", window = 5, hop = 6 }]', "leaves audio out between windows of 5 s"),
        ('encoders = ["a"]\nhop = 11', "a hop of 11 s leaves audio out"),
        ('encoders = ["a"]\nwindow = 0', r"f.toml:2: window: input should be greater than 0"),
        ('encoders = [{ encoder = "a", wieghts = "x" }]', r"unknown key 'encoders.0.wieghts'\. Did you mean 'weights'"),
    ],
)
def test_mistakes_in_a_recipe_are_named(text, said):
    with pytest.raises(RecipeError, match=said) as caught:
        recipe.parse(text, FeatureRecipe, "f.toml")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("name", ["plain", "/a/b/c.py:NAME", "odd name/here"])
def test_a_feature_set_has_a_name_that_is_safe_in_a_path(name):
    assert "/" not in EncoderRecipe(encoder=name).set_name


@pytest.mark.parametrize("name", recipe.names("features"))
def test_packaged_recipes_are_right(name):
    assert spec.read_recipe(name).tables()
