"""Recommendations for more users than fit in memory, part by part, by as many workers as there are.

A part is a run of rows of an input file, and its result a file of its own that appears when it is whole. So a
run that was interrupted goes on with the parts that lack, and neither the number of workers nor where they
are changes a row.

Shapes: U users of a part, K recommendations.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    atomic_write,
    file_hash,
    find,
    read_json,
    read_manifest,
    write_json,
)
from rqrec.core.progress import log, meter
from rqrec.core.workers import Workers
from rqrec.data.history_files import as_histories, count_rows, input_files, read_histories
from rqrec.data.ids import PADDING, IdMap, UnknownIdError
from rqrec.data.sequences import Histories, gather_right_padded
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.retriever import Retriever

PLAN_FILE = "plan.json"
BATCH = 64  # users of one search; parts are whole batches, so that a user's neighbours in it never change
SCHEMA: dict[str, Any] = {
    "item_ids": pl.List(pl.String),
    "scores": pl.List(pl.Float32),
    "n_skipped": pl.Int32,
}


@dataclass(frozen=True)
class BatchSettings:
    """What is asked for.

    The `k` best items of each user, by a beam of at least `beam_width`; with `exclude_seen` none of the
    history. `unknown`: an id that the catalogue lacks is an error ("raise") or passed over ("skip").
    `rows_per_part`: users of a part, a multiple of 64.
    """

    k: int = 20
    beam_width: int = 50
    exclude_seen: bool = True
    unknown: Literal["raise", "skip"] = "raise"
    rows_per_part: int = 8192

    def __post_init__(self) -> None:
        for name in ("k", "beam_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.unknown not in ("raise", "skip"):
            raise ValueError(f"unknown is {self.unknown!r}: use 'raise' or 'skip'.")
        if self.rows_per_part < 1 or self.rows_per_part % BATCH:
            raise ValueError(f"rows_per_part is {self.rows_per_part}; it must be a multiple of {BATCH}.")


class Model(NamedTuple):
    """The folder of a retrieval model, and the hash that it has: a worker refuses another one there."""

    folder: str
    hash: str


class Part(NamedTuple):
    """`rows` users of a file of histories, from row `first` on, and where their recommendations go."""

    source: Path
    first: int
    rows: int
    target: Path


def batch_recommend(
    artifact: Path, source: Path | str, folder: Path, settings: BatchSettings, workers: Workers
) -> dict[str, Any]:
    """Recommend to every user of `source`, into parquet files in `folder`; gives the counts.

    `source` is a .parquet or .csv file, a folder of them or a pattern: histories, or a log (see
    `rqrec.data.history_files`). The result has a row a user, in the order of the histories: `user_id`, `item_ids`
    (list of strings, the likeliest first), `scores` (list of float32, log-probabilities), `n_skipped`
    (unknown ids of the history). The same call goes on where it was interrupted.

    Raises ValueError where `folder` was begun with another model, input or settings, FileExistsError where
    it holds something else, UnknownIdError (see `BatchSettings`).
    """
    folder, files = Path(folder), input_files(source)
    artifact = find(artifact, "retrieval").resolve()
    model = Model(str(artifact), read_manifest(artifact, "retrieval", verify=True).hash)
    plan = {
        "format_version": FORMAT_VERSION,
        "model": model.hash,
        "inputs": {file.name: file_hash(file) for file in files},
        **asdict(settings),
    }
    _begin(folder, plan)
    if (facts := _finished(folder)) is not None:
        return facts
    histories = as_histories(files, folder / ".histories")
    parts = list(_parts(histories, folder.resolve(), settings.rows_per_part))
    missing = [part for part in parts if not part.target.is_file()]
    if len(missing) < len(parts):
        log(f"{len(parts) - len(missing)} of {len(parts)} parts are there already.")
    if missing:
        with meter("Recommending", sum(part.rows for part in missing)) as progress:
            for rows in workers.run(partial(recommend_part, model, settings), missing):
                progress.advance(rows)
    return _finish(folder, [part.target for part in parts], plan)


def recommend_part(model: Model, settings: BatchSettings, part: Part) -> int:
    """Write the recommendations of one part, whole or not at all; gives the number of its users."""
    retriever, id_map = _opened(model, settings.beam_width)
    users = read_histories(part.source, part.first, part.rows)
    lengths_U = users["history"].list.len().to_numpy().astype(np.int64)
    flat = id_map.find(chain.from_iterable(users["history"].to_list()))
    user_of = np.repeat(np.arange(len(users)), lengths_U)
    unknown = flat == PADDING
    if settings.unknown == "raise" and unknown.any():
        row = int(user_of[unknown.argmax()])
        _refuse(id_map, users["user_id"][row], users["history"][row].to_list())
    skipped_U = np.bincount(user_of[unknown], minlength=len(users))
    items_UK, scores_UK = _ranked(
        retriever, flat[~unknown], lengths_U - skipped_U, users["user_id"].cast(pl.String).to_list(), settings
    )
    counts = (items_UK != PADDING).sum(axis=1).tolist()
    columns = {
        "item_ids": [id_map.ids(row[:n]) for row, n in zip(items_UK.tolist(), counts, strict=True)],
        "scores": [row[:n] for row, n in zip(scores_UK.tolist(), counts, strict=True)],
        "n_skipped": skipped_U,
    }
    table = pl.DataFrame(columns, schema=SCHEMA).insert_column(0, users["user_id"])
    with atomic_write(part.target) as file:
        table.write_parquet(file)
    return len(users)


@lru_cache(maxsize=1)
def _opened(model: Model, beam_width: int) -> tuple[Retriever, IdMap]:
    """The model, read once in each process."""
    if read_manifest(Path(model.folder), "retrieval").hash != model.hash:
        raise ValueError(f"{model.folder} holds another model than the one that this run began with.")
    checkpoint = read_retrieval(Path(model.folder))
    return Retriever(checkpoint.search_model(), checkpoint.table, beam_width), checkpoint.catalog.id_map


def _ranked(
    retriever: Retriever,
    flat: NDArray[np.int64],
    lengths_U: NDArray[np.int64],
    user_ids: Sequence[str],
    settings: BatchSettings,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items and scores [U, K] for users whose item indices stand one after the other in `flat`."""
    starts_U = np.cumsum(lengths_U) - lengths_U
    k = min(settings.k, len(retriever.table))
    found = []
    for first in range(0, len(lengths_U), BATCH):
        batch = slice(first, first + BATCH)
        items_BT = gather_right_padded(flat, starts_U[batch], lengths_U[batch])
        histories = Histories(items_BT, user_ids=tuple(user_ids[batch]))
        found.append(retriever.recommend(histories, k, exclude_seen=settings.exclude_seen))
    items_UK = np.concatenate([ranked.items.cpu().numpy() for ranked in found])
    return items_UK, np.concatenate([ranked.scores.cpu().numpy() for ranked in found])


def _refuse(id_map: IdMap, user_id: object, history: list[str]) -> None:
    try:
        id_map.indices(history)
    except UnknownIdError as error:
        raise UnknownIdError(f"User {user_id!r}: {error} Or pass over such ids with unknown=skip.") from error


def _parts(files: Sequence[Path], folder: Path, rows_per_part: int) -> Iterator[Part]:
    """Slices of the files, named after where they begin."""
    for place, file in enumerate(files):
        rows = count_rows(file)
        for first in range(0, rows, rows_per_part):
            target = folder / f"part-{place:05d}-{first:012d}.parquet"
            yield Part(file.resolve(), first, min(rows_per_part, rows - first), target)


def _begin(folder: Path, plan: dict[str, Any]) -> None:
    """Make the folder of a new run; refuse one of another run."""
    path = folder / PLAN_FILE
    if not path.is_file():
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder} exists and was not begun by this command. Choose another folder."
            )
        write_json(path, plan)
        return
    begun = read_json(path)
    names = [name for name in plan if begun.get(name) != plan[name]]
    if names:
        told = ", ".join(
            f"{name} {begun.get(name)!r} and not {plan[name]!r}" if name not in ("model", "inputs") else name
            for name in names
        )
        raise ValueError(
            f"{folder} was begun otherwise: it differs in {told}. Run the command that began it, choose another "
            f"folder, or remove this one."
        )
    for leftover in folder.glob(".part-*.tmp"):  # of a process that was killed
        leftover.unlink(missing_ok=True)


def _finished(folder: Path) -> dict[str, Any] | None:
    """The counts of a run that is whole, None where parts lack."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder, "recommendations")
    if all((folder / name).is_file() for name in manifest.files):
        return manifest.metrics
    (folder / MANIFEST).unlink()
    return None


def _finish(folder: Path, targets: Sequence[Path], plan: dict[str, Any]) -> dict[str, Any]:
    """The manifest over all parts; the counts come from the parts themselves."""
    tables = pl.concat([pl.scan_parquet(target) for target in targets]) if targets else None
    facts: dict[str, Any] = {"users": 0, "parts": len(targets), "recommendations": 0, "skipped_ids": 0}
    if tables is not None:
        counts = tables.select(
            users=pl.len(),
            recommendations=pl.col("item_ids").list.len().sum(),
            skipped_ids=pl.col("n_skipped").sum(),
        )
        facts |= counts.collect(engine="streaming").row(0, named=True)
    files = {target.name: file_hash(target) for target in targets}
    manifest = Manifest("recommendations", plan, {"retrieval": plan["model"]}, facts, files)
    write_json(folder / MANIFEST, manifest.__dict__)
    shutil.rmtree(folder / ".histories", ignore_errors=True)
    return facts
