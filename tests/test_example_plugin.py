"""The example plug-in, installed in a folder of its own, as a stranger's package: both names work, its own tests pass,
and a second package with one of its names is an error.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "example_plugin"

# Commands one after the other in one process.
COMMANDS = """
import sys
from mmmos.cli import build
for command in sys.argv[1:]:
    assert not build()(command, exit_on_error=False, print_error=False, result_action="return_value"), command
"""

RECIPE = """
[[grid]]
head = "linear"
features = "loudness"
normalise = "standard"
loss = "log_cosh"
folds = 2
options = { epochs = 3 }
"""


def python(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """What a Python process of its own says."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the example, in which a build may leave files."""
    copy = tmp_path_factory.mktemp("example") / "source"
    return Path(shutil.copytree(EXAMPLE, copy, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info")))


@pytest.fixture(scope="module")
def installed(source) -> Path:
    """The folder that the example is installed in; this environment stays as it is."""
    folder = source.parent / "site"
    options = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", "--no-build-isolation")
    done = python("-m", "pip", "install", *options, "--target", folder, source)
    assert not done.returncode, done.stdout + done.stderr
    return folder


def environment(*folders: Path) -> dict[str, str]:
    """This environment with some folders of packages."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}


def test_the_package_holds_what_setup_cfg_names(installed):
    names = {path.relative_to(installed).as_posix() for path in installed.glob("mmmos_loudness/*.*")}
    assert names == {f"mmmos_loudness/{name}" for name in ("__init__.py", "encoder.py", "loss.py", "py.typed")}


def test_its_encoder_and_its_loss_work_by_name(installed, workspace):
    challenge = Path("challenge.toml")
    challenge.write_text(challenge.read_text().replace('recipe = "melstats"', 'encoders = ["loudness"]'))
    Path("ensembles/mine.toml").write_text(RECIPE)
    commands = ("features list", "features extract loudness train.csv dev.csv pam.csv test.csv", "ensembles train mine")
    done = python("-c", COMMANDS, *commands, env=environment(installed))
    assert not done.returncode, done.stderr
    assert re.search(r"^ *loudness +none +MIT +16000 +2 +8 +20 +320$", done.stdout, re.MULTILINE)
    assert "64 of 64 clips" in done.stderr
    (run,) = Path("ensembles/mine").glob("*/run.json")
    assert json.loads(run.read_text())["spec"]["loss"] == "log_cosh"


def test_its_own_tests_pass(installed, source):
    done = python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", source / "tests", cwd=source, env=environment(installed)
    )
    assert not done.returncode, done.stdout + done.stderr


def test_a_second_package_with_its_name_is_an_error_that_names_both(installed, tmp_path, mmmos_command):
    about = tmp_path / "other_ears-2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: other-ears\nVersion: 2.0\n")
    (about / "entry_points.txt").write_text("[mmmos.encoders]\nloudness = other_ears:Loudness\n")
    done = mmmos_command("features", "list", env=environment(installed, tmp_path))
    assert done.returncode == 5
    assert "Two packages register the encoder 'loudness'" in done.stderr
    assert "mmmos-loudness" in done.stderr
    assert "other-ears" in done.stderr
