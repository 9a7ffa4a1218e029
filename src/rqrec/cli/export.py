"""`rqrec export`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from rqrec.cli.command import AsJson, command, emit


@command("rqrec export out/demo --what items --out items.npy")
def export(
    artifact: Annotated[Path, typer.Argument(help="Folder of a trained retrieval model, or its run folder.")],
    out: Annotated[Path, typer.Option(help="File to write, .npy or .safetensors; for ONNX a folder.")],
    what: Annotated[
        Literal["items", "codes", "onnx"],
        typer.Option(
            help="The vectors of all items, or of all codes, level by level; or the expert itself as ONNX files."
        ),
    ] = "items",
    expert: Annotated[str, typer.Option(help="Name of a trained expert of the model.")] = "codes",
    as_json: AsJson = False,
) -> None:
    """Write the vectors of items or codes, or an expert as ONNX files, and a table that says what the rows are."""
    from rqrec.cli.next_steps import say_next
    from rqrec.serving.exports import export as export_vectors
    from rqrec.serving.exports import export_onnx

    if what == "onnx":
        written = export_onnx(artifact, out, expert)
        emit(
            written,
            as_json,
            "{folder}: {names}".format(folder=written["folder"], names=", ".join(written["files"])),
        )
        return
    result = export_vectors(artifact, what, out, expert)
    emit(result, as_json, "{rows} vectors of width {width}: {vectors}; their rows: {ids}".format(**result))
    if not as_json and out.suffix == ".npy":
        read = (
            f"import numpy, polars; print(numpy.load({str(out)!r}), polars.read_parquet({result['ids']!r}))"
        )
        say_next("Next, open them in Python:", [f"{shlex.quote(sys.executable)} -c {shlex.quote(read)}"])
