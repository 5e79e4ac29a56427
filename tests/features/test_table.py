"""Features in memory: chosen layers, chosen clips, and a digest of what they are computed from."""

import numpy as np
import pandas as pd
import pytest

from mmmos.errors import UnknownName, UsageError
from mmmos.features.table import FeatureArray, Features

RAW = np.arange(24, dtype=np.float32).reshape(3, 4, 2)
ARRAY = FeatureArray("wavlm", "print", ("0", "1", "2", "3"), RAW)


def features(ids=("a", "b", "c"), keys=("ka", "kb", "kc"), fingerprint="print"):
    status = pd.DataFrame({"status": "done", "reason": "", "detail": "", "flags": ""}, index=[*ids, "bad", "lost"])
    status.loc["bad"] = ["rejected", "too_short", "0.01 s of audio", ""]
    status.loc["lost"] = ["failed", "changed", "written to while it was read", ""]
    status.loc["cut"] = ["rejected", "truncated", "the file ends early", "truncated"]
    status.loc[list(ids[1:]), "flags"] = ["clipped", "truncated, clipped"]
    return Features(ids, keys, {"wavlm": FeatureArray("wavlm", fingerprint, ARRAY.layer_names, RAW)}, status)


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ("all", RAW),
        ("last", RAW[:, 3:]),
        ("mean", RAW.mean(axis=1, keepdims=True)),
        ("2", RAW[:, 2:3]),
        ([1], RAW[:, 1:2]),
        (["3", 0], RAW[:, [3, 0]]),
    ],
)
def test_layers_are_chosen_by_name_or_index(choice, wanted):
    np.testing.assert_array_equal(ARRAY.layers(choice), wanted)


@pytest.mark.parametrize("choice", ["4", "lats", [0, 9], [-1]])
def test_a_layer_that_is_not_there_is_named(choice):
    with pytest.raises(UnknownName, match="There is no layer of wavlm"):
        ARRAY.layers(choice)


def test_clips_are_chosen_in_the_order_asked_for():
    chosen = features().of(["c", "a"])
    assert (chosen.ids, chosen.keys, len(chosen)) == (("c", "a"), ("kc", "ka"), 2)
    np.testing.assert_array_equal(chosen["wavlm"].raw, RAW[[2, 0]])
    assert len(features().of([])) == 0
    with pytest.raises(UsageError, match="2 clips have no features, among them 'bad'"):
        features().of(["a", "bad", "x"])


def test_a_feature_set_that_is_not_there_is_named():
    with pytest.raises(UnknownName, match=r"feature set 'wavml'\. Did you mean 'wavlm'"):
        features()["wavml"]


def test_the_digest_knows_audio_order_and_fingerprint_and_no_ids():
    digest = features().digest(["wavlm"])
    assert digest == features(ids=("x", "y", "z")).digest(["wavlm"]) == features().digest(["wavlm"], [0, 1, 2])
    others = [
        features(keys=("ka", "kb", "kx")).digest(["wavlm"]),
        features(keys=("kb", "ka", "kc")).digest(["wavlm"]),
        features(fingerprint="other").digest(["wavlm"]),
        features().digest([]),
        features().digest(["wavlm"], [0, 1]),
    ]
    assert len({digest, *others}) == 6


def test_clips_that_are_not_done_are_listed_with_their_reasons():
    assert features().rejected()["reason"].to_dict() == {"bad": "too_short", "lost": "changed", "cut": "truncated"}
    assert features().rejected().columns.tolist() == ["reason", "detail"]


def test_flags_of_clips_that_are_used_are_counted_with_their_meaning_and_an_example():
    table = features().flagged()
    assert table[["flag", "clips", "example"]].to_numpy().tolist() == [["truncated", 1, "c"], ["clipped", 2, "b"]]
    assert table["meaning"].str.len().gt(10).all()
