"""`rqrec tokenize`: the semantic IDs of all items, from a tokenizer and embeddings.

Shapes: N items, M new items, B items of a block, L levels, I input dimensions.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.artifact import create, file_hash, find, read_manifest, reuse
from rqrec.core.device import device_of
from rqrec.core.progress import meter
from rqrec.core.real_path import real_path
from rqrec.core.workers import Workers
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import (
    check_embeddings_of,
    embeddings_hash,
    embeddings_protocol,
    open_vectors,
    read_embeddings,
    read_vectors,
)
from rqrec.data.ids import IdMap
from rqrec.data.protocols import common_protocol
from rqrec.data.tables import read_lines
from rqrec.stages.tokenize_config import TokenizeConfig
from rqrec.tokenizer.collisions import reassign
from rqrec.tokenizer.loading import KeptTokenizer, LoadedTokenizer, load_tokenizer
from rqrec.tokenizer.semantic_ids import SemanticIdTable, collision_rate, level_usage

BLOCK_ROWS = (
    65_536  # per task: a multiple of the tokenizer's own chunks, so that no floating-point sum changes
)


def tokenize(
    config: TokenizeConfig,
    tokenizer: Path | str,
    embeddings: Path,
    out: Path,
    *,
    dataset: Path | None = None,
    workers: Workers | None = None,
    force: bool = False,
    how_to_replace: str = "--force",
) -> Path:
    """Write the "semantic_ids" artefact, or reuse it if settings, tokenizer and embeddings are the same.

    `dataset` has the item ids; without it, items are numbered. `workers` compute the codes in blocks, in parallel,
    with the same result. Metrics: `codebook_usage` (share of each level's codes that have an item), `perplexity`,
    `collision_rate` (share of items that share the tokenizer's codes with another item).

    Raises ValueError if dataset and embeddings differ in the number of items, the tokenizer expects another input
    width or has learned with another protocol than the embeddings, or `out` holds semantic IDs that were made
    differently.
    """
    device = device_of(config.device)
    loaded, x_NI = load_tokenizer(tokenizer), read_embeddings(embeddings).vectors
    inputs = {loaded.artifact_type: loaded.hash, "embeddings": embeddings_hash(embeddings)}
    if dataset is not None:
        dataset = find(dataset, "dataset")
        check_embeddings_of(embeddings, dataset)
        inputs["dataset"] = read_manifest(dataset, "dataset").hash
    learned = {str(tokenizer): loaded.protocol, str(embeddings): embeddings_protocol(embeddings)}
    settings = {"collisions": config.collisions, "protocol": common_protocol(learned)}
    if reuse(out, "semantic_ids", settings, inputs, force=force, how_to_replace=how_to_replace):
        return Path(out)
    item_ids = _item_ids(dataset, len(x_NI))
    if workers is None:
        codes_NL = loaded.model.to(device).semantic_ids(x_NI).numpy()
    else:
        codes_NL = codes_by_workers(tokenizer, loaded.hash, embeddings, len(x_NI), workers, device)
    table, metrics = _table(loaded, x_NI, codes_NL, item_ids, config.collisions)
    with create(out, "semantic_ids", settings=settings, inputs=inputs, metrics=metrics) as target:
        table.write(target)
        KeptTokenizer(loaded.model, inputs["embeddings"]).write(target)
    return Path(out)


def _item_ids(dataset: Path | None, n_embeddings: int) -> IdMap:
    """The item ids in the order of the embeddings: those of the dataset, or "0", "1", ..."""
    if dataset is None:
        return IdMap([str(index) for index in range(n_embeddings)])
    ids = Catalog.read(dataset).id_map
    if len(ids) != n_embeddings:
        raise ValueError(
            f"{dataset} has {len(ids)} items, but there are {n_embeddings} embeddings: give the embeddings of this "
            f"dataset."
        )
    return ids


def _table(
    loaded: LoadedTokenizer,
    x_NI: NDArray[np.floating],
    codes_NL: NDArray[np.int64],
    item_ids: IdMap,
    collisions: str,
) -> tuple[SemanticIdTable, dict[str, Any]]:
    """The table of these items with these codes, and its metrics (see `tokenize`)."""
    model, sizes = loaded.model, loaded.model.config.codebook_sizes
    levels = level_usage(codes_NL, sizes)
    if collisions == "reassign":
        unique_NL = reassign(
            codes_NL, lambda rows: model.last_level_costs(x_NI[rows]).numpy(force=True), sizes[-1]
        )
        table = SemanticIdTable(item_ids, unique_NL, sizes, loaded.hash, has_extra_code=False)
    else:
        table = SemanticIdTable.from_codes(item_ids, codes_NL, sizes, loaded.hash)
    return table, {
        "items": len(table),
        "level_sizes": list(table.level_sizes),
        "collision_rate": collision_rate(codes_NL),
        "codebook_usage": [level.usage for level in levels],
        "perplexity": [level.perplexity for level in levels],
    }


class Block(NamedTuple):
    """Rows `first` to `end` of a folder's embeddings, and the tokenizer for them."""

    tokenizer: str
    tokenizer_hash: str
    embeddings: str
    first: int
    end: int
    device: torch.device


@lru_cache(maxsize=1)
def _load_once(source: str, expected: str) -> LoadedTokenizer:
    """The tokenizer at `source`, read once per process. Raises ValueError if its hash is not `expected`."""
    loaded = load_tokenizer(source)
    if loaded.hash != expected:
        raise ValueError(f"{source} is not the tokenizer that this run started with.")
    return loaded


def block_codes(block: Block) -> tuple[int, NDArray[np.int32]]:
    """The first row of a block, and the codes int32 [rows, L] of its items."""
    x_BI = open_vectors(Path(block.embeddings))[block.first : block.end]
    model = _load_once(block.tokenizer, block.tokenizer_hash).model.to(block.device)
    return block.first, model.semantic_ids(x_BI).numpy().astype(np.int32)


def codes_by_workers(
    tokenizer: Path | str,
    expected: str,
    embeddings: Path,
    n_items: int,
    workers: Workers,
    device: torch.device,
) -> NDArray[np.int64]:
    """The codes of all items, int64 [N, L], computed in blocks by the workers.

    `expected` is the tokenizer's hash: a worker that finds another tokenizer at this path raises ValueError.
    """
    source = str(real_path(tokenizer)) if Path(tokenizer).exists() else str(tokenizer)
    folder = str(real_path(embeddings))
    starts = range(0, n_items, BLOCK_ROWS)
    blocks = [
        Block(source, expected, folder, first, min(first + BLOCK_ROWS, n_items), device) for first in starts
    ]
    parts = {}
    with meter("Tokenizing", n_items) as progress:
        for first, codes_BL in workers.run(block_codes, blocks):
            parts[first] = codes_BL
            progress.advance(len(codes_BL))
    return np.concatenate([parts[first] for first in starts]).astype(np.int64)


def tokenize_new(
    tokenizer: Path | str,
    new: Path,
    table: Path,
    out: Path,
    *,
    new_ids: Path | None = None,
    force: bool = False,
) -> Path:
    """Add new items to a table whose rows do not change, and write the extended "semantic_ids" artefact to `out`.

    `new` is a .npy file [M, I]; `new_ids` is a text file with one item id per line, without which the new items
    get the next numbers as ids. Raises ValueError if the table was made by another tokenizer, or has no
    deduplication level.
    """
    loaded, table = load_tokenizer(tokenizer), find(table, "semantic_ids")
    manifest = read_manifest(table, "semantic_ids", verify=True)
    old = SemanticIdTable.read(table)
    if not old.has_extra_code:
        raise ValueError(
            f"{table} was made with collisions=reassign, so it has no deduplication level for new items. Recreate "
            f"it with collisions=extra_code."
        )
    if old.tokenizer_hash != loaded.hash:
        raise ValueError(
            f"{table} was made by another tokenizer than {tokenizer}: their hashes differ. Give the tokenizer that "
            f"made it, or recreate the table with `rqrec tokenize`."
        )
    inputs = {
        loaded.artifact_type: loaded.hash,
        "semantic_ids": manifest.hash,
        "new_embeddings": file_hash(new),
    }
    if new_ids is not None:
        inputs["new_ids"] = file_hash(new_ids)
    if reuse(out, "semantic_ids", manifest.settings, inputs, force=force):
        return Path(out)
    codes_ML = loaded.model.semantic_ids(read_vectors(new)).numpy()
    if new_ids is None:
        ids = [str(number) for number in range(len(old), len(old) + len(codes_ML))]
    else:
        ids = read_lines(new_ids)
    if len(ids) != len(codes_ML):
        raise ValueError(f"{new_ids} has {len(ids)} ids, but {new} has {len(codes_ML)} rows.")
    extended = old.extend(ids, codes_ML)
    metrics = {
        "items": len(extended),
        "new_items": len(ids),
        "level_sizes": list(extended.level_sizes),
        "collision_rate": collision_rate(extended.content_codes),
    }
    with create(out, "semantic_ids", settings=manifest.settings, inputs=inputs, metrics=metrics) as target:
        extended.write(target)
        KeptTokenizer(loaded.model, inputs["new_embeddings"]).write(target)
    return Path(out)
