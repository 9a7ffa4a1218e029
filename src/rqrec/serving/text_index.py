"""Which words occur in which texts: search by prefixes of words, and the words typical of some texts.

Shapes: N texts, W different words, P pairs of a word and a text that has it, M found texts.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

LAST = "\U0010ffff"  # sorts after every character of a word


def split_words(texts: Sequence[str]) -> pl.Series:
    """The words of each text, lower case and without accents, as lists of strings [N]."""
    plain = pl.Series("word", texts, dtype=pl.String).str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    return plain.str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")


@dataclass(frozen=True)
class TextIndex:
    """The words of N texts.

    `vocabulary` has the W words, sorted. `texts_P` int64: the texts that have word w, ascending, are
    `texts_P[starts_W[w]:starts_W[w + 1]]`; `words_P` the words of text n, `words_P[starts_N[n]:starts_N[n + 1]]`.
    """

    vocabulary: list[str]
    texts_P: NDArray[np.int64]
    starts_W: NDArray[np.int64]
    words_P: NDArray[np.int64]
    starts_N: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "TextIndex":
        """The index of texts; a word that a text repeats counts once."""
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
        """The texts [M] in which every word of the query starts a word, the best first.

        Better are those with more of the query's words whole, then shorter ones, then earlier ones.
        """
        words = split_words([query])[0].unique().to_list()
        if not words:
            return np.zeros(0, dtype=np.int64)
        found_M = np.arange(len(self.starts_N) - 1)
        for word in words:
            found_M = np.intersect1d(found_M, self._texts(word, word + LAST))
        whole_M = np.zeros(len(found_M), dtype=np.int64)
        for word in words:
            whole_M += np.isin(found_M, self._texts(word, word + "\0"))
        length_M = np.diff(self.starts_N)[found_M]
        return found_M[np.lexsort((found_M, length_M, -whole_M))]

    def _texts(self, first: str, end: str) -> NDArray[np.int64]:
        """Texts with a word w for which first <= w < end."""
        start, stop = (self.starts_W[bisect_left(self.vocabulary, edge)] for edge in (first, end))
        return np.unique(self.texts_P[start:stop])

    def typical(self, texts: NDArray[np.int64], count: int) -> list[str]:
        """Up to `count` words that set some texts apart from all texts, the most typical first.

        Ranked by n log(lift): n of the texts have the word, lift times the share of all texts that do.
        """
        if not len(texts):
            return []
        own = np.concatenate([self.words_P[self.starts_N[n] : self.starts_N[n + 1]] for n in texts.tolist()])
        words, counts = np.unique(own, return_counts=True)
        overall = np.diff(self.starts_W)[words] / (len(self.starts_N) - 1)
        weights = counts * np.log(counts / len(texts) / overall)
        order = np.lexsort((words, -weights))
        letters = (self.vocabulary[words[place]] for place in order.tolist() if weights[place] > 1e-9)
        return [word for word, _ in zip((w for w in letters if len(w) > 1), range(count), strict=False)]
