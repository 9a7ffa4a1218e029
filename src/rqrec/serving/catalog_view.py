"""Read-only view of a catalogue for the HTTP API: its items, a search, and its semantic IDs as a tree."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.serving.recommender import Recommender
from rqrec.serving.text_index import TextIndex

TYPICAL_WORDS = 5  # per node of the tree


class CatalogView:
    """A recommender's catalogue as JSON values, one page at a time."""

    def __init__(self, recommender: Recommender) -> None:
        self._available_N = recommender.available
        self._titles, self._ids = recommender.titles, recommender.catalog.id_map
        self._codes_NL, self._trie = recommender.table.codes_NL, recommender.trie
        self._texts = recommender.catalog.items["text"].fill_null("").to_list()
        titles_and_ids = zip(self._titles, self._ids.all, strict=True)
        self._title_index = TextIndex.of([f"{title} {item_id}" for title, item_id in titles_and_ids])
        self._text_index = TextIndex.of(self._texts)

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
            matches = self._title_index.search(query)
            matches = matches[self._available_N[matches]]
        else:
            matches = np.flatnonzero(self._available_N)
        return {
            "items": self._page(matches, page, page_size),
            "total": len(matches),
            "page": page,
            "page_size": page_size,
        }

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
                words = self._text_index.typical_words(below, TYPICAL_WORDS)
                children.append({"code": code, "n_items": len(below), "words": words})
        return {
            "prefix": list(prefix),
            "n_items": len(items),
            "words": self._text_index.typical_words(items, TYPICAL_WORDS),
            "children": sorted(children, key=lambda child: -child["n_items"]),
            "items": self._page(items.tolist(), page, page_size),
            "page": page,
            "page_size": page_size,
        }

    def _items_below(self, depth: int, node: int) -> NDArray[np.int64]:
        start, end = self._trie.depths[depth].leaf_start[node : node + 2].tolist()
        return self._trie.item_of_leaf[start:end].numpy()

    def _page(self, items: Sequence[int] | NDArray[np.int64], page: int, size: int) -> list[dict[str, Any]]:
        on_page: Iterable[int] = items[(page - 1) * size : page * size]
        return [self.summary(int(item)) for item in on_page]
