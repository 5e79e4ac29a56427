"""The notebook of the docs runs, says the same again, and holds nothing of the machine that ran it."""

import re
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "tutorials" / "story.ipynb"
STORED = nbformat.read(NOTEBOOK, as_version=4)
CODE = [cell for cell in STORED.cells if cell.cell_type == "code"]

# What two machines may differ by in a rounded number: sums in another order can turn its last digit.
TOLERANCE = 0.021
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?|\bNaN\b|\bnan\b")


def said(cell: Any) -> list[str]:
    """The text of a cell's outputs, without what pictures and players are called."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return [text for text in texts if not text.startswith(("<Figure", "<IPython"))]


def words_and_numbers(text: str) -> tuple[list[str], list[float]]:
    """A text as its words, whose spacing does not count, and its numbers."""
    return NUMBER.sub("#", text).split(), [float(number) for number in NUMBER.findall(text)]


@pytest.mark.notebook
def test_it_runs_and_says_what_is_stored(tmp_path):
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(fresh, timeout=300, kernel_name="python3", resources=resources).execute()
    ran = [cell for cell in fresh.cells if cell.cell_type == "code"]
    for number, (stored, again) in enumerate(zip(CODE, ran, strict=True)):
        assert len(said(stored)) == len(said(again)), f"code cell {number} has other outputs"
        if "varies" in stored.metadata.get("tags", []):
            continue
        for before, now in zip(said(stored), said(again), strict=True):
            (words, numbers), (new_words, new_numbers) = words_and_numbers(before), words_and_numbers(now)
            assert new_words == words, f"code cell {number} says something else; type: make notebook"
            assert new_numbers == pytest.approx(numbers, abs=TOLERANCE, nan_ok=True), (
                f"code cell {number} has other numbers; type: make notebook"
            )
    assert not list(tmp_path.iterdir()), "the notebook leaves files where it is run"


def test_every_code_cell_ran_in_order_and_without_a_complaint():
    assert [cell.execution_count for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = {
        output.output_type if output.output_type != "stream" else output.name for c in CODE for output in c.outputs
    }
    assert kinds <= {"execute_result", "display_data", "stdout"}


def test_it_holds_nothing_of_the_machine_or_the_hour():
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:work|home|root|tmp|Users)/", text)
    assert not [cell.id for cell in STORED.cells if "execution" in cell.metadata]
    assert STORED.metadata.kernelspec.name == "python3"
    assert set(STORED.metadata) <= {"kernelspec", "language_info"}


def test_it_is_small():
    assert NOTEBOOK.stat().st_size < 700_000


def test_links_lead_somewhere():
    prose = "\n".join(cell.source for cell in STORED.cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:\s]+)", prose):
        assert (NOTEBOOK.parent / target).exists(), f"the notebook links to {target}, which is not there"
