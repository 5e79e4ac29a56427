"""What keeps a recorded ensemble from becoming a bundle is said in a sentence, and nothing is written."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from mmmos.errors import StoreError, UsageError
from mmmos.features.spec import EncoderRecipe
from mmmos.pipeline import bundles


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"members": []}, StoreError, "is no record of an ensemble: it names no members"),
        ({"recipe": 7}, StoreError, "is no record of an ensemble: it names no members, recipe"),
        ({"training_data": "0" * 64}, UsageError, "trained on other clips or scores than the challenge now names"),
        ({"members": [{"key": "f" * 64, "weights": {}}]}, StoreError, "The record of 'demo' is damaged: 'PQ'"),
        (
            {"members": [{"key": "f" * 64, "weights": dict.fromkeys(("PQ", "PC", "CE", "CU"), 1)}]},
            UsageError,
            r"1 of the 1 runs of 'demo' are not in .*\(among them ffff",
        ),
    ],
)
def test_a_record_that_does_not_fit(workspace, change, error, words):
    path = Path("ensembles/demo.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(error, match=words) as caught:
        bundles.export("challenge.toml", to="bundle")
    assert "mmmos ensembles select demo" in str(caught.value) and not Path("bundle").exists()


@pytest.mark.parametrize(
    ("head", "loss", "words"), [("a.py:H", "mse", "head 'a.py:H'"), ("mlp", "a.py:L", "loss 'a.p")]
)
def test_heads_and_losses_of_this_machine_alone(head, loss, words):
    with pytest.raises(UsageError, match=f"The {words}.* is a file of this machine, which a bundle cannot hold"):
        bundles._refuse_local([SimpleNamespace(spec=SimpleNamespace(head=head, loss=loss))])


def test_encoders_of_this_machine_alone():
    with pytest.raises(UsageError, match=r"The encoder 'a\.py:Mine' is a file of this machine"):
        bundles._encoder(EncoderRecipe(encoder="a.py:Mine"), features=None)
