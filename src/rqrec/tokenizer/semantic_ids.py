"""Semantic IDs: deduplication of code tuples, usage metrics, and the table of items and their IDs.

Shapes: N items, M new items, R of them, L levels, V codes of a level.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_lowercase
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.artifact import FORMAT_VERSION, atomic_write, read_json, write_json
from rqrec.core.values import PositiveInt, converted
from rqrec.data.ids import IdMap
from rqrec.data.tables import read_parquet

TABLE_FILE = "semantic_ids.parquet"
METADATA_FILE = "semantic_ids.json"
Costs = Callable[[NDArray[np.int64]], NDArray[np.floating]]
LARGEST_KEY = 2**63 - 1
MOST_LEVELS = 1024


def tuple_ranks(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    """One key per row, int64 [N]: equal for equal rows only, and in the lexicographic order of the rows.

    The codes of a row are combined into one number, level by level. Before the numbers would overflow int64
    they are replaced by their ranks, which are below N: O(L N log N) at worst, for any number of levels.
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
    """Deduplication code of each item, int64 [N]: 0 for the first item with a tuple, 1 for the second, ...

    Items with the same tuple are numbered by item index (arXiv 2305.05065, section 3.1). O(N log N).
    Raises ValueError unless `codes_NL` is a non-empty matrix of non-negative integers.
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
    """Number of items with the same tuple as each item, itself included, int64 [N]."""
    _, inverse_N, counts = np.unique(tuple_ranks(_checked(codes_NL)), return_inverse=True, return_counts=True)
    return counts[inverse_N]


def collision_rate(codes_NL: NDArray[np.int64]) -> float:
    """Share of items that have the same tuple as another item; pass codes without the deduplication code."""
    return float((group_sizes(codes_NL) > 1).mean())


class LevelUsage(NamedTuple):
    """How the items are distributed over the codes of one level."""

    usage: float
    """Share of the codes with at least one item."""
    entropy: float
    """Entropy of the distribution, in nats."""
    perplexity: float
    """e^entropy: the number of equally used codes with the same entropy."""
    dead_codes: int
    """Number of codes without items."""


def level_usage(codes_NL: NDArray[np.int64], codebook_sizes: Sequence[int]) -> list[LevelUsage]:
    """Usage of each level by codes int64 [N, L]; `codebook_sizes` has L values."""
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
    """The semantic ID of every item. Raises ValueError if the fields contradict each other."""

    item_ids: IdMap
    """Maps item ids to item indices, the rows of `codes_NL`."""
    codes_NL: NDArray[np.int64]
    """Unique rows of codes, int64 [N, L]."""
    level_sizes: tuple[int, ...]
    """Number of codes of each level, including the last one; L values."""
    tokenizer_hash: str
    """Hash of the tokenizer that made the codes."""
    has_extra_code: bool = True
    """Whether the last level is a deduplication code; otherwise every level is content (codes were reassigned)."""

    def __post_init__(self) -> None:
        codes_NL = _checked(self.codes_NL)
        if len(codes_NL) != len(self.item_ids):
            raise ValueError(
                f"There are {len(self.item_ids)} items but {len(codes_NL)} rows of codes: one row per item is needed."
            )
        if len(self.level_sizes) != codes_NL.shape[1]:
            raise ValueError(
                f"The codes have {codes_NL.shape[1]} levels, but level_sizes has {len(self.level_sizes)} values."
            )
        for level, size in enumerate(self.level_sizes):
            if len(over := np.flatnonzero(codes_NL[:, level] >= size)):
                raise ValueError(
                    f"Item {over[0]} has code {codes_NL[over[0], level]} at level {level}, which has the "
                    f"codes 0 to {size - 1}: the codes come from another tokenizer."
                )
        if len(repeated := np.flatnonzero(deduplicate(codes_NL))):
            raise ValueError(
                f"Item {repeated[0]} has the same semantic ID {codes_NL[repeated[0]].tolist()} as an earlier item; "
                f"IDs must be unique. Build the table with `SemanticIdTable.from_codes`."
            )

    def __repr__(self) -> str:
        sizes = " x ".join(map(str, self.level_sizes))
        return f"SemanticIdTable({len(self):,} items, {sizes} codes)"

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def content_levels(self) -> int:
        """Number of levels that describe content: all but the deduplication code."""
        return len(self.level_sizes) - self.has_extra_code

    @property
    def content_codes(self) -> NDArray[np.int64]:
        """The codes without the deduplication code, int64 [N, content_levels]."""
        return self.codes_NL[:, : self.content_levels]

    @classmethod
    def from_codes(
        cls, item_ids: IdMap, codes_NL: NDArray[np.int64], codebook_sizes: Sequence[int], tokenizer_hash: str
    ) -> "SemanticIdTable":
        """Build a table from a tokenizer's codes int64 [N, L - 1], adding the deduplication code as last level.

        The size of the last level is the size of the largest group of items that share their codes.
        """
        extra_N = deduplicate(codes_NL)
        codes = np.concatenate([codes_NL, extra_N[:, None]], axis=1).astype(np.int64)
        return cls(item_ids, codes, (*codebook_sizes, int(extra_N.max()) + 1), tokenizer_hash)

    def extend(self, new_ids: Sequence[str], codes_ML: NDArray[np.int64]) -> "SemanticIdTable":
        """A new table with M items appended; the rows of existing items do not change.

        `codes_ML` int64 [M, L - 1] are the tokenizer's codes of the new items. Each new item gets the lowest
        free deduplication code of its tuple. If a tuple exceeds the last level, that level grows, and a
        retrieval model trained with the smaller level must be retrained.
        Raises ValueError if an id is already in the table, or if the codes come from another tokenizer.
        """
        if codes_ML.ndim != 2 or codes_ML.shape[1] != len(self.level_sizes) - 1:
            raise ValueError(
                f"The new codes have shape {codes_ML.shape}; the table needs [new items, "
                f"{len(self.level_sizes) - 1}]: use the tokenizer that made the table."
            )
        old = len(self)
        keys = tuple_ranks(_checked(np.concatenate([self.codes_NL[:, :-1], codes_ML])))
        used: dict[int, set[int]] = {int(key): set() for key in keys[old:]}
        for key, extra in zip(keys[:old].tolist(), self.codes_NL[:, -1].tolist(), strict=True):
            if key in used:
                used[key].add(extra)
        lowest = dict.fromkeys(used, 0)  # all codes below are used, so the next search starts here
        extra_M = np.zeros(len(codes_ML), dtype=np.int64)
        for item, key in enumerate(keys[old:].tolist()):
            while lowest[key] in used[key]:
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

    def free_ids(self, codes_ML: NDArray[np.int64], costs: Costs) -> tuple[NDArray[np.int64], int]:
        """Unused IDs int64 [M, L] of this table's levels for M new items, and how many got another tuple.

        `codes_ML` are the tokenizer's codes of the new items, int64 [M, content_levels]. An item gets the lowest free
        deduplication code of its tuple. If there is none, it gets the nearest last code whose tuple is free:
        `costs(rows)` are the costs of each last code for these new items, [R, V]. If all are taken, another code
        before the last one is chosen, then one before that. Raises ValueError if there is no free ID at all.
        """
        if codes_ML.ndim != 2 or codes_ML.shape[1] != self.content_levels:
            raise ValueError(
                f"The new codes have shape {codes_ML.shape}, but the table needs {self.content_levels} for each new "
                f"item: use the tokenizer that made it."
            )
        free, ids, moved = FreeIds(self), [], 0
        for row, codes in enumerate(codes_ML.tolist()):
            chosen = free.take(tuple(codes))
            if chosen is None:
                moved += 1
                nearest = np.argsort(costs(np.array([row]))[0], kind="stable").tolist()
                others = (free.take(other) for other in _others(codes, nearest, self.level_sizes))
                chosen = next((other for other in others if other is not None), None)
            if chosen is None:
                raise ValueError(
                    f"No semantic ID is free for new item {row}: all that begin like {codes} are taken. Train the "
                    f"model again with the new items, or with a larger codebook."
                )
            ids.append(chosen)
        return np.array(ids, dtype=np.int64).reshape(-1, len(self.level_sizes)), moved

    def llm_tokens(self) -> list[str]:
        """Each ID as tokens for a language model, such as `<a_12><b_7><c_0>`, with one letter per level.

        Raises ValueError with more than 26 levels.
        """
        if len(self.level_sizes) > len(ascii_lowercase):
            raise ValueError(
                f"{len(self.level_sizes)} levels exceed the {len(ascii_lowercase)} letters of the tokens."
            )
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
        metadata = {
            "format_version": FORMAT_VERSION,
            "items": len(self),
            "level_sizes": list(self.level_sizes),
            "tokenizer_hash": self.tokenizer_hash,
            "extra_code": self.has_extra_code,
        }
        write_json(folder / METADATA_FILE, metadata)

    @classmethod
    def read(cls, folder: Path) -> "SemanticIdTable":
        """Read a table written by `write`. Raises ValueError on another format version or contradictory files."""
        metadata = read_json(folder / METADATA_FILE)
        version = metadata.get("format_version") if isinstance(metadata, dict) else None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{folder / METADATA_FILE} has format_version {version!r}; this version of "
                f"rqrec reads {FORMAT_VERSION}. Recreate the table with `rqrec tokenize`."
            )
        try:
            sizes = converted("level_sizes", tuple[PositiveInt, ...], metadata.get("level_sizes"))
            tokenizer_hash = converted("tokenizer_hash", str, metadata.get("tokenizer_hash"))
            has_extra_code = converted("extra_code", bool, metadata.get("extra_code", True))
        except ValueError as error:
            raise ValueError(
                f"{folder / METADATA_FILE} is damaged: {error} Recreate the table with `rqrec tokenize`."
            ) from error
        levels = [f"code_{level}" for level in range(min(len(sizes), MOST_LEVELS))]
        table = read_parquet(folder / TABLE_FILE, strings=["item_id"], integers=levels)
        if table.columns != ["item_id", *levels]:
            raise ValueError(
                f"{folder / TABLE_FILE} has the columns {table.columns}, but by {METADATA_FILE} they must be "
                f"{['item_id', *levels]}. Recreate the table with `rqrec tokenize`."
            )
        if any(table.null_count().row(0)):
            raise ValueError(
                f"{folder / TABLE_FILE} has empty cells. Recreate the table with `rqrec tokenize`."
            )
        codes_NL = table.drop("item_id").to_numpy().astype(np.int64)
        return cls(IdMap(table["item_id"]), codes_NL, sizes, tokenizer_hash, has_extra_code)


class FreeIds:
    """The semantic IDs that no item of a table has."""

    def __init__(self, table: SemanticIdTable) -> None:
        self._n_extra = table.level_sizes[-1] if table.has_extra_code else 1
        self._has_extra_code = table.has_extra_code
        keys = tuple_ranks(table.content_codes)
        by_tuple = np.lexsort((table.codes_NL[:, -1], keys))
        self._codes_NL, self._rows = table.codes_NL, by_tuple
        self._sorted_keys = keys[by_tuple]
        first = np.concatenate([[True], self._sorted_keys[1:] != self._sorted_keys[:-1]])
        self._starts = np.append(np.flatnonzero(first), len(keys))
        tuples = table.content_codes[by_tuple[self._starts[:-1]]]
        self._group = {one: group for group, one in enumerate(map(tuple, tuples.tolist()))}
        self._taken: dict[tuple[int, ...], set[int]] = {}

    def take(self, codes: tuple[int, ...]) -> tuple[int, ...] | None:
        """The lowest free ID with these content codes, which is no longer free then; None if there is none."""
        if codes not in self._taken:
            self._taken[codes] = self._extra_codes(codes)
        taken = self._taken[codes]
        if len(taken) >= self._n_extra:
            return None
        extra = next(number for number in range(self._n_extra) if number not in taken)
        taken.add(extra)
        return (*codes, extra) if self._has_extra_code else codes

    def _extra_codes(self, codes: tuple[int, ...]) -> set[int]:
        """The deduplication codes that are taken; 0 stands for a tuple without one."""
        if (group := self._group.get(codes)) is None:
            return set()
        rows = self._rows[self._starts[group] : self._starts[group + 1]]
        return set(self._codes_NL[rows, -1].tolist()) if self._has_extra_code else {0}


def _others(
    codes: Sequence[int], nearest: Sequence[int], level_sizes: Sequence[int]
) -> Iterator[tuple[int, ...]]:
    """Other tuples than `codes`: with another last code, the nearest first, then with another code before it, ..."""
    yield from ((*codes[:-1], last) for last in nearest)
    for level in reversed(range(len(codes) - 1)):
        for code in range(level_sizes[level]):
            prefix = (*codes[:level], code, *codes[level + 1 : -1])
            yield from ((*prefix, last) for last in nearest)


def _checked(codes_NL: NDArray[np.int64]) -> NDArray[np.int64]:
    if codes_NL.ndim != 2 or not codes_NL.size or not np.issubdtype(codes_NL.dtype, np.integer):
        raise ValueError(
            f"Codes must be an integer matrix [items, levels] with at least one of each, not "
            f"{codes_NL.dtype} of shape {codes_NL.shape}."
        )
    if len(negative := np.flatnonzero((codes_NL < 0).any(axis=1))):
        raise ValueError(f"Item {negative[0]} has a negative code: {codes_NL[negative[0]].tolist()}.")
    return codes_NL.astype(np.int64, copy=False)
