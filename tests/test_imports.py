"""Imports point in one direction, and `import rqrec` is quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rqrec"

# A folder may import from itself and from those before it.
ROOMS = (
    "core",
    "data",
    "tokenizer",
    "models",
    "knn",
    "retrieval",
    "evaluation",
    "serving",
    "training",
    "stages",
    "experiments",
    "cli",
)


def test_the_package_has_only_the_known_subpackages() -> None:
    found = {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"}
    assert found == {*ROOMS, "__init__.py", "__main__.py", "py.typed"}


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_towards_the_data(path: Path) -> None:
    part = path.relative_to(SOURCE).parts[0]
    if part in ("__init__.py", "__main__.py"):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module == "rqrec":
            names = [f"rqrec.{alias.name}" for alias in node.names if alias.name != "__version__"]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.startswith("rqrec."):
                imported = name.split(".")[1]
                assert ROOMS.index(imported) <= ROOMS.index(part), f"{part} imports {name}"


def test_importing_rqrec_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, rqrec, rqrec.data.dataset; "
        "heavy = {'torch', 'matplotlib', 'transformers', 'fastapi', 'sentence_transformers'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
