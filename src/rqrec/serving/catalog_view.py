"""Read-only view of a catalogue for the HTTP API: its items, a search, and its semantic IDs as a tree.

Shapes: N items of the catalogue, L levels.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.data.templates import MISSING
from rqrec.serving.facets import Facets
from rqrec.serving.pictures import COLUMN, NO_PICTURES, Pictures
from rqrec.serving.recommender import Recommender
from rqrec.serving.text_index import TextIndex, split_words

TYPICAL_WORDS, EXAMPLES = 5, 1  # per node of the tree
TYPICAL_VALUES = 3  # of a sample user's history


class CatalogView:
    """A recommender's catalogue as JSON values, one page at a time.

    `fame_N` is how well known each item is; items beyond its end are new. `before` is the view of the catalogue that
    this one was changed from, which saves most of the work.
    """

    def __init__(
        self,
        recommender: Recommender,
        fame_N: NDArray[np.float64],
        before: "CatalogView | None" = None,
        pictures: Pictures = NO_PICTURES,
    ) -> None:
        items = recommender.catalog.items
        self.fame_N = np.pad(fame_N, (0, len(items) - len(fame_N)))
        self._available_N = recommender.available
        self._titles, self._ids = recommender.titles, recommender.catalog.id_map
        self._codes_NL, self._trie = recommender.table.codes_NL, recommender.trie
        self.facets: Facets = Facets.of(items) if before is None else before.facets.changed(items)
        self._texts = items["text"].fill_null("")
        self._labels = labels_of(items)
        self.pictures: Pictures = pictures if before is None else before.pictures
        named = COLUMN in items.columns and items[COLUMN].dtype == pl.String
        self._image_names = items[COLUMN].to_list() if named else [None] * len(items)
        self._search = replace(recommender.search_in_catalog, counts_N=self.fame_N)
        self.text_index = TextIndex.of(self._texts) if before is None else before.indexed(self._texts)

        self._words: dict[tuple[int, ...], list[str]] = {}  # by prefix, as far as asked for

    def indexed(self, texts: pl.Series) -> TextIndex:
        """The index of other texts, in which only those are indexed that differ from this catalogue's."""
        own = self._texts.extend_constant(None, len(texts) - len(self._texts))
        changed = own.ne_missing(texts).arg_true()
        return self.text_index.changed(changed.to_numpy().astype(np.int64), texts[changed])

    def item(self, item: int) -> dict[str, Any]:
        """An item's id, title, semantic ID, facets and text."""
        (summary,) = self.summaries(np.array([item]))
        return {**summary, "text": self._texts[item]}

    def id_and_title(self, item: int) -> dict[str, Any]:
        """An item's id and title."""
        (item_id,) = self._ids.ids([item])
        return {"item_id": item_id, "title": self._titles[item]}

    def summaries(self, items: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The ids, titles, semantic IDs, facets and pictures of items."""
        codes = self._codes_NL[items].tolist()
        return [
            {**self.id_and_title(item), "semantic_id": semantic_id, **described}
            for item, semantic_id, described in zip(items.tolist(), codes, self.described(items), strict=True)
        ]

    def described(self, items: NDArray[np.int64]) -> list[dict[str, Any]]:
        """The facets of each of some items, and the address of its picture, relative to the page."""
        ids = self._ids.ids(items)
        return [
            {
                "facets": [facet._asdict() for facet in facets],
                "image": self.pictures.address(item_id, self._image_names[item]),
            }
            for item, item_id, facets in zip(items.tolist(), ids, self.facets.of_items(items), strict=True)
        ]

    def typical(self, items: NDArray[np.int64]) -> list[str]:
        """What distinguishes some items: values of fields, or else words."""
        facets = [facet.label for facet in self.facets.typical(items, TYPICAL_VALUES)]
        return facets or self.typical_words(items, TYPICAL_VALUES)

    def items(self, query: str, page: int, page_size: int) -> dict[str, Any]:
        """One page of all items, or of the items that match a query, best match first."""
        if query.strip():
            items, total = self._search.find(query, page_size, (page - 1) * page_size)
        else:
            matches = np.flatnonzero(self._available_N)
            items, total = matches[(page - 1) * page_size : page * page_size], len(matches)
        return {
            "items": self.summaries(items),
            "total": total,
            "page": page,
            "page_size": page_size,
        }

    def typical_words(self, items: NDArray[np.int64], count: int = TYPICAL_WORDS) -> list[str]:
        """Up to `count` words that set some items apart from the others (see `TextIndex.typical_words`).

        Words that only label the fields of a text are none of them.
        """
        return self.text_index.typical_words(items, count, self._labels)

    def words_of(self, prefix: Sequence[int]) -> list[str]:
        """The typical words of the items below a prefix of codes; none of those of a single item."""
        key = tuple(prefix)
        if key not in self._words:
            node = self._trie.node(prefix)
            items = self._items_below(len(prefix), node) if node is not None else np.zeros(0, np.int64)
            self._words[key] = self.typical_words(items) if len(items) > 1 else []
        return self._words[key]

    def best_known(self, items: NDArray[np.int64], count: int) -> list[dict[str, Any]]:
        """Ids and titles of the best-known of some items."""
        items = items[np.argsort(-self.fame_N[items], kind="stable")]
        return list(map(self.id_and_title, items[:count].tolist()))

    def node(self, prefix: Sequence[int], page: int, page_size: int) -> dict[str, Any] | None:
        """The tree node of a prefix of codes, with its children and one page of its items.

        None if no item's semantic ID starts with the prefix.
        """
        node = self._trie.node(prefix)
        if node is None:
            return None
        depth = len(prefix)
        items = self._items_below(depth, node)
        children = []
        if depth < self._trie.n_levels:
            first, end = self._trie.depths[depth].first_child[node : node + 2].tolist()
            codes = self._trie.depths[depth + 1].code[first:end].tolist()
            for child, code in enumerate(codes, start=first):
                below = self._items_below(depth + 1, child)
                words, examples = self.typical_words(below), self.best_known(below, EXAMPLES)
                children.append({"code": code, "n_items": len(below), "words": words, "best_known": examples})
        return {
            "prefix": list(prefix),
            "n_items": len(items),
            "words": self.typical_words(items),
            "children": sorted(children, key=lambda child: -child["n_items"]),
            "items": self.summaries(items[(page - 1) * page_size : page * page_size]),
            "page": page,
            "page_size": page_size,
        }

    def _items_below(self, depth: int, node: int) -> NDArray[np.int64]:
        start, end = self._trie.depths[depth].leaf_start[node : node + 2].tolist()
        return self._trie.item_of_leaf[start:end].numpy(force=True)


def labels_of(items: pl.DataFrame) -> frozenset[str]:
    """The words of texts that label a field, or say that its value is missing: "genres", "listed".

    The name of a field that is true or false is what its items are, such as "comedy", and no label.
    """
    names = [name for name, dtype in items.schema.items() if dtype != pl.Boolean]
    words = set(split_words([*(name.replace("_", " ") for name in names), *MISSING]).explode().drop_nulls())
    return frozenset(words | {f"{word}s" for word in words} | {word.removesuffix("s") for word in words})
