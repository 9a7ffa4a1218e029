"""The notebooks in examples/, run from top to bottom."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))


def text_of(notebook: nbformat.NotebookNode) -> str:
    """What its cells print and show, as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(one.get("text") or one.get("data", {}).get("text/plain", "") for one in outputs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom_in_an_empty_folder(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=1000, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = text_of(notebook)
    assert "log-probabilities" in text  # of the recommendations
    for evaluation in tmp_path.glob("out/*/test_*/evaluation.json"):
        recall = json.loads(evaluation.read_text())["metrics"]["recall@10"]
        assert f"{recall:.4f}".rstrip("0") in text or "popular" in evaluation.parent.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_stored_notebook_shows_what_it_printed_and_nothing_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len(path.read_bytes()) < 500_000
    assert "log-probabilities" in text_of(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))  # run once, in order
    for word in ("/tmp/", "/home/", "/root/", "Traceback"):
        assert word not in path.read_text()
