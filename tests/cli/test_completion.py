"""Tab completion: the script that is installed, as bash runs it."""

import shlex
import shutil
import subprocess

import pytest

from mmmos import cli
from mmmos.cli.completion import script

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The script for bash, and a folder to press Tab in."""
    folder = tmp_path_factory.mktemp("completion")
    (folder / "my audio").mkdir()
    (folder / "mmmos.bash").write_text(script(cli.build(), "bash"))
    return folder / "mmmos.bash"


@pytest.fixture
def press_tab(installed):
    """What bash offers for the last of some words; nothing where it falls back to paths."""
    if BASH is None:
        pytest.skip("there is no bash")

    def press_tab(*words):
        line = " ".join(map(shlex.quote, ("mmmos", *words)))
        code = (
            f"source {shlex.quote(str(installed))}; COMP_WORDS=({line}); COMP_CWORD={len(words)}; _mmmos;"
            ' printf "%s\\n" "${COMPREPLY[@]}"; complete -p mmmos'
        )
        done = subprocess.run([BASH, "--norc", "-c", code], capture_output=True, text=True, cwd=installed.parent)
        assert not done.returncode and not done.stderr, done.stderr
        *offers, how = done.stdout.splitlines()
        assert "-o default" in how
        return [offer for offer in offers if offer]

    return press_tab


@pytest.mark.parametrize(
    ("words", "offers"),
    [
        (["s"], ["score", "submissions"]),
        (["features", "ex"], ["extract", "export"]),
        (["run", "--dr"], ["--dry-run"]),
        (["features", "extract", "--enc"], ["--encoder"]),
        (["run", "--backend", ""], ["local", "dask", "ray"]),
        (["ensembles", "ablate", "--table", "c"], ["contributions", "curve"]),
        (["evaluate", "--unit", ""], ["system", "clip"]),
        (["score", "my"], []),
        (["score", "x.wav", "--to", "my"], []),
    ],
    ids=" ".join,
)
def test_tab_offers_commands_options_and_choices_and_leaves_paths_to_bash(press_tab, words, offers):
    assert press_tab(*words) == offers


def test_tab_runs_no_python(installed):
    assert "mmmos __complete" not in installed.read_text() and "python" not in installed.read_text()


@pytest.mark.parametrize(("shell", "start_up"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", None)])
def test_installing_writes_a_script_and_names_it_once(command, monkeypatch, tmp_path, shell, start_up):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZSH_CUSTOM", raising=False)
    for _ in range(2):
        code, out, err = command("--install-completion", "--shell", shell)
        assert (code, out) == (0, "") and "Written: " in err and "in this one type: " in err
    written = [path for path in tmp_path.rglob("*mmmos*") if path.is_file()]
    assert len(written) == 1 and "submissions" in written[0].read_text()
    if start_up:
        assert (tmp_path / start_up).read_text().count(str(tmp_path)) <= 2


def test_another_shell_is_asked_for_by_name(command, monkeypatch):
    from cyclopts.completion import detect

    def fail():
        raise detect.ShellDetectionError

    monkeypatch.setattr(detect, "detect_shell", fail)
    code, out, err = command("--install-completion")
    assert (code, out) == (2, "") and "mmmos --install-completion --shell bash" in err
