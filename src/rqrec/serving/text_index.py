"""Which texts contain which words, and the words typical of a set of texts.

Shapes: N texts, W distinct words, P (text, word) pairs, M texts of a set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack


def split_words(texts: Sequence[str] | pl.Series) -> pl.Series:
    """The words of each text, lower case and without accents, as lists of strings [N]."""
    plain = pl.Series("word", texts, dtype=pl.String).str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    return plain.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")


@dataclass(frozen=True)
class TextIndex:
    """The words of N texts.

    `numbers`: the number of each word, 0 to W - 1. `contains_NW`: bool, sparse.
    """

    numbers: Mapping[str, int]
    contains_NW: csr_array

    @classmethod
    def of(cls, texts: Sequence[str] | pl.Series) -> "TextIndex":
        """Index texts; a word that a text repeats counts once."""
        return cls({}, csr_array((0, 0), dtype=bool)).changed(np.arange(len(texts)), texts)

    def __len__(self) -> int:
        return int(self.contains_NW.shape[0])

    def changed(self, numbers_M: NDArray[np.int64], texts: Sequence[str] | pl.Series) -> "TextIndex":
        """The index with these texts at these places, which may be beyond the end, without a gap."""
        pairs = (
            pl.DataFrame({"text": np.arange(len(texts)), "word": split_words(texts)})
            .explode("word")
            .drop_nulls()
            .unique()
            .sort("text", "word")
        )
        numbers = dict(self.numbers)
        for word in pairs["word"].unique().sort():
            numbers.setdefault(word, len(numbers))
        words_P = pairs["word"].replace_strict(numbers, return_dtype=pl.Int32).to_numpy()
        starts_M = np.searchsorted(pairs["text"].to_numpy(), np.arange(len(texts) + 1))
        ones_P = np.ones(len(words_P), dtype=bool)
        new_MW = csr_array((ones_P, words_P, starts_M), shape=(len(texts), len(numbers)))
        old_NW = self.contains_NW.copy()
        old_NW.resize(len(self), len(numbers))
        both = vstack([old_NW, new_MW], format="csr")
        rows = np.arange(max(len(self), numbers_M.max(initial=-1) + 1))
        rows[numbers_M] = len(self) + np.arange(len(texts))
        return TextIndex(numbers, both if np.array_equal(rows, np.arange(both.shape[0])) else both[rows])

    def typical_words(self, texts: NDArray[np.integer], count: int) -> list[str]:
        """Up to `count` words that distinguish some texts from the rest, most typical first.

        Ranked by n log(lift): n of the given texts contain the word, and lift is the share of the given texts that
        contain it over the share of all texts that do. Words of one letter are excluded.
        """
        if not len(texts):
            return []
        words, counts = np.unique(self.contains_NW[texts].indices, return_counts=True)
        overall = self._counts[words] / len(self)
        weights = counts * np.log(counts / len(texts) / overall)
        order = np.lexsort((words, -weights))
        typical = (self._words[words[rank]] for rank in order.tolist() if weights[rank] > 1e-9)
        return [word for word, _ in zip((w for w in typical if len(w) > 1), range(count), strict=False)]

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """The number of texts that contain each word."""
        return np.bincount(self.contains_NW.indices, minlength=len(self.numbers))

    @cached_property
    def _words(self) -> list[str]:
        return list(self.numbers)
