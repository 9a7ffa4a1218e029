"""Embeddings and a tokenizer in, a semantic-ID table out.

Shapes: N items, L levels, I input dimensions.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import create, file_hash, find, read_manifest
from rqrec.core.progress import meter
from rqrec.core.workers import Workers
from rqrec.data.embeddings import embeddings_hash, open_vectors, read_embeddings, read_vectors
from rqrec.data.ids import IdMap
from rqrec.tokenizer.collisions import reassign
from rqrec.tokenizer.loading import LoadedTokenizer, load_tokenizer
from rqrec.tokenizer.semantic_ids import SemanticIdTable, collision_rate, level_usage

COLLISIONS = ("extra_code", "reassign")
BLOCK_ROWS = 65_536  # of a task: a multiple of what a tokenizer takes at a time, so that no sum changes


class Block(NamedTuple):
    """Rows of the embeddings in a folder, from `first` to `end`, and the tokenizer for them."""

    tokenizer: str
    tokenizer_hash: str
    embeddings: str
    first: int
    end: int


@lru_cache(maxsize=1)
def _opened(source: str, expected: str) -> LoadedTokenizer:
    """A tokenizer, read once in each process. Raises ValueError where it is not the expected one."""
    opened = load_tokenizer(source)
    if opened.hash != expected:
        raise ValueError(f"{source} is another tokenizer than the one that this run began with.")
    return opened


def block_codes(block: Block) -> tuple[int, NDArray[np.int32]]:
    """The first row of a block, and the codes int32 [rows, L] of its items."""
    x_BI = open_vectors(Path(block.embeddings))[block.first : block.end]
    model = _opened(block.tokenizer, block.tokenizer_hash).model
    return block.first, model.semantic_ids(x_BI).numpy().astype(np.int32)


def codes_by_workers(
    tokenizer: Path | str, expected: str, embeddings_folder: Path, n_items: int, workers: Workers
) -> NDArray[np.int64]:
    """The codes of all items, int64 [N, L], made in blocks wherever the workers are.

    `expected` is the tokenizer's hash: a worker that finds another one under its name refuses it.
    """
    source = str(Path(tokenizer).resolve()) if Path(tokenizer).exists() else str(tokenizer)
    folder = str(Path(embeddings_folder).resolve())
    firsts = range(0, n_items, BLOCK_ROWS)
    blocks = [Block(source, expected, folder, first, min(first + BLOCK_ROWS, n_items)) for first in firsts]
    parts = {}
    with meter("Tokenizing", n_items) as progress:
        for first, codes_BL in workers.run(block_codes, blocks):
            parts[first] = codes_BL
            progress.advance(len(codes_BL))
    return np.concatenate([parts[first] for first in firsts]).astype(np.int64)


def table_of(
    opened: LoadedTokenizer,
    x_NI: NDArray[np.floating],
    codes_NL: NDArray[np.int64],
    item_ids: IdMap,
    collisions: str = "extra_code",
) -> tuple[SemanticIdTable, dict[str, Any]]:
    """The table of these items with these codes, and facts on how well the codes are used.

    Items that share their codes are told apart by one more code ("extra_code", as in the paper), or moved to
    the nearest free code of the last level ("reassign"). Facts: `codebook_usage` (share of each level's codes
    with an item), `perplexity`, `collision_rate` (share of items that share the tokenizer's codes).
    """
    model, sizes = opened.model, opened.model.config.codebook_sizes
    levels = level_usage(codes_NL, sizes)
    if collisions == "reassign":
        unique_NL = reassign(codes_NL, lambda rows: model.last_level_costs(x_NI[rows]).numpy(), sizes[-1])
        table = SemanticIdTable(item_ids, unique_NL, sizes, opened.hash)
    else:
        table = SemanticIdTable.from_codes(item_ids, codes_NL, sizes, opened.hash)
    return table, {
        "items": len(table),
        "level_sizes": list(table.level_sizes),
        "collision_rate": collision_rate(codes_NL),
        "codebook_usage": [level.usage for level in levels],
        "perplexity": [level.perplexity for level in levels],
    }


def tokenize_new(
    tokenizer: Path | str, new: Path, table_folder: Path, folder: Path, new_ids: Path | None = None
) -> dict[str, Any]:
    """Add items that came later to a table whose rows stay, and write the larger one to `folder`.

    `new` is a .npy file [M, I]; `new_ids` a text file with one item id a line, without which new items are
    numbered on. Raises ValueError where the table came from another tokenizer, or has no deduplication level.
    """
    opened, table_folder = load_tokenizer(tokenizer), find(table_folder, "semantic_ids")
    manifest = read_manifest(table_folder, "semantic_ids", verify=True)
    table = SemanticIdTable.read(table_folder)
    if manifest.settings.get("collisions") == "reassign":
        raise ValueError(
            f"{table_folder} was made with collisions=reassign: its last level has no free code by rule. "
            f"Make it again with the extra code to be able to add items."
        )
    if table.tokenizer_hash != opened.hash:
        raise ValueError(
            f"{table_folder} was made by another tokenizer than {tokenizer}: their hashes differ. "
            f"Name the one that made it, or make the table again with `rqrec tokenize`."
        )
    codes_ML = opened.model.semantic_ids(read_vectors(new)).numpy()
    if new_ids is None:
        ids = [str(number) for number in range(len(table), len(table) + len(codes_ML))]
    else:
        ids = new_ids.read_text(encoding="utf-8").split("\n")
        ids = ids[:-1] if ids and not ids[-1] else ids
    if len(ids) != len(codes_ML):
        raise ValueError(f"{new_ids} has {len(ids)} ids, but {new} has {len(codes_ML)} rows.")
    larger = table.extend(ids, codes_ML)
    facts = {
        "items": len(larger),
        "new_items": len(ids),
        "level_sizes": list(larger.level_sizes),
        "collision_rate": collision_rate(larger.codes_NL[:, :-1]),
    }
    inputs = {
        opened.artifact_type: opened.hash,
        "semantic_ids": manifest.hash,
        "new_embeddings": file_hash(new),
    }
    with create(folder, "semantic_ids", settings=manifest.settings, inputs=inputs, metrics=facts) as target:
        larger.write(target)
    return facts


def tokenize(
    tokenizer: Path | str,
    embeddings_folder: Path,
    item_ids: IdMap,
    folder: Path,
    *,
    collisions: str = "extra_code",
    workers: Workers | None = None,
) -> dict[str, Any]:
    """Give every item its semantic ID, write the artefact of kind "semantic_ids", and return its facts.

    With `workers` the codes are made in blocks, several at a time; the IDs are the same, because items that
    share their codes are told apart here, in the order of all items.

    Raises ValueError where the number of items and of embeddings, or the tokenizer's width and theirs, differ.
    """
    if collisions not in COLLISIONS:
        raise ValueError(f"collisions is {collisions!r}; allowed are {', '.join(COLLISIONS)}.")
    opened, x_NI = load_tokenizer(tokenizer), read_embeddings(embeddings_folder).vectors
    if len(x_NI) != len(item_ids):
        raise ValueError(
            f"There are {len(item_ids)} items but {len(x_NI)} embeddings: they don't belong together."
        )
    if workers is None:
        codes_NL = opened.model.semantic_ids(x_NI).numpy()
    else:
        codes_NL = codes_by_workers(tokenizer, opened.hash, embeddings_folder, len(x_NI), workers)
    table, facts = table_of(opened, x_NI, codes_NL, item_ids, collisions)
    inputs = {opened.artifact_type: opened.hash, "embeddings": embeddings_hash(embeddings_folder)}
    settings = {"collisions": collisions}
    with create(folder, "semantic_ids", settings=settings, inputs=inputs, metrics=facts) as target:
        table.write(target)
    return facts
