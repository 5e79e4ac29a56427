"""Grids become heads, all combinations or some drawn at random, and mistakes become sentences."""

import math

import pytest

from mmmos.ensembles import grid
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.ensembles.search import Range, drawn, edges, every
from mmmos.errors import RecipeError
from mmmos.recipe import parse

SETS = {"a": ("a0", "a1", "a2"), "b": ("b0",)}


def test_lists_are_alternatives_and_all_combinations_are_meant(build):
    recipe = build.recipe(
        {
            "head": ["mlp", "linear"],
            "features": ["a", ["a", "b"]],
            "layers": ["all", "mean"],
            "loss": ["mse", "ccc"],
            "seed": [0, 1, 2],
            "options": {"lr": [0.1, 0.2], "epochs": 3},
        }
    )
    specs = recipe.specs(SETS)
    assert len(specs) == len(set(specs)) == 2 * 2 * 2 * 2 * 3 * 2
    assert {spec.features for spec in specs} == {("a",), ("a", "b")}
    assert {(spec.options["lr"], spec.options["epochs"]) for spec in specs} == {(0.1, 3), (0.2, 3)}


def test_each_and_all_feature_sets(build):
    assert [s.features for s in build.recipe({"head": "ridge", "features": "each"}).specs(SETS)] == [("a",), ("b",)]
    assert [s.features for s in build.recipe({"head": "ridge"}).specs(SETS)] == [("a", "b")]


def test_equal_heads_of_two_tables_are_trained_once_in_the_order_of_the_recipe(build):
    explicit = {"head": "linear", "options": {"lr": 0.001}, "layers": "all", "loss": "mse"}
    specs = build.recipe({"head": ["svr", "linear"]}, explicit, {"head": ["ridge", "svr"]}).specs(SETS)
    assert [spec.head for spec in specs] == ["svr", "linear", "ridge"]


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"head": "rigde"}, "no head 'rigde'. Did you mean 'ridge'?"),
        ({"head": "mlp", "loss": "cccc"}, "no loss 'cccc'. Did you mean 'ccc'?"),
        ({"head": "mlp", "options": {"hiden": 3}}, "unknown key 'hiden'. Did you mean 'hidden'?"),
        ({"head": "mlp", "options": {"hidden": [8, -1]}}, "options of mlp: hidden: input should be greater"),
        ({"head": "ridge", "features": ["aa"]}, "no feature set 'aa'. Did you mean 'a'?"),
        ({"head": "ridge", "features": "a", "layers": [["a1", "a7"]]}, "no layer of a 'a7'. Known: a0, a1, a2, all,"),
        ({"head": "ridge", "layers": ["lasst"]}, "no layer of a 'lasst'. Did you mean 'last'?"),
        ({"head": "ridge", "loss": "ccc"}, "'ridge' has a criterion of its own"),
        ({"head": "svr", "layers": "weighted"}, "'svr' learns no layer weights"),
        ({"head": "linear", "loss": "triplet"}, "'triplet' looks at an embedding"),
        ({"head": "blstm_t", "samples": "windows"}, "'blstm_t' reads the frames of whole clips; leave samples out"),
        ({"head": "mlp", "loss": []}, "the list of alternatives of 'loss' is empty"),
        ({"head": "mlp", "layers": [[]]}, "the list of alternatives of 'layers' is empty"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_its_table(build, table, sentence):
    with pytest.raises(RecipeError) as caught:
        build.recipe({"head": "ridge"}, table).specs(SETS, "quick.toml")
    (problem,) = caught.value.problems
    assert problem.startswith("quick.toml: [[grid]] number 2: ") and sentence in problem


def test_all_mistaken_tables_are_named_at_once(build):
    with pytest.raises(RecipeError) as caught:
        build.recipe({"head": "x"}, {"head": "ridge"}, {"head": "y"}).specs(SETS)
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('train = ["eval"]\n[[grid]]\nhead = "ridge"', "recipe:1: train: the evaluation set is never trained on"),
        (
            '[[grid]]\nhead = "ridge"\n[select]\non = "eval"',
            "recipe:4: select.on: the evaluation set is never selected",
        ),
        ('[[grid]]\nhead = "ridge"\n[select]\non = ["dev", "eval"]', "the evaluation set is never selected on"),
        ('[[grid]]\nhead = "ridge"\n[select]\non = []', "names no set"),
        ('axes = ["PQ", "CX"]\n[[grid]]\nhead = "ridge"', "no axis 'CX'"),
        ('[[grid]]\nhead = "ridge"\nlayer = "all"', "unknown key 'grid.0.layer'. Did you mean 'layers'?"),
    ],
)
def test_the_recipe_itself_is_checked(text, sentence):
    with pytest.raises(RecipeError) as caught:
        parse(text, EnsembleRecipe)
    assert len(caught.value.problems) == 1 and sentence.split("grid.0.")[-1] in caught.value.problems[0]


def test_holding_out_dev_while_training_on_it_is_refused(build):
    recipe = build.recipe({"head": "ridge", "folds": 1}, train=["train", "dev"])
    with pytest.raises(RecipeError, match="number 1: folds = 1 holds out the set dev"):
        recipe.specs(SETS)


def test_axes_go_by_any_of_their_names_and_count_once(build):
    assert build.recipe(axes=["Production_Quality", "PQ", "cu"]).axes == ["PQ", "CU"]


LR = {"low": 1e-5, "high": 1e-2, "log": True}
DRAWN = {
    "head": ["mlp", "linear"],
    "features": "each",
    "layers": ["each", "mean"],
    "loss": ["utmos", "dcq", "ccc"],
    "options": {"lr": LR, "epochs": {"low": 3, "high": 9}},
}


def test_each_layer_of_each_feature_set_alone(build):
    specs = build.recipe({"head": "ridge", "features": "each", "layers": "each"}).specs(SETS)
    assert [(s.features, s.layers) for s in specs] == [(("a",), "a0"), (("a",), "a1"), (("a",), "a2"), (("b",), "b0")]
    listed = build.recipe({"head": "ridge", "features": "each", "layers": ["mean", "each", "a1"]})
    assert [s.layers for s in listed.specs({"a": SETS["a"]})] == ["mean", "a0", "a1", "a2"]


def test_a_layer_that_is_called_like_a_choice_is_that_layer(build):
    layers = {spec.layers for spec in build.recipe({"head": "ridge", "layers": "each"}).specs({"a": ("0", "last")})}
    assert layers == {"0", ("last",)}


def test_each_layer_counts_once_where_layers_are_not_known(build):
    specs = build.recipe({"head": ["ridge", "svr"], "features": "each", "layers": "each"}).specs(["a", "b"])
    assert [(s.head, s.features, s.layers) for s in specs] == [
        (head, (name,), "each") for head in ("ridge", "svr") for name in "ab"
    ]


def test_a_draw_is_that_many_different_heads_within_bounds(build):
    specs = build.recipe({**DRAWN, "draw": 300}).specs(SETS)
    assert len(specs) == len(set(specs)) == 300
    assert {spec.head for spec in specs} == {"mlp", "linear"} and {spec.loss for spec in specs} == {
        "utmos",
        "dcq",
        "ccc",
    }
    assert {(s.features, s.layers) for s in specs} == {
        *((("a",), layer) for layer in (*SETS["a"], "mean")),
        (("b",), "b0"),
        (("b",), "mean"),
    }
    rates = [spec.options["lr"] for spec in specs]
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    assert 0.35 < sum(rate < 10**-3.5 for rate in rates) / 300 < 0.65
    assert {spec.options["epochs"] for spec in specs} == set(range(3, 10))


def test_a_larger_draw_begins_with_the_smaller_and_another_seed_is_another_draw(build):
    few, many, other = (
        build.recipe({**DRAWN, **changed}).specs(SETS)
        for changed in ({"draw": 20}, {"draw": 60}, {"draw": 20, "draw_seed": 1})
    )
    assert many[:20] == few and len(many) == 60
    assert len(set(few) & set(other)) < 5


def test_a_draw_depends_on_no_other_table(build):
    alone = build.recipe({**DRAWN, "draw": 9}).specs(SETS)
    assert build.recipe({"head": "svr"}, {**DRAWN, "draw": 9}).specs(SETS)[1:] == alone


def test_a_draw_of_all_there_is_gives_all_of_it(build):
    table = {"head": ["ridge", "svr"], "features": "each", "layers": "each", "seed": [0, 1]}
    everything = build.recipe(table).specs(SETS)
    for draw in (len(everything), 1000):
        assert set(build.recipe({**table, "draw": draw}).specs(SETS)) == set(everything)
    few = {"head": "linear", "draw": 50, "options": {"epochs": {"low": 5, "high": 8, "log": True}}}
    assert {spec.options["epochs"] for spec in build.recipe(few).specs(SETS)} == {5, 6, 7, 8}


def test_a_draw_ends_where_nothing_new_is_found(build, monkeypatch):
    monkeypatch.setattr(grid, "MISSES", 100)
    few = {"low": 5, "high": 6, "log": True}
    table = {"head": "linear", "draw": 50, "options": {"epochs": few, "patience": few, "batch": few}}
    specs = build.recipe(table).specs(SETS)
    assert len(specs) == len(set(specs)) == 8


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"head": "mlp", "draw": 1, "loss": ["mse", "cccc"]}, "no loss 'cccc'. Did you mean 'ccc'?"),
        ({"head": ["mlp", "ridge"], "draw": 1, "loss": ["mse", "ccc"]}, "'ridge' has a criterion of its own"),
        (
            {"head": "mlp", "draw": 1, "options": {"hidden": {"low": -2, "high": 9}}},
            "options of mlp: hidden: input should",
        ),
        ({"head": "mlp", "draw": 1, "options": {"hiden": {"low": 2, "high": 9}}}, "unknown key 'hiden'"),
        ({"head": "ridge", "layers": "each"}, 'takes one feature set at a time, not a and b; write features = "each"'),
    ],
)
def test_what_is_wrong_with_any_value_of_a_table_is_said_whatever_is_drawn(build, table, sentence):
    with pytest.raises(RecipeError) as caught:
        build.recipe(table).specs(SETS)
    (problem,) = caught.value.problems
    assert sentence in problem


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ("options = { lr = { low = 1, high = 2 } }", "options: lr is a range; say with draw = how many"),
        (
            "draw = 2\noptions = { lr = [{ low = 1, high = 2 }] }",
            "lr: a range stands alone, not in a list of alternatives",
        ),
        ("draw = 2\noptions = { lr = { low = 1 } }", "lr: the key 'high' is missing"),
        ("draw = 2\noptions = { lr = { low = 2, high = 1 } }", "lr: low must be a number below high; got 2 and 1"),
        ("draw = 2\noptions = { lr = { low = nan, high = 1 } }", "lr: low must be a number below high"),
        ("draw = 2\noptions = { lr = { low = 0, high = 1, log = true } }", "lr: log needs a low above 0; got 0"),
        ("draw = 2\nloss_options = { tau = { low = 1, high = 2, lag = 1 } }", "tau: unknown key 'lag'"),
        ("draw = 0", "draw: input should be greater than or equal to 1"),
        ('[select]\nmetric = "utt_SRC"', "metric: there is no metric 'utt_SRC'. Did you mean 'utt_SRCC'?"),
    ],
)
def test_ranges_and_draws_are_checked(keys, sentence):
    with pytest.raises(RecipeError) as caught:
        parse(f'[[grid]]\nhead = "mlp"\n{keys}', EnsembleRecipe)
    (problem,) = caught.value.problems
    assert problem.startswith("recipe:") and sentence in problem


def test_values_of_a_range():
    assert [Range(low=2, high=5)[step] for step in range(4)] == [2, 3, 4, 5] and len(Range(low=2, high=5)) == 4
    wide = Range(low=1e-4, high=1.0, log=True)
    assert (wide[0], wide[len(wide) - 1]) == (1e-4, 1.0)
    assert math.isclose(wide[len(wide) // 2], 1e-2, rel_tol=0.02)
    assert wide.near(0.0123456) == 0.0123 and wide.near(7.0) == 1.0
    whole = Range(low=8, high=64, log=True)
    assert {type(whole[step]) for step in range(len(whole))} == {int} and whole[len(whole) - 1] == 64


def test_a_draw_visits_every_point_once_and_edges_every_value():
    space = {"head": ["x", "y"], "b": [1, 2, 3], "c": Range(low=0, high=4)}
    points = [tuple(point.values()) for point in drawn(space, 3)]
    assert len(points) == len(set(points)) == 30
    assert set(points) == {(head, b, c) for head in "xy" for b in (1, 2, 3) for c in range(5)}
    assert points != sorted(points)
    shown = [tuple(point.values()) for point in edges(space, "head")]
    assert shown == [(head, b, c) for head in "xy" for b, c in ((1, 0), (2, 0), (3, 0), (1, 4))]
    assert [point["b"] for point in every({"b": [1, 2], "c": [3]})] == [1, 2]
