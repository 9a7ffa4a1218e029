"""Vectors of a trained model as plain files, for other programs."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import safetensors.numpy

from rqrec.core.artifact import atomic_write
from rqrec.serving.recommender import Recommender

SUFFIXES = (".npy", ".safetensors")


def export(artifact: Path, what: Literal["items", "codes"], out: Path, expert: str) -> dict[str, Any]:
    """Write the vectors of an expert's items or codes to `out`, float32 [rows, width], and beside it what they are.

    `out` ends in .npy, or in .safetensors, where the array is named "vectors". Its rows are listed in the same order
    in a parquet file whose name ends in .rows.parquet: `item_id`, or `level` and `code`. Returns both paths and the
    shape. Raises ValueError on another suffix, or an expert without such vectors.
    """
    if out.suffix not in SUFFIXES:
        raise ValueError(f"{out} must end in {' or '.join(SUFFIXES)}.")
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
    beside = out.with_suffix(".rows.parquet")
    with atomic_write(beside) as file:
        rows.write_parquet(file)
    with atomic_write(out) as file:
        if out.suffix == ".npy":
            np.save(file, vectors)
        else:
            file.write(safetensors.numpy.save({"vectors": np.ascontiguousarray(vectors)}))
    return {"vectors": str(out), "ids": str(beside), "rows": len(vectors), "width": vectors.shape[1]}
