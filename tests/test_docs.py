"""Every fenced block of the README and the docs is run, or read by the model that it is for.

The blocks of a page run in their order in one copy of the tiny demo workspace: bash through the shell, python in one
namespace. A toml block begins with a comment that names its file, and is written there; so is a python block that
begins with one. `make` only says what it would do.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmmos import audio, recipe
from mmmos.challenge import Challenge
from mmmos.ensembles.recipe import EnsembleRecipe
from mmmos.features.spec import FeatureRecipe
from mmmos.submissions.formats import Format

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
GENERATED = sorted((DOCS / "reference").glob("*.md"))
WRITTEN = [page for folder in (DOCS, DOCS / "guide", DOCS / "tutorials") for page in sorted(folder.glob("*.md"))]
PAGES = [ROOT / "README.md", *WRITTEN]
TEXTS = [
    *PAGES,
    *GENERATED,
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *ROOT.glob("mmmos/recipes/*/*.md"),
]

FENCE = re.compile(r"^(```+)(\S*)[^\n]*\n(.*?)^\1\s*$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# ([\w./-]+\.(?:toml|py))$")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, text and first line in the page."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The file that its first line names, as in ``# features/mine.toml``."""
        named = FILE.match(self.text.partition("\n")[0])
        return named[1] if named else None


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, without directives such as ```{toctree}."""
    text = page.read_text(encoding="utf-8")
    found = [Block(m[2], m[3], text[: m.start(3)].count("\n") + 1) for m in FENCE.finditer(text)]
    return [block for block in found if not block.language.startswith("{")]


def title(path: Path) -> str:
    """A page's name in test reports."""
    return str(path.relative_to(ROOT))


@pytest.fixture
def shell(tmp_path, monkeypatch, mmmos_script) -> None:
    """PATH with this environment's `mmmos`, and a `make` that checks its targets and runs nothing."""
    tools = tmp_path / "tools"
    tools.mkdir()
    python = f'#!/bin/sh\nexec {mmmos_script} "$@"\n'
    make = f'#!/bin/sh\nexec {shutil.which("make")} -n -C {shlex.quote(str(ROOT))} "$@"\n'
    for name, script in (("mmmos", python), ("make", make)):
        (tools / name).write_text(script)
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=title)
def test_blocks_run(page, workspace, shell):
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page):
        where = f"{title(page)}:{block.line}"
        if block.language == "bash":
            run_bash(block, where)
        elif block.language == "python" and block.file:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            # Blank lines before the block give tracebacks the page's own line numbers.
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), namespace)
        elif block.language == "toml":
            read_toml(block, where)
        else:
            assert block.language == "text", f"{where}: what is {block.language!r}? bash, python, toml or text"


def run_bash(block: Block, where: str) -> None:
    """Run a block; its first failing command fails the test."""
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not done.returncode, f"{where}: exit code {done.returncode}\n{block.text}\n{done.stdout}\n{done.stderr}"


def read_toml(block: Block, where: str) -> None:
    """Read a block with the model that its keys are of, and write it where it says it belongs."""
    keys = set(tomllib.loads(block.text))
    models = {"data": Challenge, "grid": EnsembleRecipe, "encoders": FeatureRecipe, "columns": Format}
    (model,) = [models[key] for key in keys & set(models)]
    found = recipe.parse(block.text, model, where)
    if isinstance(found, EnsembleRecipe):
        assert found.specs(["melstats"], where)
    assert block.file, f"{where}: the first line says which file this is, as in # features/mine.toml"
    # The workspace's own challenge.toml stays: its manifests are there.
    if block.file != "challenge.toml":
        Path(block.file).write_text(block.text, encoding="utf-8")


@pytest.mark.parametrize("page", TEXTS, ids=title)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", prose(page)):
        led_to = page.parent / target if target else page
        assert led_to.exists(), f"{title(page)} links to {target}, which is not there"
        assert not anchor or anchor in anchors(led_to), f"{title(page)}: {target} has no heading #{anchor}"


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What links to a page's headings may name, as GitHub and MyST make it of them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", prose(page), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower()) for heading in headings]
    return {text.replace(" ", "-") for text in words}


@pytest.mark.parametrize("page", TEXTS, ids=title)
def test_pages_name_no_machine(page):
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:work|home|root|tmp|Users)/\S*", text)


def test_the_first_screen_has_the_two_commands():
    head = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:24])
    assert "make demo" in head
    assert "make test" in head


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("CONTRIBUTING.md", 60)])
def test_length(name, most):
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most


def test_every_reason_and_flag_is_described_in_its_own_words():
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / "guide" / "audio.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted([*audio.REASONS, *audio.FLAGS])


def test_every_page_is_in_one_table_of_contents():
    trees = re.findall(
        r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    named = [line for tree in trees for line in tree.splitlines() if line and not line.startswith(":")]
    notebooks = sorted((DOCS / "tutorials").glob("*.ipynb"))
    pages = [page.relative_to(DOCS).with_suffix("").as_posix() for page in [*WRITTEN, *GENERATED, *notebooks]]
    assert sorted(named) == sorted(page for page in pages if page != "index")
