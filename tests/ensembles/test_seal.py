"""The scores of the evaluation set change nothing that is trained or chosen, even where the caller hands them over."""

import numpy as np
import pytest

from mmmos.ensembles import selectors
from mmmos.ensembles.ensemble import select
from mmmos.ensembles.training.train import train
from mmmos.errors import UsageError


def everything(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*.*"))
        if path.is_file() and path.name != "times.json"
    }


def changed(clips, how):
    clips, rows = clips.copy(), clips["set"] == "eval"
    values = clips.loc[rows, ["PQ", "PC", "CE", "CU"]].to_numpy()
    new = {
        "permuted": values[::-1],
        "shifted": values + 3,
        "deleted": np.full_like(values, np.nan),
        "infinite": np.full_like(values, np.inf),
    }[how]
    clips.loc[rows, ["PQ", "PC", "CE", "CU"]] = new
    return clips


def run(build, world, clips, folder):
    recipe = build.recipe({"head": ["ridge", "svr"], "features": "each"}, {"head": "linear", "options": {"epochs": 3}})
    pool = train(recipe, world.features, clips, folder=folder)
    rules = ("average", "best", "top_k", "intersect", "greedy", "stack")
    chosen = {rule: select(pool, rule) for rule in rules}
    mixed = {"on": {"pam": 2, "dev": 1}, "metric": {"utt_SRCC": 1, "utt_MSE": 0.5, "sys_KTAU": 1}}
    chosen |= {f"mixed_{rule}": select(pool, rule, **mixed) for rule in ("best", "top_k", "intersect", "greedy")}
    chosen["mixed_stack"] = select(pool, "stack", on=mixed["on"], method="nnls")
    for rule, ensemble in chosen.items():
        ensemble.write(folder / f"{rule}.json")
    return pool, {rule: ensemble.predict("eval").to_numpy().tobytes() for rule, ensemble in chosen.items()}


@pytest.mark.parametrize("how", ["permuted", "shifted", "deleted", "infinite"])
def test_runs_ensembles_and_answers_do_not_depend_on_the_evaluation_scores(build, world, tmp_path, how):
    _, answers = run(build, world, world.clips, tmp_path / "a")
    _, others = run(build, world, changed(world.clips, how), tmp_path / "b")
    assert everything(tmp_path / "a") == everything(tmp_path / "b") and answers == others


def test_no_object_holds_the_evaluation_scores(build, world, tmp_path):
    pool, _ = run(build, world, world.clips, tmp_path)
    assert "eval" in pool.scores and "eval" not in pool.truth and "eval" not in pool.labelled()
    with pytest.raises(UsageError, match="sealed"):
        pool.measure("eval")


def test_a_recipe_built_without_its_checks_cannot_open_the_seal_either(build, world, tmp_path):
    recipe = build.recipe().model_copy(update={"train": ["eval"]})
    with pytest.raises(UsageError, match="sealed: nothing is trained on it"):
        train(recipe, world.features, world.clips, folder=tmp_path)
    pool = train(build.recipe(), world.features, world.clips, folder=tmp_path)
    rule = build.recipe(select={"rule": "top_k"}).select.model_copy(update={"on": "eval"})
    with pytest.raises(UsageError):
        select(pool, rule)
    for on in (["pam", "eval"], {"pam": 1, "eval": 1}):
        for name in ("top_k", "greedy", "stack", "intersect"):
            rule = build.recipe(select={"rule": name}).select.model_copy(update={"on": on})
            with pytest.raises(UsageError, match="never selected on"):
                select(pool, rule)
            with pytest.raises(UsageError, match="sealed"):
                getattr(selectors, name)(pool, on=on)
            with pytest.raises(UsageError, match="the evaluation set is never selected on"):
                select(pool, name, on=on)
