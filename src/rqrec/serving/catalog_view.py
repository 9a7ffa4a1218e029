"""Read-only view of a catalogue for the HTTP API: its items, a search, and its semantic IDs as a tree."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.serving.recommender import Recommender
from rqrec.serving.text_index import TextIndex

TYPICAL_WORDS, EXAMPLES = 5, 1  # per node of the tree


class CatalogView:
    """A recommender's catalogue as JSON values, one page at a time.

    `before` is the view of the catalogue that this one was changed from, which saves most of the work.
    """

    def __init__(self, recommender: Recommender, before: "CatalogView | None" = None) -> None:
        self._available_N = recommender.available
        self._titles, self._ids = recommender.titles, recommender.catalog.id_map
        self._codes_NL, self._trie = recommender.table.codes_NL, recommender.trie
        self._texts = recommender.catalog.items["text"].fill_null("")
        self._counts_N = recommender.item_counts
        self._search = recommender.search_in_catalog
        self._text_index = TextIndex.of(self._texts) if before is None else before.indexed(self._texts)

    def indexed(self, texts: pl.Series) -> TextIndex:
        """The index of other texts, in which only those are indexed that differ from this catalogue's."""
        own = self._texts.extend_constant(None, len(texts) - len(self._texts))
        changed = own.ne_missing(texts).arg_true()
        return self._text_index.changed(changed.to_numpy().astype(np.int64), texts[changed])

    def item(self, item: int) -> dict[str, Any]:
        """An item's id, title, semantic ID and text."""
        return {**self.summary(item), "text": self._texts[item]}

    def id_and_title(self, item: int) -> dict[str, Any]:
        """An item's id and title."""
        (item_id,) = self._ids.ids([item])
        return {"item_id": item_id, "title": self._titles[item]}

    def summary(self, item: int) -> dict[str, Any]:
        """An item's id, title and semantic ID."""
        return {**self.id_and_title(item), "semantic_id": self._codes_NL[item].tolist()}

    def items(self, query: str, page: int, page_size: int) -> dict[str, Any]:
        """One page of all items, or of the items that match a query, best match first."""
        if query.strip():
            items, total = self._search.find(query, page_size, (page - 1) * page_size)
        else:
            matches = np.flatnonzero(self._available_N)
            items, total = matches[(page - 1) * page_size : page * page_size], len(matches)
        return {
            "items": list(map(self.summary, items.tolist())),
            "total": total,
            "page": page,
            "page_size": page_size,
        }

    def typical_words(self, items: NDArray[np.int64], count: int = TYPICAL_WORDS) -> list[str]:
        """Up to `count` words that set some items apart from the others (see `TextIndex.typical_words`)."""
        return self._text_index.typical_words(items, count)

    def best_known(self, items: NDArray[np.int64], count: int) -> list[dict[str, Any]]:
        """Ids and titles of those of some items that were taken most often; if that is not known, of the first."""
        if self._counts_N is not None:
            items = items[np.argsort(-self._counts_N[items], kind="stable")]
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
            "items": list(map(self.summary, items[(page - 1) * page_size : page * page_size].tolist())),
            "page": page,
            "page_size": page_size,
        }

    def _items_below(self, depth: int, node: int) -> NDArray[np.int64]:
        start, end = self._trie.depths[depth].leaf_start[node : node + 2].tolist()
        return self._trie.item_of_leaf[start:end].numpy()
