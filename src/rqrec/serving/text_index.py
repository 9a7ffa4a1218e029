"""Inverted index of words: search by word prefixes, and the words typical of a set of texts.

Shapes: N texts, W distinct words, P (word, text) pairs, M matching texts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

MAX_CHARACTER = "\U0010ffff"  # sorts after every character of a word


def split_words(texts: Sequence[str]) -> pl.Series:
    """The words of each text, lower case and without accents, as lists of strings [N]."""
    plain = pl.Series("word", texts, dtype=pl.String).str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    return plain.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")


@dataclass(frozen=True)
class TextIndex:
    """The words of N texts.

    `vocabulary`: the W words, sorted. `texts_P` int64: the texts that contain word w, ascending, are
    `texts_P[starts_W[w]:starts_W[w + 1]]`. `words_P` int64: the words of text n are
    `words_P[starts_N[n]:starts_N[n + 1]]`. `starts_W` int64 has W + 1 entries, `starts_N` int64 N + 1.
    """

    vocabulary: list[str]
    texts_P: NDArray[np.int64]
    starts_W: NDArray[np.int64]
    words_P: NDArray[np.int64]
    starts_N: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "TextIndex":
        """Index texts; a word that a text repeats counts once."""
        pairs = (
            pl.DataFrame({"text": np.arange(len(texts)), "word": split_words(texts)})
            .explode("word")
            .drop_nulls()
            .unique()
            .sort("word", "text")
        )
        words = pairs["word"].unique().sort()
        word_P = pairs["word"].rle_id().cast(pl.Int64).to_numpy()
        text_P = pairs["text"].cast(pl.Int64).to_numpy()
        order_P = np.argsort(text_P, kind="stable")
        return cls(
            words.to_list(),
            text_P,
            np.searchsorted(word_P, np.arange(len(words) + 1)),
            word_P[order_P],
            np.searchsorted(text_P[order_P], np.arange(len(texts) + 1)),
        )

    def search(self, query: str) -> NDArray[np.int64]:
        """The texts [M] in which every word of the query is the prefix of a word, best match first.

        Texts with more exact matches of query words come first, then shorter texts, then lower indices.
        """
        words = split_words([query])[0].unique().to_list()
        if not words:
            return np.zeros(0, dtype=np.int64)
        matches_M = np.arange(len(self.starts_N) - 1)
        for word in words:
            matches_M = np.intersect1d(matches_M, self._texts_in_range(word, word + MAX_CHARACTER))
        exact_M = np.zeros(len(matches_M), dtype=np.int64)
        for word in words:
            exact_M += np.isin(matches_M, self._texts_in_range(word, word + "\0"))
        length_M = np.diff(self.starts_N)[matches_M]
        return matches_M[np.lexsort((matches_M, length_M, -exact_M))]

    def _texts_in_range(self, first: str, end: str) -> NDArray[np.int64]:
        """The texts that contain a word w with first <= w < end."""
        start, stop = (self.starts_W[bisect_left(self.vocabulary, edge)] for edge in (first, end))
        return np.unique(self.texts_P[start:stop])

    def typical_words(self, texts: NDArray[np.int64], count: int) -> list[str]:
        """Up to `count` words that distinguish some texts from the rest, most typical first.

        Ranked by n log(lift): n of the given texts contain the word, and lift is the share of the given texts that
        contain it over the share of all texts that do. Words of one letter are excluded.
        """
        if not len(texts):
            return []
        word_ids = np.concatenate(
            [self.words_P[self.starts_N[n] : self.starts_N[n + 1]] for n in texts.tolist()]
        )
        words, counts = np.unique(word_ids, return_counts=True)
        overall = np.diff(self.starts_W)[words] / (len(self.starts_N) - 1)
        weights = counts * np.log(counts / len(texts) / overall)
        order = np.lexsort((words, -weights))
        typical = (self.vocabulary[words[rank]] for rank in order.tolist() if weights[rank] > 1e-9)
        return [word for word, _ in zip((w for w in typical if len(w) > 1), range(count), strict=False)]
