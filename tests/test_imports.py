"""Imports point in one direction, the ways through the package are short, and `import rqrec` is quick."""

import ast
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import rqrec

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


# The help of these loads no package for tables or numbers either.
LIGHT = (
    "demo train-rqvae inspect-ids run-rqvae train-decoder train-sasrec export push pull items compare bench join "
    "tokenize batch-recommend fit-rqkmeans"
)


def test_help_loads_none_of_the_heavy_packages() -> None:
    code = f"""
import sys
from typer.testing import CliRunner
from rqrec.cli import COMMANDS, app

def check(heavy, *arguments):
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2 * (arguments == ("nonsense",)), done.output
    assert not heavy & set(sys.modules), (arguments, heavy & set(sys.modules))

torch = {{"torch", "transformers", "sentence_transformers", "matplotlib", "fastapi"}}
everything = torch | {{"polars", "sklearn", "scipy"}}
check(everything, "--help")
check(everything, "nonsense")
check(everything, "items", "find", "--help")
for name in "{LIGHT}".split():
    assert name in COMMANDS
    check(everything, name, "--help")
for name in COMMANDS:
    if name != "settings":  # a page of all of them, with the models
        check(torch, name, "--help")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_public_name_can_be_imported_and_has_a_docstring() -> None:
    for name in rqrec.__all__:
        thing = getattr(rqrec, name)
        if name != "__version__":
            assert thing.__doc__, name
            assert thing.__module__ == rqrec._HOMES[name], name
    assert set(rqrec.__all__) <= set(dir(rqrec))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        rqrec.nonsense  # noqa: B018


MOST_PARAMETERS = 12


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_function_has_more_than_a_dozen_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            assert count <= MOST_PARAMETERS, f"{node.name} has {count} parameters"


# The files that a reader opens, each imported by the one before it, from a command to what it is about.
TO_THE_LOSS = [
    "train_decoder.py",
    "cli/train_decoder.py",
    "stages/train_decoder.py",
    "training/decoder_task.py",
    "models/architectures.py",
    "models/hierarchical.py",
    "models/trie_softmax.py",
]
TO_THE_BEAM = [
    "cli/recommend.py",
    "serving/recommender.py",
    "retrieval/retriever.py",
    "retrieval/beam_search.py",
    "retrieval/ranking.py",
]


@pytest.mark.parametrize(("way", "goal", "most"), [(TO_THE_LOSS, "log_softmax", 7), (TO_THE_BEAM, "topk", 5)])
def test_the_way_from_a_command_to_its_core_is_short(way: list[str], goal: str, most: int) -> None:
    assert len(way) <= most
    root = SOURCE.parents[1]
    files = [root / name if "/" not in name else SOURCE / name for name in way]
    for file, following in pairwise(files):
        module = f"rqrec.{following.relative_to(SOURCE).with_suffix('').as_posix().replace('/', '.')}"
        # The documented scripts name a command, and the command line imports the file of that name.
        text = file.read_text()
        assert module in text or (file.parent == root and '"train-decoder"' in text), f"{file} -> {module}"
    assert goal in files[-1].read_text()
