"""Which texts contain which words, and the words typical of a set of texts.

Shapes: N texts, W distinct words, P (text, word) pairs, M texts of a set.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from scipy.special import xlogy

WORD = r"[\p{L}\p{N}]+(?:[-'’][\p{L}\p{N}]+)*"  # sci-fi and children's are one word each
MIN_G2 = 6.63  # below it, a word could be typical by chance in one case of a hundred
TINY = 1e-12  # against dividing nothing by nothing
MIN_SHARE = 0.1  # of the texts that contain a word that stands for them
# The smallest words of other languages, whose titles would otherwise be typical of each other by these words alone.
SMALL_WORDS = """
als auf aus bei con dal das dei del den der des die dos ein eine elle gli las les los mit nel par per por pour que qui
sur ter uma una und une uno van vom von vor zum zur
"""


@cache
def stop_words() -> frozenset[str]:
    """Words that say nothing of an item."""
    # It takes a second to import, and few commands need it.
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS.union(SMALL_WORDS.split()))


def split_words(texts: Sequence[str] | pl.Series) -> pl.Series:
    """The words of each text, lower case and without accents, as lists of strings [N]."""
    plain = pl.Series("word", texts, dtype=pl.String).str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    return plain.str.to_lowercase().str.extract_all(WORD)


def is_telling(word: str) -> bool:
    """Whether a word may say what texts are about: no year or other number, no stop word, three letters or more."""
    return len(word) >= 3 and not word[0].isdigit() and word not in stop_words()


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

    def typical_words(
        self, texts: NDArray[np.integer], count: int, without: Collection[str] = ()
    ) -> list[str]:
        """Up to `count` words that set some texts apart from the others, most typical first.

        Ranked by G², the log-likelihood ratio of whether a text contains the word, in these texts and in the others
        (Dunning 1993). Words are left out that could be chance (below MIN_G2), that only one of the texts or less
        than MIN_SHARE of them contain, that `is_telling` excludes, and those of `without`.
        """
        words, inside = np.unique(self.contains_NW[texts].indices, return_counts=True)
        common = inside >= max(2, MIN_SHARE * len(texts))
        words, inside = words[common], inside[common]
        outside, n_outside = self._counts[words] - inside, len(self) - len(texts)
        overall = self._counts[words] / len(self)
        g2 = 2 * (
            xlogy(inside, inside / (len(texts) * overall))
            + xlogy(len(texts) - inside, (len(texts) - inside) / (len(texts) * (1 - overall) + TINY))
            + xlogy(outside, outside / (n_outside * overall + TINY))
            + xlogy(n_outside - outside, (n_outside - outside) / (n_outside * (1 - overall) + TINY))
        )
        g2[inside <= len(texts) * overall] = 0  # rarer here than elsewhere
        order = np.lexsort((words, -g2))
        typical = (self._words[words[rank]] for rank in order.tolist() if g2[rank] >= MIN_G2)
        return list(islice((word for word in typical if is_telling(word) and word not in without), count))

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """The number of texts that contain each word."""
        return np.bincount(self.contains_NW.indices, minlength=len(self.numbers))

    @cached_property
    def _words(self) -> list[str]:
        return list(self.numbers)
