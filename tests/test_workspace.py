"""A workspace is laid out whole, and what is there already is never touched."""

from mmmos import challenge, recipe, workspace
from mmmos.challenge import Challenge


def test_the_three_shelves_and_the_challenge_are_written(tmp_path):
    written, kept = workspace.lay_out(tmp_path / "new")
    assert not kept and all(path.is_file() for path in written)
    assert {path.parent.name for path in written} == {"new", "features", "ensembles", "submissions"}
    assert recipe.names("ensembles", tmp_path / "new") == recipe.names("ensembles", tmp_path / "nowhere")


def test_the_challenge_file_is_valid_but_for_its_manifests(tmp_path):
    workspace.lay_out(tmp_path)
    read = recipe.read(tmp_path / "challenge.toml", Challenge)
    assert read.submission.name == "first" and read.features.resolve(tmp_path).tables()
    assert set(read.data.sources(tmp_path)) == {"train", "dev", "pam", "eval"}
    assert challenge.NAME


def test_files_that_exist_are_left_as_they_were(tmp_path):
    (tmp_path / "challenge.toml").write_text("# mine\n")
    written, kept = workspace.lay_out(tmp_path)
    assert kept == [tmp_path / "challenge.toml"] and (tmp_path / "challenge.toml").read_text() == "# mine\n"
    assert workspace.lay_out(tmp_path) == ([], [*written[:-1], *kept, written[-1]])


def test_outputs_are_ignored_and_recipes_are_tracked(tmp_path):
    workspace.lay_out(tmp_path)
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines == ["/features/*/", "/ensembles/*/", "/submissions/*/"]
