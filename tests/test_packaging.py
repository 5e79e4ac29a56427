"""What is shipped: the wheel, the source archive, their metadata, and how light the package is to import."""

import email
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from configparser import ConfigParser
from email.message import Message
from pathlib import Path

import pytest

import mmmos
from mmmos.recipe import SHELVES, packaged_files

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = (
    "features/melstats-0123/a.safetensors",
    "ensembles/quick/a/run.json",
    "submissions/demo/answer.txt",
    "demo/train.csv",
    "docs/_build/index.md",
    ".venv/pyvenv.cfg",
)


def not_source(folder: str, names: list[str]) -> set[str]:
    """What of a folder of the checkout is no source: caches, and what was computed in it."""
    outputs = {name for name in names if name == "__pycache__" or name.endswith(".egg-info")}
    if Path(folder) == ROOT:
        return outputs | {name for name in names if name in {"build", "dist", "demo"} or name.startswith(".")}
    if Path(folder).parent == ROOT and Path(folder).name in {*SHELVES, "docs"}:
        outputs |= {name for name in names if (Path(folder) / name).is_dir()}
    return outputs


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A folder with the source archive of a checkout that was used, and the wheel that is built from the archive."""
    checkout, out = tmp_path_factory.mktemp("source") / "mmmos", tmp_path_factory.mktemp("dist")
    shutil.copytree(ROOT, checkout, ignore=not_source)
    for name in OUTPUTS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).touch()
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, checkout]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not done.returncode, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built) -> zipfile.ZipFile:
    """The wheel."""
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel) -> Message:
    """The wheel's METADATA."""
    return email.message_from_bytes(wheel.read(f"mmmos-{mmmos.__version__}.dist-info/METADATA"))


def test_metadata(metadata):
    assert metadata["Name"] == "mmmos"
    assert metadata["Version"] == mmmos.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License"] == "MIT"
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# MMMOS")
    assert {"test", "docs"} <= set(metadata.get_all("Provides-Extra"))


def test_dependencies(metadata):
    required = {r.split(">")[0].lower() for r in metadata.get_all("Requires-Dist") if "extra ==" not in r}
    assert {"torch", "transformers", "nnaudio", "librosa", "pandas", "scikit-learn", "scipy", "joblib"} <= required
    assert not required & {"torchaudio", "torchvision", "torchcodec", "timm", "muq"}


def test_constraints_hold_every_dependency(metadata):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if line and not line.startswith("#")}
    wanted = {re.split(r"[;>\[]", r)[0].strip().lower() for r in metadata.get_all("Requires-Dist")}
    assert not wanted - pinned
    assert not [line for line in lines if line and not line.startswith("#") and "==" not in line]


def test_entry_points(wheel):
    declared = ConfigParser()
    declared.optionxform = str
    declared.read_string(wheel.read(f"mmmos-{mmmos.__version__}.dist-info/entry_points.txt").decode())
    assert declared["console_scripts"]["mmmos"] == "mmmos.cli:main"
    assert "melstats" in declared["mmmos.encoders"]
    for group in ("heads", "losses", "selectors"):
        assert declared.options(f"mmmos.{group}")


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    info = f"mmmos-{mmmos.__version__}.dist-info"
    names = set(wheel.namelist())
    assert {name.split("/")[0] for name in names} == {"mmmos", info}
    assert wheel.read(f"{info}/top_level.txt").split() == [b"mmmos"]
    assert f"{info}/licenses/LICENSE" in names
    source = {f"mmmos/{p.relative_to(ROOT / 'mmmos').as_posix()}" for p in (ROOT / "mmmos").rglob("*.py")}
    templates = {f"mmmos/submissions/templates/{p.name}" for p in (ROOT / "mmmos/submissions/templates").glob("*.html")}
    recipes = {f"mmmos/recipes/{shelf}/{file.name}" for shelf in SHELVES for file in packaged_files(shelf)}
    assets = {f"mmmos/app/assets/{p.name}" for p in (ROOT / "mmmos/app/assets").iterdir()}
    assert templates
    held = source | templates | assets | recipes | {"mmmos/py.typed"}
    assert {name for name in names if name.startswith("mmmos/")} == held


def test_the_source_archive_is_a_checkout_without_outputs(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    shelves = {f"{shelf}/{file.name}" for shelf in SHELVES for file in packaged_files(shelf)}
    own = {"Makefile", "constraints.txt", "CHANGELOG.md", "CITATION.cff", "tests/conftest.py", "docs/index.md"}
    assert not (shelves | own) - names
    assert not names & set(OUTPUTS)
    assert not [name for name in names if name.endswith(".pyc")]


def loaded_by(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after some code."""
    script = f"import sys\n{code}\nimport json; sys.__stdout__.write('\\n' + json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_importing_is_light():
    heavy = {"torch", "pandas", "numpy", "scipy", "sklearn", "librosa", "transformers", "soundfile", "pydantic"}
    assert not loaded_by("import mmmos; dir(mmmos); mmmos.__version__") & heavy


def test_help_is_light():
    code = "from mmmos.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code"
    assert not loaded_by(code) & {"torch", "pandas", "scipy", "sklearn", "librosa", "transformers", "soundfile"}


def test_public_names():
    assert len(mmmos.__all__) <= 20
    assert sorted(mmmos.__all__) == sorted(set(mmmos.__all__)) == dir(mmmos)
    for name in mmmos.__all__:
        assert getattr(mmmos, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'extrct'"):
        _ = mmmos.extrct


def test_version_is_the_installed_one():
    from importlib.metadata import version

    assert version("mmmos") == mmmos.__version__
