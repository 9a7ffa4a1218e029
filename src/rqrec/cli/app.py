"""What the commands share: the application, its options, how a failure is told, how a result is printed."""

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer

# Read when torch loads: threads that wait for each other sleep instead of spinning. On a machine whose cores
# are busy with other work too, spinning makes a training step many times slower; on an idle one it gains little.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

P = ParamSpec("P")

app = typer.Typer(
    name="rqrec",
    help="Generative retrieval with semantic IDs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
DataDir = Annotated[Path, typer.Option(help="Where raw data is kept, and downloaded to where it is missing.")]
Configs = Annotated[list[Path], typer.Argument(help="gin files; later ones win.")]
Engine = Annotated[str, typer.Option(help="local: processes of this machine; ray: a Ray cluster.")]
Processes = Annotated[int | None, typer.Option(min=1, help="With local: how many.")]
MaxMinutes = Annotated[
    float | None, typer.Option(help="Training ends after this time, and the schedule fits it.")
]
Bindings = Annotated[list[str], typer.Option("--gin", help='One more setting, such as "train.seed=1".')]


def sentence(command: Callable[P, None]) -> Callable[P, None]:
    """Tell a failure in a sentence and exit with status 1; a defect of ours still shows its traceback."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except (ValueError, OSError) as error:
            print(f"rqrec: {_words(error)}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            print("rqrec: interrupted. The same command goes on from what was saved.", file=sys.stderr)
            raise typer.Exit(130) from error

    return told


def _words(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}. Nothing that was saved before is lost."
    return str(error)


def emit(facts: dict[str, Any], as_json: bool, text: str) -> None:
    """The result on standard output: the facts as JSON, or the text for people. Of several processes, once."""
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(facts) if as_json else text)


def table(rows: list[dict[str, Any]]) -> str:
    """Recommendations as aligned lines, each with the path of its codes below where it has one."""
    width = max((len(row["title"]) for row in rows), default=0)
    lines = []
    for place, row in enumerate(rows, start=1):
        lines.append(f"{place:3d}. {row['title']:<{width}}  {row['score']:8.3f}  (item {row['item_id']})")
        for step in row.get("path", []):
            beside = f"{step['n_items']} item" + ("s" if step["n_items"] > 1 else "")
            others = f", also {', '.join(step['others'])}" if step["others"] else ""
            lines.append(f"       code {step['code']:<5d} {step['probability']:7.2%}  {beside}{others}")
    return "\n".join(lines)


def within(max_minutes: float | None, bindings: list[str]) -> list[str]:
    """The bindings, with a time budget where one is given."""
    return bindings if max_minutes is None else [*bindings, f"train.max_minutes={max_minutes}"]


def configured_function(name: str, configs: list[Path], bindings: list[str]) -> Callable[[], Path]:
    """The function `name` bound by the configuration; both of a shared file's functions are known to gin."""
    from rqrec.core.config import configured
    from rqrec.stages import run_rqvae, train_decoder, train_rqvae, train_sasrec

    trains: dict[str, Callable[..., Path]] = {
        "train_decoder": train_decoder.train,
        "train_sasrec": train_sasrec.train,
    }
    functions: dict[str, Callable[..., Path]] = {
        "train": trains.get(name, train_rqvae.train),
        "generate_semantic_ids": run_rqvae.generate_semantic_ids,
    }
    bound = configured(functions, configs, bindings)
    return bound["generate_semantic_ids" if name == "generate_semantic_ids" else "train"]


def facts_of(folder: Path) -> dict[str, Any]:
    """The facts of an artefact."""
    from rqrec.core.artifact import read_manifest

    return read_manifest(folder).metrics
