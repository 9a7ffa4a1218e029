"""Semantic IDs: a tuple of codes for each item, made unique, kept as a table, and measured.

Shapes: N items, L levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.artifact import FORMAT_VERSION, atomic_write, read_json, write_json
from rqrec.data.ids import IdMap

TABLE_FILE = "semantic_ids.parquet"
FACTS_FILE = "semantic_ids.json"
LARGEST_KEY = 2**63 - 1


def tuple_ranks(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    """One int64 [N] per row, equal for equal rows only, and in the lexicographic order of the rows.

    Codes are mixed into one number level by level. Before a number would outgrow int64 it is replaced by
    its rank among those that occur, which is below N: O(L N log N) at worst, for any number of levels.
    """
    keys_N = np.zeros(len(codes_NL), dtype=np.int64)
    largest = 0  # of keys_N, as an exact Python int
    for level in range(codes_NL.shape[1]):
        column_N = codes_NL[:, level]
        size = int(column_N.max(initial=0)) + 1
        if largest * size + size - 1 > LARGEST_KEY:
            values, keys_N = np.unique(keys_N, return_inverse=True)
            largest = len(values) - 1
        if largest * size + size - 1 > LARGEST_KEY:
            values, column_N = np.unique(column_N, return_inverse=True)
            size = len(values)
        keys_N = keys_N * size + column_N
        largest = largest * size + size - 1
    return keys_N


def deduplicate(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    """The code that makes each row unique, int64 [N]: 0 for the first item of a tuple, 1 for the next, ...

    Items of one tuple are counted in the order of their indices. O(N log N).
    """
    keys_N = tuple_ranks(_checked(codes_NL))
    order_N = np.argsort(keys_N, kind="stable")
    sorted_N = keys_N[order_N]
    starts_N = np.concatenate([[True], sorted_N[1:] != sorted_N[:-1]])
    positions_N = np.arange(len(keys_N))
    extra_N = np.empty(len(keys_N), dtype=np.int64)
    extra_N[order_N] = positions_N - np.maximum.accumulate(np.where(starts_N, positions_N, 0))
    return extra_N


def group_sizes(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many items have the tuple of each item, itself included, int64 [N]."""
    _, inverse_N, counts = np.unique(tuple_ranks(_checked(codes_NL)), return_inverse=True, return_counts=True)
    return counts[inverse_N]


def collision_rate(codes_NL: NDArray[np.int64]) -> float:
    """Share of items that share their tuple with another item (give the codes without the extra level)."""
    return float((group_sizes(codes_NL) > 1).mean())


class LevelUsage(NamedTuple):
    """`usage`: share of a level's codes with at least one item. `entropy` in nats; `perplexity` = e^entropy.

    The perplexity is the number of codes that, used equally, would spread the items as far.
    """

    usage: float
    entropy: float
    perplexity: float
    dead_codes: int


def level_usage(codes_NL: NDArray[np.int64], codebook_sizes: Sequence[int]) -> list[LevelUsage]:
    """How well each level spreads the items over its codes."""
    levels = []
    for level, size in enumerate(codebook_sizes):
        counts_V = np.bincount(codes_NL[:, level], minlength=size)
        shares = counts_V[counts_V > 0] / counts_V.sum()
        entropy = float(-(shares * np.log(shares)).sum())
        dead = int((counts_V == 0).sum())
        levels.append(LevelUsage(1 - dead / size, entropy, float(np.exp(entropy)), dead))
    return levels


@dataclass(frozen=True)
class SemanticIdTable:
    """Which item has which semantic ID: the one place where both are kept.

    `codes_NL` int64 [N, L]: row i belongs to item index i of `item_ids`; rows are unique. The last level is
    the code that made them so. `level_sizes`: codes of each level, the last one included.
    `tokenizer_hash`: of the tokenizer that made the codes.
    Raises ValueError where these contradict each other.
    """

    item_ids: IdMap
    codes_NL: NDArray[np.int64]
    level_sizes: tuple[int, ...]
    tokenizer_hash: str

    def __post_init__(self) -> None:
        codes_NL = _checked(self.codes_NL)
        if len(codes_NL) != len(self.item_ids):
            raise ValueError(f"{len(self.item_ids)} items need as many rows of codes, not {len(codes_NL)}.")
        if len(self.level_sizes) != codes_NL.shape[1]:
            raise ValueError(f"{codes_NL.shape[1]} levels need as many sizes, not {len(self.level_sizes)}.")
        for level, size in enumerate(self.level_sizes):
            if len(over := np.flatnonzero(codes_NL[:, level] >= size)):
                raise ValueError(
                    f"Item {over[0]} has code {codes_NL[over[0], level]} at level {level}, which has the "
                    f"codes 0 to {size - 1}: the codes come from another tokenizer."
                )
        if len(twice := np.flatnonzero(deduplicate(codes_NL))):
            raise ValueError(
                f"Item {twice[0]} has the semantic ID {codes_NL[twice[0]].tolist()} of an earlier item; "
                f"IDs must be unique. `SemanticIdTable.from_codes` makes them so."
            )

    def __len__(self) -> int:
        return len(self.item_ids)

    @classmethod
    def from_codes(
        cls, item_ids: IdMap, codes_NL: NDArray[np.int64], codebook_sizes: Sequence[int], tokenizer_hash: str
    ) -> "SemanticIdTable":
        """A table of a tokenizer's codes, with the deduplication code as one more level.

        The size of that level is the size of the largest group of items that share their codes.
        """
        extra_N = deduplicate(codes_NL)
        codes = np.concatenate([codes_NL, extra_N[:, None]], axis=1).astype(np.int64)
        return cls(item_ids, codes, (*codebook_sizes, int(extra_N.max()) + 1), tokenizer_hash)

    def extend(self, new_ids: Sequence[str], codes_ML: NDArray[np.int64]) -> "SemanticIdTable":
        """This table with M new items after the old ones, whose rows do not change.

        `codes_ML` are the tokenizer's codes of the new items, without the deduplication code: they get the
        lowest ones that are free in their tuple, in their order. Where a tuple outgrows the last level, that
        level grows, and a retrieval model made for the smaller one has to be trained again.
        Raises ValueError for an id that the table has, and for codes of another tokenizer.
        """
        if codes_ML.ndim != 2 or codes_ML.shape[1] != len(self.level_sizes) - 1:
            raise ValueError(
                f"The new codes have shape {codes_ML.shape}; the table needs [new items, "
                f"{len(self.level_sizes) - 1}], from the tokenizer that made it."
            )
        old = len(self)
        keys = tuple_ranks(_checked(np.concatenate([self.codes_NL[:, :-1], codes_ML])))
        taken: dict[int, set[int]] = {int(key): set() for key in keys[old:]}
        for key, extra in zip(keys[:old].tolist(), self.codes_NL[:, -1].tolist(), strict=True):
            if key in taken:
                taken[key].add(extra)
        lowest = dict.fromkeys(taken, 0)  # below it everything is taken, so each search goes on from there
        extra_M = np.zeros(len(codes_ML), dtype=np.int64)
        for item, key in enumerate(keys[old:].tolist()):
            while lowest[key] in taken[key]:
                lowest[key] += 1
            extra_M[item] = lowest[key]
            lowest[key] += 1
        new_ML = np.concatenate([codes_ML, extra_M[:, None]], axis=1)
        size = max(self.level_sizes[-1], int(extra_M.max(initial=-1)) + 1)
        return SemanticIdTable(
            IdMap(self.item_ids.all.to_list() + list(new_ids)),
            np.concatenate([self.codes_NL, new_ML]),
            (*self.level_sizes[:-1], size),
            self.tokenizer_hash,
        )

    def llm_tokens(self) -> list[str]:
        """Each item's ID as tokens for a language model, such as `<a_12><b_7><c_0>`: a letter a level."""
        if len(self.level_sizes) > len(ascii_lowercase):
            raise ValueError(f"{len(self.level_sizes)} levels outnumber the {len(ascii_lowercase)} letters.")
        letters = ascii_lowercase[: len(self.level_sizes)]
        rows = self.codes_NL.tolist()
        return ["".join(f"<{a}_{code}>" for a, code in zip(letters, row, strict=True)) for row in rows]

    def write(self, folder: Path) -> None:
        """Write `semantic_ids.parquet` (item_id, code_0, ...) and `semantic_ids.json` into `folder`."""
        columns = {"item_id": self.item_ids.all} | {
            f"code_{level}": self.codes_NL[:, level] for level in range(self.codes_NL.shape[1])
        }
        with atomic_write(folder / TABLE_FILE) as file:
            pl.DataFrame(columns, schema_overrides={"item_id": pl.String}).write_parquet(file)
        facts = {
            "format_version": FORMAT_VERSION,
            "items": len(self),
            "level_sizes": list(self.level_sizes),
            "tokenizer_hash": self.tokenizer_hash,
        }
        write_json(folder / FACTS_FILE, facts)

    @classmethod
    def read(cls, folder: Path) -> "SemanticIdTable":
        """Read what `write` wrote. Raises ValueError where the two files do not belong together."""
        facts = read_json(folder / FACTS_FILE)
        if facts.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{folder / FACTS_FILE} has format_version {facts.get('format_version')!r}; this version of "
                f"rqrec reads {FORMAT_VERSION}. Make the table again with `rqrec tokenize`."
            )
        table = pl.read_parquet(folder / TABLE_FILE)
        sizes = tuple(facts["level_sizes"])
        expected = ["item_id", *(f"code_{level}" for level in range(len(sizes)))]
        if table.columns != expected:
            raise ValueError(
                f"{folder / TABLE_FILE} has the columns {table.columns}; its JSON asks for {expected}. "
                f"Make the table again with `rqrec tokenize`."
            )
        codes_NL = table.drop("item_id").to_numpy().astype(np.int64)
        return cls(IdMap(table["item_id"]), codes_NL, sizes, facts["tokenizer_hash"])


def _checked(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    if codes_NL.ndim != 2 or not codes_NL.size or not np.issubdtype(codes_NL.dtype, np.integer):
        raise ValueError(
            f"Codes must be an integer matrix [items, levels] with at least one of each, not "
            f"{codes_NL.dtype} of shape {codes_NL.shape}."
        )
    if len(negative := np.flatnonzero((codes_NL < 0).any(axis=1))):
        raise ValueError(f"Item {negative[0]} has a negative code: {codes_NL[negative[0]].tolist()}.")
    return codes_NL.astype(np.int64, copy=False)
