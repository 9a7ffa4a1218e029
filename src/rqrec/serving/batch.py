"""Batch recommendation for more users than fit in memory, by any number of workers.

A part is a slice of rows of an input file, and is written atomically to its own output file. An interrupted run
therefore resumes with the missing parts, and neither the number nor the location of the workers changes a row.

Shapes: U users of a part, B users of a search, M items of all histories, K recommendations.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.artifact import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    as_json,
    atomic_write,
    check_outside_artifacts,
    file_hash,
    find,
    read_json,
    read_manifest,
    write_json,
)
from rqrec.core.device import device_of
from rqrec.core.errors import first_few
from rqrec.core.lock import names_of_others, only_one
from rqrec.core.progress import log, meter
from rqrec.core.real_path import real_path
from rqrec.core.replace import remove
from rqrec.core.workers import Workers
from rqrec.data.catalog import Catalog
from rqrec.data.history_files import TIMESTAMPS, as_histories, count_rows, input_files, read_histories
from rqrec.data.ids import PADDING, IdMap, UnknownIdError
from rqrec.data.sequences import Histories, gather_right_padded
from rqrec.data.tables import open_table, parse_errors_for
from rqrec.retrieval.artifact import needs_times, select_experts
from rqrec.retrieval.constraints import ItemRules
from rqrec.retrieval.ensemble import Ensemble
from rqrec.retrieval.new_items import LiveRecommender
from rqrec.retrieval.versions import live_hash, live_types, read_live
from rqrec.serving.batch_config import BATCH, BatchConfig
from rqrec.serving.rule_compiler import RuleCompiler, fields_of_items
from rqrec.serving.rules import RuleSettings
from rqrec.tokenizer.semantic_ids import SemanticIdTable

PLAN_FILE = "plan.json"
HISTORIES = ".histories"
SCHEMA: dict[str, Any] = {
    "item_ids": pl.List(pl.String),
    "scores": pl.List(pl.Float32),
    "n_skipped": pl.Int32,
}


class ModelReference(NamedTuple):
    """Folder and hash of a retrieval model; a worker that finds a different hash there refuses it."""

    folder: str
    hash: str
    needs_times: bool


class LoadedModel(NamedTuple):
    """What a worker recommends with."""

    recommender: Ensemble | LiveRecommender
    id_map: IdMap
    rules: ItemRules


class Part(NamedTuple):
    """`rows` users of a history file, from row `first` on, and the output file for them."""

    source: Path
    given: Path
    """The file of the user that it was made from."""
    first: int
    rows: int
    target: Path


class UserHistories(NamedTuple):
    """The histories of U users, without unknown ids, concatenated to M items."""

    items: NDArray[np.int64]
    """Item indices, int64 [M]."""
    times: NDArray[np.int64] | None
    """Seconds since 1970, int64 [M], if the model needs them."""
    lengths: NDArray[np.int64]
    """Items of each user, int64 [U]."""
    user_ids: Sequence[str]
    """U ids."""


def batch_recommend(
    artifact: Path, source: Path | str, folder: Path, config: BatchConfig, workers: Workers
) -> dict[str, Any]:
    """Recommend items to every user of `source`, as parquet files in `folder`; returns the counts.

    `source` is a table, a folder of them, or a glob pattern: histories, or an interaction log (see
    `rqrec.data.history_files`). A model that was trained with `time_gaps` needs the time of each item: the
    column `timestamps` of histories, or the times of the log. The output has one row per user, in the order of the
    histories: `user_id`, `item_ids` (list of strings, most probable first), `scores` (list of float32,
    log-probabilities), `n_skipped` (number of unknown ids in the history). The same call resumes an interrupted run.

    Raises ValueError if `folder` was started with another model, input or config, or the model has no such expert,
    FileExistsError if it contains anything else, UnknownIdError on an unknown item id (see `BatchConfig.unknown`).
    """
    folder, files = Path(folder), input_files(source)
    artifact = real_path(find(artifact, "retrieval"))
    manifest = read_manifest(artifact, "retrieval", verify=True)
    model = ModelReference(str(artifact), live_hash(artifact), needs_times(artifact))
    device_of(config.device)  # raises for one that is not here
    select_experts(config.experts or None, live_types(artifact))  # raises for unknown ones
    if config.rules.rules:
        fields = fields_of_items(Catalog.read(artifact), SemanticIdTable.read(artifact))
        RuleCompiler(fields, "cpu")(config.rules.rules)  # raises for those that do not fit
    if config.exclude_seen is None:
        config = replace(config, exclude_seen=manifest.settings.get("exclude_seen", True))
    names = Counter(file.name for file in files)
    plan = {
        "format_version": FORMAT_VERSION,
        "model": model.hash,
        "inputs": {file.name if names[file.name] == 1 else str(file): file_hash(file) for file in files},
        **as_json(asdict(config)),
    }
    del plan["device"]
    if not config.rules.rules:
        del plan["rules"]
    check_outside_artifacts(folder)
    _check_free(folder)
    with only_one(folder, "batch-recommend", "choose another folder"):
        _start(folder, plan)
        if (counts := _finished_counts(folder)) is not None:
            return counts
        histories = as_histories(files, folder / HISTORIES, times=model.needs_times)
        given = files if len(files) == len(histories) else histories
        parts = list(_parts(histories, given, real_path(folder), config.rows_per_part))
        missing = [part for part in parts if not part.target.is_file()]
        if len(missing) < len(parts):
            log(f"{len(parts) - len(missing)} of {len(parts)} parts are already done.")
        if missing:
            with meter("Recommending", sum(part.rows for part in missing)) as progress:
                for rows in workers.run(partial(recommend_part, model, config), missing):
                    progress.advance(rows)
        return _finish(folder, [part.target for part in parts], plan)


def recommend_part(model: ModelReference, config: BatchConfig, part: Part) -> int:
    """Write the recommendations of one part atomically; returns its number of users."""
    loaded = _load(model, config.beam_width, config.device, config.experts, config.rules)
    id_map = loaded.id_map
    users = read_histories(part.source, part.first, part.rows, times=model.needs_times, given=part.given)
    lengths_U = users["history"].list.len().to_numpy().astype(np.int64)
    flat_items = id_map.find(chain.from_iterable(users["history"].to_list()))
    user_of = np.repeat(np.arange(len(users)), lengths_U)
    unknown = flat_items == PADDING
    if config.unknown == "raise" and unknown.any():
        row = int(user_of[unknown.argmax()])
        _raise_unknown(id_map, users["user_id"][row], users["history"][row].to_list())
    skipped_U = np.bincount(user_of[unknown], minlength=len(users))
    items_UK, scores_UK = _recommend(
        loaded,
        UserHistories(
            flat_items[~unknown],
            users[TIMESTAMPS].explode().drop_nulls().to_numpy()[~unknown] if model.needs_times else None,
            lengths_U - skipped_U,
            users["user_id"].cast(pl.String).to_list(),
        ),
        config,
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
def _load(
    model: ModelReference, beam_width: int, device: str, experts: tuple[str, ...], rules: RuleSettings
) -> LoadedModel:
    """The model, loaded once per process."""
    if live_hash(Path(model.folder)) != model.hash:
        raise ValueError(
            f"The model in {model.folder} is not the one that this run started with: do not replace it during a run."
        )
    checkpoint = read_live(Path(model.folder)).artifact
    retriever = checkpoint.retriever(beam_width, device_of(device))
    recommender = checkpoint.recommender(retriever, experts or None)
    fields = fields_of_items(checkpoint.catalog, checkpoint.table)
    by_item = RuleCompiler(fields, retriever.device)(rules.rules)
    return LoadedModel(recommender, checkpoint.catalog.id_map, by_item)


def _recommend(
    loaded: LoadedModel, users: UserHistories, config: BatchConfig
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Items and scores [U, K] for each user."""
    assert config.exclude_seen is not None  # `batch_recommend` fills in the model's
    lengths_U = users.lengths
    starts_U = np.cumsum(lengths_U) - lengths_U
    k = min(config.k, len(loaded.id_map))
    results = []
    for first in range(0, len(lengths_U), BATCH):
        batch = slice(first, first + BATCH)
        starts_B, lengths_B = starts_U[batch], lengths_U[batch]
        histories = Histories(
            gather_right_padded(users.items, starts_B, lengths_B),
            None if users.times is None else gather_right_padded(users.times, starts_B, lengths_B),
            tuple(users.user_ids[batch]),
        )
        ranked = loaded.recommender.recommend(
            histories, k, exclude_seen=config.exclude_seen, rules=loaded.rules
        )
        results.append(ranked)
    items_UK = np.concatenate([ranked.items.cpu().numpy() for ranked in results])
    return items_UK, np.concatenate([ranked.scores.cpu().numpy() for ranked in results])


def _raise_unknown(id_map: IdMap, user_id: object, history: list[str]) -> None:
    try:
        id_map.indices(history)
    except UnknownIdError as error:
        raise UnknownIdError(f"User {user_id!r}: {error} Or skip unknown ids with --unknown skip.") from error


def _parts(files: Sequence[Path], given: Sequence[Path], folder: Path, rows_per_part: int) -> Iterator[Part]:
    """Slices of the files; each output file is named after its file index and first row."""
    for file_index, (file, named) in enumerate(zip(files, given, strict=True)):
        rows = count_rows(file)
        for first in range(0, rows, rows_per_part):
            target = folder / f"part-{file_index:05d}-{first:012d}.parquet"
            yield Part(real_path(file), named, first, min(rows_per_part, rows - first), target)


def _check_free(folder: Path) -> None:
    """Raise FileExistsError unless there is no such folder, an empty one, or one of this command."""
    path = folder / PLAN_FILE
    if names_of_others(folder, PLAN_FILE) or (path.is_file() and not _is_plan(read_json(path))):
        raise FileExistsError(
            f"{folder} is not empty and was not created by this command: choose another folder."
        )


def _is_plan(found: Any) -> bool:
    return isinstance(found, dict) and {"format_version", "model", "inputs"} <= found.keys()


def _start(folder: Path, plan: dict[str, Any]) -> None:
    """Write the plan of a new run, or check that the folder's is the same."""
    path = folder / PLAN_FILE
    for name in (PLAN_FILE, MANIFEST, "part-*"):
        for leftover in folder.glob(f".{name}.*.tmp"):  # of a killed process
            leftover.unlink(missing_ok=True)
    if not path.is_file():
        write_json(path, plan)
        return
    old_plan = read_json(path)
    changed = [name for name in {**plan, **old_plan} if old_plan.get(name) != plan.get(name)]
    if changed and not any(folder.glob("part-*.parquet")):
        # Nothing was recommended under the old plan; the histories may have been converted from another input.
        remove(folder / HISTORIES)
        (folder / MANIFEST).unlink(missing_ok=True)  # of a run without users
        write_json(path, plan)
    elif changed:
        differences = ", ".join(
            name
            if name in ("model", "inputs")
            else f"{name} (was {old_plan.get(name)!r}, now {plan.get(name)!r})"
            for name in changed
        )
        raise ValueError(
            f"{folder} was started with different values of: {differences}. Run the original command, choose "
            f"another folder, or remove this one."
        )


def _finished_counts(folder: Path) -> dict[str, Any] | None:
    """The counts of a finished run; None if parts are missing."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder, "recommendations")
    damaged = [
        path
        for path in map(folder.joinpath, manifest.files)
        if path.name != PLAN_FILE and not (path.is_file() and file_hash(path) == manifest.files[path.name])
    ]
    if not damaged:
        return manifest.metrics
    log(f"Made again, because they are missing or damaged: {first_few([path.name for path in damaged])}.")
    (folder / MANIFEST).unlink()
    for path in damaged:
        path.unlink(missing_ok=True)
    return None


def _finish(folder: Path, targets: Sequence[Path], plan: dict[str, Any]) -> dict[str, Any]:
    """Write the manifest of all parts; returns the counts, which are read from the parts."""
    counts = {"users": 0, "parts": len(targets), "recommendations": 0, "skipped_ids": 0}
    for target in targets:
        totals = open_table(target).frame.select(
            users=pl.len(),
            recommendations=pl.col("item_ids").list.len().sum(),
            skipped_ids=pl.col("n_skipped").sum(),
        )
        with parse_errors_for(target):
            for name, total in totals.collect(engine="streaming").row(0, named=True).items():
                counts[name] += total
    remove(folder / HISTORIES)
    files = {path.name: file_hash(path) for path in (folder / PLAN_FILE, *targets)}
    manifest = Manifest("recommendations", plan, {"retrieval": plan["model"]}, counts, files)
    write_json(folder / MANIFEST, manifest.__dict__)
    return counts
