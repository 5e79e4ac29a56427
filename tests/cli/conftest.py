"""One command line, as a shell sees it: exit code, stdout, stderr."""

import pytest

import mmmos
from mmmos import cli, pipeline

RECIPE = '[[grid]]\nhead = ["ridge", "svr"]\nfolds = 3\n[select]\nrule = "top_k"\non = "pam"\nk = 1\n'


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A tiny workspace after its run. Nothing may change it."""
    folder = tmp_path_factory.mktemp("workspace")
    path = mmmos.make_corpus(folder, size="tiny")
    path.write_text(path.read_text().replace('"quick"', '"light"'))
    (folder / "ensembles").mkdir()
    (folder / "ensembles" / "light.toml").write_text(RECIPE)
    pipeline.run(path, jobs=1, intervals=10)
    return folder


@pytest.fixture
def command(capsys, monkeypatch, workspace):
    """Run a command line in the workspace."""
    monkeypatch.chdir(workspace)

    def command(*arguments, debug=False):
        capsys.readouterr()
        code = cli._call([str(argument) for argument in arguments], debug)
        out, err = capsys.readouterr()
        return code, out, err

    return command
