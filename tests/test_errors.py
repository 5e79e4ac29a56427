"""Errors: sentences with parts, exit codes, and a way through other processes."""

import pickle

import pytest

from mmmos import errors

EXAMPLES = [
    errors.MmmosError("plain"),
    errors.UsageError("usage"),
    errors.RecipeError(["a.toml:1: one", "a.toml:2: two"]),
    errors.UnknownName("loss", "mze", ["mse", "ccc"]),
    errors.InputError([errors.Problem("a.csv", "wrong", 3, "PQ"), "more"], more=2),
    errors.SetupError("setup"),
    errors.StoreError("store"),
    errors.Rejected("missing", "there is no file"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_another_process(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_exit_codes_tell_usage_from_data_from_environment():
    codes = {type(error).__name__: error.exit_code for error in EXAMPLES}
    assert codes == {
        "MmmosError": 1,
        "UsageError": 2,
        "RecipeError": 2,
        "UnknownName": 2,
        "InputError": 4,
        "SetupError": 5,
        "StoreError": 4,
        "Rejected": 1,
    }


def test_an_unknown_name_offers_the_nearest_and_all_known():
    error = errors.UnknownName("encoder", "WavLM-bas-plus", ["melstats", "wavlm-base-plus"])
    assert error.guess == "wavlm-base-plus"
    assert str(error) == (
        "There is no encoder 'WavLM-bas-plus'. Did you mean 'wavlm-base-plus'? Known: melstats, wavlm-base-plus."
    )
    assert str(errors.UnknownName("head", "x", [])) == "There is no head 'x'. Known: none."


def test_a_problem_says_where_as_far_as_that_is_known():
    assert str(errors.Problem("a.csv", "is empty")) == "a.csv: is empty"
    assert str(errors.Problem("a.csv", "is 5,3", 2, "PQ")) == "a.csv:2: column PQ: is 5,3"
    assert str(errors.InputError(["one"], more=3)) == "one\n… and 3 more"


@pytest.mark.parametrize(("name", "guess"), [("MSE", "mse"), ("mes", "mse"), ("zzz", None), ("", None)])
def test_the_nearest_name_is_found_without_case_or_not_at_all(name, guess):
    assert errors.did_you_mean(name, ["mse", "contrastive"]) == guess
