"""Search in all fields of a catalogue, with typos forgiven, by a Tantivy index in memory.

Shapes: N items of the catalogue.
"""

import threading
import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
import tantivy
from numpy.typing import NDArray

from rqrec.data.catalog import Catalog
from rqrec.data.fields import EMBEDDING_ROW, as_field, type_of_field

WORD = r"[\p{Alphabetic}\p{N}]+|\p{Emoji_Presentation}"  # titles may be nothing but pictures
WEIGHTS = {"title": 3.0, "item_id": 2.0, "fields": 1.0}  # of a match, by where it is
EXACT, PREFIX, TYPO = 1.0, 0.5, 0.2  # and by how well the word matches
TYPOS = ((8, 2), (4, 1))  # words of so many letters may have so many typos; the first that applies counts
MAX_WORDS = 16  # distinct words of a query that count
FAME = 0.3  # a match counts by this share more for each power of e of how often its item was taken
RERANKED = 200  # best matches that are ordered with regard to that
WRITER_BYTES = 64_000_000


class Found(NamedTuple):
    """What a search finds."""

    items: NDArray[np.int64]
    """The item indices that were asked for, best match first."""
    total: int
    """Number of items that match."""


@dataclass(frozen=True)
class FoundItem:
    """An item that a search found."""

    item_id: str
    title: str


class SearchIndex:
    """An index that follows a catalogue as it changes. Thread-safe."""

    def __init__(self) -> None:
        schema = tantivy.SchemaBuilder().add_unsigned_field("item", stored=True, indexed=True)
        for name in WEIGHTS:
            schema.add_text_field(name, tokenizer_name="words", index_option="freq")
        self._index = tantivy.Index(schema.build())
        tokenizer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.regex(WORD)).filter(
            tantivy.Filter.lowercase()
        )
        self._analyzer = tokenizer.filter(tantivy.Filter.ascii_fold()).build()
        self._index.register_tokenizer("words", self._analyzer)
        self._lock = threading.Lock()
        self._hashes = np.zeros(0, dtype=np.uint64)  # of what is indexed of each item; 0: nothing

    def view(
        self,
        items: pl.DataFrame,
        available_N: NDArray[np.bool_],
        counts_N: NDArray[np.int64] | NDArray[np.float64] | None = None,
    ) -> "CatalogSearch":
        """The search among the available items of a catalogue; only what differs from the last view is indexed.

        Earlier views still find what they found. `counts_N`: how often each item was taken, where that is known.
        """
        with self._lock:
            texts = _texts(items)
            hashes = np.where(available_N, texts.hash_rows().to_numpy() | np.uint64(1), np.uint64(0))
            before = np.zeros(max(len(hashes), len(self._hashes)), dtype=np.uint64)
            after = before.copy()
            before[: len(self._hashes)], after[: len(hashes)] = self._hashes, hashes
            changed = before != after
            self._write(texts, np.flatnonzero(changed & (before > 0)), np.flatnonzero(changed & (after > 0)))
            self._hashes = hashes
            self._index.reload()
            return CatalogSearch(self._index.searcher(), self._index.schema, self._analyzer, counts_N)

    def _write(self, texts: pl.DataFrame, gone: NDArray[np.int64], new: NDArray[np.int64]) -> None:
        if not len(gone) and not len(new):
            return
        writer = self._index.writer(WRITER_BYTES, num_threads=1)
        for item in gone.tolist():
            writer.delete_documents_by_query(tantivy.Query.term_query(self._index.schema, "item", item))
        names = texts.columns
        for item, row in zip(new.tolist(), texts[new].iter_rows(), strict=True):
            document = tantivy.Document()
            document.add_unsigned("item", item)
            for name, text in zip(names, row, strict=True):
                document.add_text(name, text)
            writer.add_document(document)
        writer.commit()
        writer.wait_merging_threads()


@dataclass(frozen=True)
class CatalogSearch:
    """The search in a catalogue as it was at one time."""

    searcher: tantivy.Searcher
    schema: tantivy.Schema
    analyzer: tantivy.TextAnalyzer
    counts_N: NDArray[np.int64] | NDArray[np.float64] | None

    def find(self, query: str, k: int, start: int = 0) -> Found:
        """The items that match a query, from the `start`-th best on, at most k.

        An item matches a word if one of its words is the same or begins so, in any of its fields. Those that match
        all words are found; if there are none, those that do but for a typo or two in each word; and if there are
        none either, those that match at least half of the words so. Better matches come first, and among them items
        that are taken more often, where that is known.
        """
        words = list(dict.fromkeys(self.analyzer.analyze(unicodedata.normalize("NFKC", query))))[:MAX_WORDS]
        if not words:
            return Found(np.zeros(0, dtype=np.int64), 0)
        # It reserves memory for as many items as it may find.
        limit = min(max(RERANKED, start + k), max(1, self.searcher.num_docs))
        strictly = [(tantivy.Occur.Should, self._word(word)) for word in words]
        roughly = [(tantivy.Occur.Should, self._word(word, typos=True)) for word in words]
        for matches, least in (
            (strictly, len(words)),
            (roughly, len(words)),
            (roughly, (len(words) + 1) // 2),
        ):
            parsed = tantivy.Query.boolean_query(matches, minimum_number_should_match=least)
            result = self.searcher.search(parsed, limit, count=True)
            if result.hits:
                break
        items = np.array(
            [self.searcher.doc(address)["item"][0] for _, address in result.hits], dtype=np.int64
        )
        scores = np.array([score for score, _ in result.hits])
        if self.counts_N is not None:
            scores *= 1 + FAME * np.log1p(self.counts_N[items])
        order = np.lexsort((items, -scores.round(4)))
        return Found(items[order][start : start + k], result.count)  # type: ignore[attr-defined]  # missing in Tantivy's stub

    def found_items(self, query: str, k: int, catalog: Catalog) -> list[FoundItem]:
        """The k items that match a query best, by their ids and titles."""
        items = self.find(query, k).items.tolist()
        return list(map(FoundItem, catalog.id_map.ids(items), catalog.titles_of(items)))

    def _word(self, word: str, *, typos: bool = False) -> tantivy.Query:
        """What matches a word."""
        query, n_typos = tantivy.Query, 0
        if typos and not any(map(str.isdecimal, word)):  # another number is no typo
            n_typos = next((most for length, most in TYPOS if len(word) >= length), 0)
        ways = []
        for name, weight in WEIGHTS.items():
            starts = query.fuzzy_term_query(self.schema, name, word, distance=0, prefix=True)
            ways += [(query.term_query(self.schema, name, word), EXACT * weight), (starts, PREFIX * weight)]
            if n_typos and name != "item_id":
                typo = query.fuzzy_term_query(self.schema, name, word, distance=n_typos, prefix=True)
                ways.append((typo, TYPO * weight))
        return query.boolean_query([(tantivy.Occur.Should, query.boost_query(*way)) for way in ways])


def _texts(items: pl.DataFrame) -> pl.DataFrame:
    """What is searched of each item: its title, its id, and its other fields as one text."""
    names = [
        name
        for name, dtype in items.schema.items()
        if name not in ("item_id", "title", EMBEDDING_ROW) and type_of_field(dtype) is not None
    ]
    items = items.with_columns(as_field(items[name]) for name in names)
    columns = [
        pl.col(name).cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
        if isinstance(items[name].dtype, pl.List)
        else pl.col(name).cast(pl.String)
        for name in names
    ]
    fields = pl.concat_str(columns or [pl.lit("")], separator=" ", ignore_nulls=True)
    texts = items.select("title", "item_id", fields=fields)
    return texts.with_columns(pl.all().fill_null("").str.normalize("NFKC"))
