"""What is shipped: the wheel, the source archive, their metadata, and how light the package is to import."""

import email
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from configparser import ConfigParser
from email.message import Message
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

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
    if Path(folder) == ROOT / "docs":
        return outputs | {"_build"}
    if Path(folder).parent == ROOT and Path(folder).name in SHELVES:
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


def test_the_extra_all_is_every_extra_of_users(metadata):
    (everything,) = [r for r in metadata.get_all("Requires-Dist") if re.search(r"""extra == ["']all["']$""", r)]
    named = re.search(r"mmmos\[(.*?)\]", everything)[1].split(",")
    assert sorted(named) == sorted(set(metadata.get_all("Provides-Extra")) - {"all", "docs", "test"})


def test_dependencies(metadata):
    required = {r.split(">")[0].lower() for r in metadata.get_all("Requires-Dist") if "extra ==" not in r}
    assert {"torch", "transformers", "nnaudio", "librosa", "pandas", "scikit-learn", "scipy", "joblib"} <= required
    assert not required & {"torchaudio", "torchvision", "torchcodec", "timm", "muq"}


def declared(extras: set[str] | None = None) -> dict[str, str]:
    """The requirements of setup.cfg and of some extras (None: all): canonical name -> bound."""
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    blocks = [setup["options"]["install_requires"]]
    blocks += [block for extra, block in setup["options.extras_require"].items() if extras is None or extra in extras]
    found = [re.match(r"([\w.-]+)(?:\[.*\])?(.*)", line) for block in blocks for line in block.split()]
    return {canonicalize_name(match[1]): match[2].removeprefix(">=") for match in found if match[1] != "mmmos"}


def pinned(file: str) -> dict[str, str]:
    """The pins of a file of constraints: canonical name -> version."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def test_constraints_hold_every_dependency():
    assert not declared().keys() - pinned("constraints.txt").keys()


def test_the_oldest_constraints_are_the_lower_bounds():
    # Of torch, only 2.13.0 has a CPU build where the tests run.
    bounds = {name: Version(bound) for name, bound in declared().items() if bound and name != "torch"}
    pins = pinned("constraints-oldest.txt")
    assert {name: Version(pins[name]) for name in bounds} == bounds
    assert not declared({"test"}).keys() - pins.keys()


def test_what_the_makefile_names_is_there():
    named = re.findall(r"(?:tests|mmmos)/[\w/.]+", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(named) > 30
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.mark.parametrize("file", ["constraints.txt", "constraints-oldest.txt"])
def test_constraints_are_sorted_and_in_lower_case(file):
    for section in re.split(r"\n\n(?:#.*\n)+", (ROOT / file).read_text(encoding="utf-8").strip())[1:]:
        names = [line.split("==")[0].replace("_", "-") for line in section.splitlines()]
        assert names == sorted({name.lower() for name in names})


def test_the_licence_of_every_dependency_of_users_is_told():
    licences = tomllib.loads((ROOT / "docs/licences.toml").read_text(encoding="utf-8"))
    told = {kind: {canonicalize_name(name) for name in names} for kind, names in licences.items()}
    core = declared(set()).keys()
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    users = set(setup["options.extras_require"]) - {"all", "docs", "test"}
    assert told == {"core": core, "extras": declared(users).keys() - core}


def test_entry_points(wheel):
    points = ConfigParser()
    points.optionxform = str
    points.read_string(wheel.read(f"mmmos-{mmmos.__version__}.dist-info/entry_points.txt").decode())
    assert points["console_scripts"]["mmmos"] == "mmmos.cli:main"
    assert "melstats" in points["mmmos.encoders"]
    for group in ("heads", "losses", "selectors"):
        assert points.options(f"mmmos.{group}")


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
    own = {"Makefile", "constraints.txt", "constraints-oldest.txt", "CHANGELOG.md", "CITATION.cff"}
    kinds = {".py", ".md", ".toml", ".cfg", ".ipynb", ".css", ".png"}
    for folder in ("tests", "docs", "benchmarks"):
        found = {p.relative_to(ROOT) for p in (ROOT / folder).rglob("*") if p.suffix in kinds}
        own |= {path.as_posix() for path in found if not {"_build", "build"} & set(path.parts)}
    assert not (shelves | own) - names
    assert not names & set(OUTPUTS)
    assert not [name for name in names if name.endswith(".pyc")]


@pytest.fixture(scope="module")
def alone(built, tmp_path_factory) -> Callable[[str, Path], str]:
    """Runs code in a folder by an interpreter that has the installed wheel and its dependencies, and no checkout."""
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    (wheel,) = built.glob("*.whl")
    subprocess.run([*pip, "--no-deps", "--no-index", "--target", target, wheel], check=True)
    path = [str(target), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]

    def run(code: str, folder: Path) -> str:
        # Without site, the links of editable installations are not read.
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path += {path}\n{code}"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=folder)
        assert not done.returncode, done.stderr
        assert str(ROOT) not in done.stdout
        return done.stdout

    return run


def test_the_wheel_works_where_no_checkout_is(alone, tmp_path):
    code = """
import mmmos
from mmmos import registry
from mmmos.cli import main

def call(*arguments):
    try:
        main(list(arguments))
    except SystemExit as end:
        assert not end.code, arguments

call("--version")
call("--help")
call("init", "mine")
call("features", "list")
clips = mmmos.read_manifest("clips.csv", labels=set())
assert all(registry.names(kind) for kind in ("encoders", "heads", "losses", "selectors"))
print(mmmos.__file__, list(clips.index))
"""
    (tmp_path / "clips.csv").write_text("sample_id,data_path\na,a.wav\nb,b.wav\n", encoding="utf-8")
    told = alone(code, tmp_path)
    assert told.startswith(mmmos.__version__)
    for words in ("Usage: mmmos", "melstats", "['a', 'b']"):
        assert words in told
    for shelf in SHELVES:
        assert {file.name for file in (tmp_path / "mine" / shelf).iterdir()} >= {f.name for f in packaged_files(shelf)}


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
