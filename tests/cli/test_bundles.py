"""``mmmos ensembles export``: what is chosen becomes a bundle, or the reason why it does not is told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmmos import challenge, manifest, pipeline
from mmmos.ensembles.bundle import read_bundle
from mmmos.errors import SetupError
from mmmos.pipeline import bundles

TINY = Path(__file__).parents[1] / "data" / "wavlm_tiny"

FRAMED = """
[[grid]]
head = ["blstm_t", "attention"]
features = "framed"
layers = "last"
folds = 2
options = { epochs = 1, width = 8, hidden = 4, rate = 8 }
[[grid]]
head = ["ridge", "linear"]
samples = "windows"
layers = "last"
folds = 2
options = {}
[select]
rule = "average"
calibrate = "pam"
calibrate_by = "domain"
"""


@pytest.fixture
def own(workspace, tmp_path, monkeypatch, command):
    """A copy of the workspace that may be changed."""
    folder = Path(shutil.copytree(workspace, tmp_path / "own"))
    monkeypatch.chdir(folder)
    return folder


def test_an_ensemble_is_exported_and_scores_the_same(own, command):
    code, out, err = command("ensembles", "export")
    place = Path(out.strip())
    assert code == 0 and place == Path("submissions/demo/bundle")
    assert "demo: 1 members (3 heads)" in err and "SRCC on pam (which the ensemble was chosen or scaled on)" in err
    assert err.splitlines()[-1] == "Next: mmmos score clips/ --bundle submissions/demo/bundle"
    bundle, inputs = read_bundle(place), challenge.read("challenge.toml")
    features, pool = pipeline.finished(inputs)
    wanted = bundles._ensemble(bundles._record(inputs, "demo"), pool, "demo").predict("eval")
    found = bundle.predict(features.of(list(wanted.index)))
    np.testing.assert_allclose(found.scores, wanted.to_numpy(), rtol=0, atol=1e-5)
    loaded = bundle.encoders("cpu")
    assert [each.spec.fingerprint for each in loaded] == [features["melstats"].fingerprint]


def test_what_the_bundle_says_is_what_the_workspace_holds(own, command):
    assert command("ensembles", "export", "demo", "--to", "b")[0] == 0
    about, clips = read_bundle("b").about, challenge.read("challenge.toml").clips
    train = clips[clips["set"] == "train"]
    assert about.clips == clips["set"].value_counts().to_dict()
    assert about.manifests["train"] == manifest.digest(train, list(about.axes))
    assert about.reference[""]["PQ"] == pytest.approx(np.quantile(train["PQ"], np.linspace(0, 1, 21)), abs=1e-4)
    assert {each.set for each in about.metrics} == {"dev", "pam", "oof"}
    pam = next(each for each in about.metrics if each.set == "pam")
    assert pam.seen and pam.systems and {"utt_SRCC", "sys_MSE"} <= set(pam.scores)
    assert all(number.low is None or number.low <= number.high for number in pam.scores["utt_MSE"].values())
    assert about.licences == {"melstats": "MIT"} and about.commercial
    record = json.loads(Path("ensembles/demo.json").read_text())
    assert [member.key for member in about.members] == [each["key"] for each in record["members"]]
    assert about.training_data == record["training_data"] and about.pool == record["pool"]


def test_a_bundle_in_a_zip_has_the_same_digest_and_nothing_is_written_twice(own, command):
    assert command("ensembles", "export", "demo", "--to", "b.zip")[0] == 0
    assert command("ensembles", "export", "demo", "--to", "b")[0] == 0
    assert read_bundle("b.zip").digest == read_bundle("b").digest
    first = {path.name: path.read_bytes() for path in Path("b").iterdir()}
    (Path("b") / "README.md").write_text("edited")
    for place in ("b", "b.zip"):
        code, _, err = command("ensembles", "export", "demo", "--to", place)
        assert code == 0 and "is there already" in err
    assert (Path("b") / "README.md").read_text() == "edited"
    (Path("b") / "bundle.json").write_text("{}")
    code, _, err = command("ensembles", "export", "demo", "--to", "b")
    assert code == 2 and "--overwrite" in err
    assert command("ensembles", "export", "demo", "--to", "b", "--overwrite")[0] == 0
    assert {path.name: path.read_bytes() for path in Path("b").iterdir()} == first


def test_nothing_is_trained_or_encoded_and_the_scores_of_eval_are_not_read(own, command, monkeypatch):
    assert command("ensembles", "export", "demo", "--to", "before")[0] == 0
    sealed = Path("test.csv").read_text().splitlines()
    columns = sealed[0].split(",")
    places = [number for number, name in enumerate(columns) if name.startswith(("Production", "Content"))]
    rows = [line.split(",") for line in sealed[1:]]
    for row in rows:
        for place in places:
            row[place] = "1.5"
    Path("test.csv").write_text("\n".join([sealed[0], *map(",".join, rows)]) + "\n")

    def never(*_, **__):
        raise AssertionError("nothing is to be trained or encoded")

    monkeypatch.setattr("mmmos.ensembles.training.work.fit", never)
    monkeypatch.setattr("mmmos.features.extraction.settle.encode_chunk", never)
    assert command("ensembles", "export", "demo", "--to", "after")[0] == 0
    assert read_bundle("after").digest == read_bundle("before").digest


def test_heads_on_frames_and_windows_are_exported(own, command):
    Path("ensembles/framed.toml").write_text(FRAMED)
    text = Path("challenge.toml").read_text().replace('"light"', '"framed"')
    text = text.replace(
        'recipe = "melstats"', 'encoders = [{ encoder = "melstats", name = "framed", frames = "last", window = 0.5 }]'
    )
    Path("challenge.toml").write_text(text)
    assert command("ensembles", "select", "timed")[0] == 0
    code, out, err = command("ensembles", "export", "timed")
    assert code == 0 and "4 members (8 heads)" in err
    bundle = read_bundle(out.strip())
    inputs = challenge.read("challenge.toml")
    features, pool = pipeline.finished(inputs)
    ensemble = bundles._ensemble(bundles._record(inputs, "timed"), pool, "timed")
    wanted = ensemble.predict("eval")
    found = bundle.predict(features.of(list(wanted.index)), list(pool.domains["eval"]))
    np.testing.assert_allclose(found.scores, wanted.to_numpy(), rtol=0, atol=1e-5)
    assert bundle.encoders("cpu")[0].spec.frames == features["framed"].frame_layers


def test_local_weights_go_by_their_base_name_and_are_said_to_be_needed(own, command, monkeypatch):
    shutil.copytree(TINY, own / "private" / "tiny")
    table = '{ encoder = "wavlm", name = "own", weights = "private/tiny", window = 2 }'
    text = Path("challenge.toml").read_text().replace('recipe = "melstats"', f"encoders = [{table}]")
    Path("challenge.toml").write_text(text)
    assert command("ensembles", "select", "local")[0] == 0
    code, _, err = command("ensembles", "export", "local", "--to", "b")
    assert code == 0 and "The weights of wavlm are not in the bundle: tiny, licence see the weights." in err
    files = [path.read_text() for path in Path("b").iterdir() if path.suffix in (".json", ".md")]
    assert not any("private" in text or str(own) in text for text in files)
    with pytest.raises(SetupError, match=r"needs the weights of the encoder wavlm: tiny.*--weights own=PATH"):
        read_bundle("b").encoders("cpu")
    given = read_bundle("b", weights={"own": "private/tiny"}).encoders("cpu")
    shutil.copytree(own / "b", own / "private" / "b")
    assert read_bundle("private/b").encoders("cpu")[0].spec.fingerprint == given[0].spec.fingerprint
    monkeypatch.chdir(own / "private")
    assert given[0].spec.fingerprint == read_bundle("../b").encoders("cpu")[0].spec.fingerprint


def test_an_ensemble_of_another_recipe_than_the_challenge_s_is_exported(own, command):
    recipe = Path("ensembles/light.toml").read_text().replace('"svr"', '"knn"')
    Path("ensembles/other.toml").write_text(recipe)
    assert command("ensembles", "select", "mine", "--recipe", "other")[0] == 0
    assert command("ensembles", "export", "mine")[0] == 0
    assert read_bundle("submissions/mine/bundle").about.recipe == "other"


def remove_runs(folder):
    for path in (folder / "ensembles" / "light").glob("*/run.json"):
        path.unlink()


def other_scores(folder):
    text = (folder / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join(text[:-1]) + "\n")


def damage_record(folder):
    (folder / "ensembles" / "demo.json").write_text('{"recipe": "light"}')


def change_weights(folder):
    path = folder / "ensembles" / "demo.json"
    path.write_text(path.read_text().replace('"PQ": 1.0', '"PC": 1.0', 1))


MISTAKES = {
    "an unknown name": (lambda folder: None, ["dmeo"], 2, "Did you mean 'demo'"),
    "no record": (lambda folder: (folder / "ensembles/demo.json").unlink(), [], 2, "holds no chosen ensemble"),
    "a damaged record": (damage_record, [], 4, "is no record of an ensemble"),
    "other weights": (change_weights, [], 4, "is no record|is damaged"),
    "runs that are gone": (remove_runs, [], 2, "train them first"),
    "other clips": (other_scores, [], 2, "train|chosen from heads"),
    "features that are gone": (lambda folder: shutil.rmtree(folder / "features"), [], 2, "no melstats features yet"),
    "a place that is taken": (lambda folder: None, ["--to", "ensembles", "--overwrite"], 2, "other things"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_a_sentence_and_leaves_nothing(mistake, own, command):
    spoil, arguments, expected, told = MISTAKES[mistake]
    spoil(own)
    code, _, err = command("ensembles", "export", *arguments)
    assert code == expected, err
    assert any(part in err for part in told.split("|")), err
    assert not list(own.glob("submissions/*/bundle*"))


def test_heads_that_are_too_large_for_a_bundle_are_said_to_be(own, command, monkeypatch):
    monkeypatch.setattr(bundles, "MOST_BYTES", 10_000)
    code, _, err = command("ensembles", "export")
    assert code == 2 and "Choose fewer members" in err
    assert not Path("submissions/demo/bundle").exists()


def test_a_bundle_that_would_score_otherwise_is_not_written(own, command, monkeypatch):
    real = bundles.files_of

    def wrong(facts, runs, weights, *rest):
        moved = [type(run)(**{**vars(run), "scale": run.scale + 0.01}) for run in runs]
        return real(facts, moved, weights, *rest)

    monkeypatch.setattr(bundles, "files_of", wrong)
    code, _, err = command("ensembles", "export")
    assert code == 4 and "apart from the ensemble, and is not written" in err
    assert not Path("submissions/demo/bundle").exists()
