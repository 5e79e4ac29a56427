"""A challenge file is read and checked as a whole before anything is computed."""

import pytest

import mmmos
from mmmos import challenge
from mmmos.errors import InputError, RecipeError, UnknownName, UsageError

CHALLENGE = """\
[data]
train = "train.csv"
dev = ["dev.csv"]
pam = ["pam.csv"]
eval = ["test.csv"]
[features]
encoders = ["melstats"]
[ensembles]
recipe = "tiny.toml"
[submission]
name = "first"
"""
RECIPE = '[[grid]]\nhead = ["ridge", "svr"]\n[select]\nrule = "top_k"\non = "pam"\nk = 1\n'


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return mmmos.make_corpus(tmp_path_factory.mktemp("corpus"), size="tiny").parent


@pytest.fixture
def read(corpus):
    """Read a challenge whose text, or whose recipe's text, has one part replaced."""

    def read(old="", new="", recipe=RECIPE, rule=False):
        assert old in CHALLENGE
        (corpus / "mine.toml").write_text(CHALLENGE.replace(old, new, 1) if old else CHALLENGE)
        (corpus / "tiny.toml").write_text(recipe)
        inputs = challenge.read(corpus / "mine.toml")
        if rule:
            challenge.check_selection(inputs, inputs.ensembles.select)
        return inputs

    return read


def test_everything_that_is_named_is_read(read, corpus):
    inputs = read()
    assert inputs.clips["set"].value_counts().to_dict() == {"train": 24, "dev": 10, "pam": 12, "eval": 18}
    assert inputs.workspace == corpus and inputs.submission == corpus / "submissions" / "first"
    assert len(inputs.ensembles.grid) == 1 and inputs.format.file == "answer.txt"


def test_the_feature_recipe_may_be_an_encoder(read):
    named = read('encoders = ["melstats"]', 'recipe = "wavlm-base-plus"')
    assert [table.encoder for table in named.features.tables()] == ["wavlm-base-plus"]


def test_the_scores_of_the_evaluation_set_are_not_read(read):
    clips = read().clips
    assert clips.loc[clips["set"] == "eval", ["PQ", "PC", "CE", "CU"]].isna().all(axis=None)
    assert not [name for name in clips if "Production" in name or "ratings" in name]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("eval =", "evall =", "mine.toml:5: unknown key 'data.evall'. Did you mean 'eval'?"),
        ('"melstats"', '"melstat"', "no encoder 'melstat'. Did you mean 'melstats'?"),
        ('encoders = ["melstats"]', "", "give either recipe"),
        (
            'encoders = ["melstats"]',
            'recipe = "melstatss"',
            "no feature recipe or encoder 'melstatss'. Did you mean 'melstats'?",
        ),
        ('"tiny.toml"', '"quik"', "no ensemble recipe 'quik'. Did you mean 'quick'?"),
        ('"tiny.toml"', '"none.toml"', "no ensemble recipe file"),
        ('name = "first"', 'name = "../first"', "submission.name"),
        ('name = "first"', 'format = "audiomos2025-trak2"', "no submission format 'audiomos2025-trak2'. Did you"),
        ('name = "first"', 'format = "audiomos2025-track1"', "asks for overall, textual, but heads predict PQ,"),
        ("[data]", "[data", "not valid TOML"),
    ],
)
def test_a_typo_in_the_file_is_one_sentence(read, old, new, sentence):
    with pytest.raises(UsageError) as caught:
        read(old, new)
        # An encoder is looked up when it is loaded.
        mmmos.encoder("melstat")
    assert sentence in str(caught.value)


def test_a_folder_without_a_challenge_is_told_of_init(tmp_path):
    with pytest.raises(UsageError, match=rf"There is no challenge\.toml in {tmp_path}; mmmos init lays out"):
        challenge.read(tmp_path / "challenge.toml")


def test_a_manifest_that_is_not_there_is_bad_input(read):
    with pytest.raises((InputError, UsageError), match=r"trian\.csv"):
        read('"train.csv"', '"trian.csv"')


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            RECIPE.replace('"pam"', '"pan"'),
            "the ensemble recipe 'tiny.toml': [select]: There is no labelled set 'pan'.",
        ),
        (RECIPE.replace('"top_k"', '"topk"'), "no selector 'topk'. Did you mean 'top_k'?"),
        (RECIPE.replace("k = 1", "options = {kk = 1}"), "no parameter of the rule 'top_k' 'kk'"),
        ('train = ["train", "pan"]\n' + RECIPE, "no set of [data] 'pan'. Did you mean 'pam'?"),
        (
            'train = ["train", "pam"]\n[[grid]]\nhead = "mlp"\nfolds = 1\n[select]\nrule = "top_k"\non = "pam"',
            "no labelled set 'pam'. Known: dev.",
        ),
        (
            RECIPE.replace("[select]", 'importance = true\ntarget = "pan"\n[select]'),
            "target: There is no set of [data] 'pan'. Did you mean 'pam'?",
        ),
        ('axes = ["PQ"]\n' + RECIPE, "axes: PC is missing, which the format"),
        (
            RECIPE.replace('"svr"', '"svm"'),
            "the ensemble recipe 'tiny.toml': [[grid]] number 1: There is no head 'svm'.",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_is_one_sentence_before_anything_runs(read, recipe, sentence):
    with pytest.raises(RecipeError) as caught:
        read(recipe=recipe, rule=True)
    (problem,) = caught.value.problems
    assert sentence in problem


def test_a_rule_that_needs_the_proxy_set_says_so_where_there_is_none(read):
    with pytest.raises(RecipeError, match=r"no labelled set 'pam'\. Known: dev, oof"):
        read('pam = ["pam.csv"]\n', "", rule=True)
    assert len(read('pam = ["pam.csv"]\n', "", recipe='[[grid]]\nhead = "ridge"\n', rule=True).clips) == 52


def test_another_ensemble_recipe_may_take_the_place_of_the_files_own(read, corpus):
    read()
    assert challenge.read(corpus / "mine.toml", ensembles="quick").recipe_name == "quick"
    with pytest.raises(UnknownName):
        challenge.read(corpus / "mine.toml", ensembles="quicker-than-light")
