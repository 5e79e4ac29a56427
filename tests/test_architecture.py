"""The shape of the code: imports point one way, nothing unsafe is used, every command explains itself."""

import ast
import inspect
import shutil
import subprocess
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from cyclopts import App

from mmmos.cli import build
from mmmos.recipe import SHELVES, packaged_files

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mmmos"

# Each imports only from those before it.
ORDER = (
    *("errors", "axes", "files", "progress", "parallel", "registry", "recipe", "resampling"),
    *("audio", "manifest", "statistics", "predictions", "metrics", "hub"),
    *("features", "ensembles", "submissions", "scoring"),
    *("workspace", "challenge", "demo", "doctor", "pipeline", "app", "testing", "cli", "__main__"),
)

FILES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def imported(path: Path, *, inside_functions: bool) -> set[str]:
    """The modules of mmmos that a file imports, without those for type checkers alone."""
    statements = [n for n in nodes(FILES[path], inside_functions) if isinstance(n, ast.Import | ast.ImportFrom)]
    found = set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
            continue
        assert statement.level == 0, f"{path}:{statement.lineno}: a relative import"
        module = statement.module or ""
        submodules = {f"{module}.{alias.name}" for alias in statement.names}
        found |= {name if name in MODULES else module for name in submodules}
    return found & set(MODULES)


def nodes(node: ast.AST, inside_functions: bool) -> Iterator[ast.AST]:
    """All nodes below one that run on import, or also those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if not inside_functions and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        yield child
        yield from nodes(child, inside_functions)


def room(module: str) -> str:
    """The part of the package that a module belongs to: "mmmos.features.store" is of "features"."""
    return module.split(".")[1] if "." in module else ""


def test_every_module_has_its_place_in_the_order():
    assert {room(module) for module in MODULES} - {""} == set(ORDER)


def test_imports_point_one_way():
    wrong = []
    for module, path in MODULES.items():
        for target in imported(path, inside_functions=True) - {"mmmos"}:
            if not room(module) or ORDER.index(room(target)) > ORDER.index(room(module)):
                wrong.append(f"{module} imports {target}")
    assert not wrong


def test_no_import_cycles():
    graph = {module: imported(path, inside_functions=False) - {module} for module, path in MODULES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_shelves_hold_no_code():
    assert not [path for shelf in SHELVES for path in (ROOT / shelf).glob("*.py")]


@pytest.mark.parametrize("shelf", SHELVES)
def test_shelves_of_the_repository_equal_the_packaged_ones(shelf):
    for file in packaged_files(shelf):
        copy = ROOT / shelf / file.name
        assert copy.is_file(), f"{shelf}/{file.name} is absent; type: make shelves"
        assert copy.read_bytes() == file.read_bytes(), f"{shelf}/{file.name} differs; type: make shelves"


def test_gitignore_is_anchored(tmp_path):
    git = shutil.which("git")
    if git is None:
        pytest.skip("there is no git")
    subprocess.run([git, "init", "-q", tmp_path], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)

    def ignored(path: str) -> bool:
        return subprocess.run([git, "-C", tmp_path, "check-ignore", "-q", path]).returncode == 0

    for shelf in SHELVES:
        assert ignored(f"{shelf}/melstats-0123/shard.safetensors")
        assert not ignored(f"{shelf}/mine.toml")
        assert not ignored(f"mmmos/{shelf}/spec.py")
        assert not ignored(f"mmmos/recipes/{shelf}/quick.toml")
        assert not ignored(f"tests/{shelf}/test_spec.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_reads(path):
    """No pickle, no eval, no yaml.load, no remote code: files of others are data."""
    assert not [f"{path.name}:{line}: {what}" for line, what in unsafe(FILES[path])]


def unsafe(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every construct that could run code from a file."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}
    calls = {"eval", "exec", "compile", "yaml.load", "joblib.load", "os.system", "os.popen"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in modules)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name in calls:
                yield node.lineno, name
            if name == "torch.load" and given.get("weights_only") != "True":
                yield node.lineno, "torch.load without weights_only=True"
            if {("trust_remote_code", "True"), ("allow_pickle", "True"), ("shell", "True")} & set(given.items()):
                yield node.lineno, ast.unparse(node)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "eval(x)",
        "torch.load(p)",
        "f(trust_remote_code=True)",
        "yaml.load(f)",
        "load(p, allow_pickle=True)",
    ],
)
def test_unsafe_code_is_recognised(code):
    assert list(unsafe(ast.parse(code)))


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command of an application with the words that call it."""
    for name in app:
        if not name.startswith("-"):
            below = app[name]
            if below.default_command is not None:
                yield (*words, name), below
            yield from commands(below, (*words, name))


COMMANDS = dict(commands(build()))


def test_commands_are_found():
    assert {("run",), ("init",), ("demo",), ("features", "extract"), ("ensembles", "select")} <= set(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words, capsys):
    docstring = inspect.getdoc(COMMANDS[words].default_command) or ""
    assert "Example: mmmos " + " ".join(words) in docstring
    build()([*words, "--help"], result_action="return_value")
    shown = capsys.readouterr().out
    assert "Example: mmmos" in " ".join(shown.split())
    assert len(shown.splitlines()) <= 60
