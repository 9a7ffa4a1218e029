"""Vectors of a trained model as plain files, and its experts as ONNX files, for other programs.

Shapes: N items, L levels.
"""

import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import safetensors.numpy

from rqrec.core.artifact import (
    MANIFEST,
    atomic_write,
    check_outside_artifacts,
    check_replaceable,
    create,
    find,
    read_manifest,
)
from rqrec.data.tables import parse_errors_for
from rqrec.retrieval.artifact import CodesModel
from rqrec.retrieval.onnx_files import write_onnx
from rqrec.serving.recommender import Recommender

SUFFIXES = (".npy", ".safetensors")
ITEMS_FILE = "items.parquet"


def export(artifact: Path, what: Literal["items", "codes"], out: Path, expert: str) -> dict[str, Any]:
    """Write the vectors of an expert's items or codes to `out`, float32 [rows, width], and beside it what they are.

    `out` ends in .npy, or in .safetensors, where the array is named "vectors". Its rows are listed in the same order
    in a parquet file whose name ends in .rows.parquet: `item_id`, or `level` and `code`. Returns both paths and the
    shape. Raises ValueError on another suffix, or an expert without such vectors, if
    `out` lies in an artefact, and FileExistsError if it is another file than an earlier export.
    """
    if out.suffix not in SUFFIXES:
        examples = " or ".join(f"vectors{suffix}" for suffix in SUFFIXES)
        raise ValueError(f"{str(out)!r} is no name of a file of vectors: give one such as {examples}.")
    beside = out.with_suffix(".rows.parquet")
    for other in (out.with_suffix(suffix) for suffix in SUFFIXES if suffix != out.suffix):
        if other.exists() and beside.exists():
            raise FileExistsError(f"{beside} lists the rows of {other}: choose another name than {out}.")
    check_replaceable(beside, _lists_rows)
    check_replaceable(out, lambda _: beside.exists())
    recommender = Recommender.load(artifact)
    if what == "items":
        vectors, rows = (
            recommender.item_vectors(expert),
            pl.DataFrame({"item_id": recommender.catalog.id_map.all}),
        )
    else:
        levels = recommender.code_vectors(expert)
        vectors = np.concatenate(levels)
        names = [(level, code) for level, one in enumerate(levels) for code in range(len(one))]
        rows = pl.DataFrame(names, schema={"level": pl.Int64, "code": pl.Int64}, orient="row")
    with atomic_write(beside) as file:
        rows.write_parquet(file)
    with atomic_write(out) as file:
        if out.suffix == ".npy":
            np.save(file, vectors)
        else:
            file.write(safetensors.numpy.save({"vectors": np.ascontiguousarray(vectors)}))
    return {"vectors": str(out), "ids": str(beside), "rows": len(vectors), "width": vectors.shape[1]}


def _lists_rows(file: Path) -> bool:
    with parse_errors_for(file):
        return set(pl.scan_parquet(file, glob=False).collect_schema()) in ({"item_id"}, {"level", "code"})


def export_onnx(artifact: Path, out: Path, expert: str) -> dict[str, Any]:
    """Write a trained expert as ONNX files into a folder (see `rqrec.retrieval.onnx_files`).

    Beside them, `items.parquet` has for each item index its `item_id`, whether it may be recommended and, if the
    expert is of type codes, its `semantic_id`; the items are those of the catalogue as it is now. Returns the folder
    and its settings, which its manifest has too: how many items of a history the encoder reads (shorter ones are
    padded with -1 on the right), and the inputs and outputs of each file. Raises ValueError if the expert is not
    trained, or if what writes ONNX files is not installed.
    """
    check_outside_artifacts(out)
    if (out / MANIFEST).is_file() and (other := read_manifest(out, "onnx").settings.get("expert")) != expert:
        raise FileExistsError(
            f"{out} has the expert {other!r}: choose another folder for {expert!r}, or remove it."
        )
    folder = find(artifact, "retrieval")
    recommender = Recommender.load(folder)
    found = recommender.trained_expert(expert)
    rows = pl.DataFrame({"item_id": recommender.catalog.id_map.all, "recommended": recommender.available})
    settings: dict[str, Any] = {"expert": expert, "type": recommender.experts[expert]}
    if isinstance(found, CodesModel):
        rows = rows.with_columns(semantic_id=pl.Series(found.table.codes_NL.astype(np.int64).tolist()))
        settings["level_sizes"] = list(found.model.level_sizes)
    inputs = {"retrieval": read_manifest(folder).hash}
    with create(out, "onnx", settings=settings, inputs=inputs) as target:
        try:
            settings |= write_onnx(found, target)
        except ImportError as error:
            raise ValueError(
                f"The package {error.name} is not installed, which ONNX files need. Run: "
                f"{sys.executable} -m pip install onnx onnxscript"
            ) from error
        rows.write_parquet(target / ITEMS_FILE)
    return {"folder": str(out), **settings}
