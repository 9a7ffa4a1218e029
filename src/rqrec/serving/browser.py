"""A catalogue to look at: its items, its search, and its semantic IDs as a tree."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.serving.recommender import Recommender
from rqrec.serving.text_index import TextIndex

WORDS = 5  # typical of a node


class Browser:
    """Pages of a recommender's catalogue, as JSON values."""

    def __init__(self, recommender: Recommender) -> None:
        self._titles, self._ids = recommender.titles, recommender.catalog.id_map
        self._codes_NL, self._trie = recommender.table.codes_NL, recommender.trie
        texts = recommender.catalog.items["text"].fill_null("").to_list()
        names = zip(self._titles, self._ids.all, strict=True)
        self._texts = texts
        self._names = TextIndex.of([f"{title} {item_id}" for title, item_id in names])
        self._words = TextIndex.of(texts)

    def item(self, item: int) -> dict[str, Any]:
        """An item with its text."""
        return {**self.brief(item), "text": self._texts[item]}

    def named(self, item: int) -> dict[str, Any]:
        """An item's id and title."""
        (item_id,) = self._ids.ids([item])
        return {"item_id": item_id, "title": self._titles[item]}

    def brief(self, item: int) -> dict[str, Any]:
        """An item's id, title and semantic ID."""
        return {**self.named(item), "semantic_id": self._codes_NL[item].tolist()}

    def items(self, query: str, page: int, page_size: int) -> dict[str, Any]:
        """A page of all items, or of those that a query finds, the best first."""
        found = self._names.search(query) if query.strip() else range(len(self._ids))
        return {
            "items": self._page(found, page, page_size),
            "total": len(found),
            "page": page,
            "page_size": page_size,
        }

    def semantic_ids(self, prefix: Sequence[int], page: int, page_size: int) -> dict[str, Any] | None:
        """What is below a prefix of codes; None where no item starts with it."""
        node = self._trie.node(prefix)
        if node is None:
            return None
        depth = len(prefix)
        items = self._below(depth, node)
        children = []
        if depth < self._trie.n_levels:
            first, end = self._trie.depths[depth].first_child[node : node + 2].tolist()
            codes = self._trie.depths[depth + 1].code[first:end].tolist()
            for child, code in enumerate(codes, start=first):
                below = self._below(depth + 1, child)
                words = self._words.typical(below, WORDS)
                children.append({"code": code, "n_items": len(below), "words": words})
        return {
            "prefix": list(prefix),
            "n_items": len(items),
            "words": self._words.typical(items, WORDS),
            "children": sorted(children, key=lambda child: -child["n_items"]),
            "items": self._page(items.tolist(), page, page_size),
            "page": page,
            "page_size": page_size,
        }

    def _below(self, depth: int, node: int) -> NDArray[np.int64]:
        start, end = self._trie.depths[depth].leaf_start[node : node + 2].tolist()
        return self._trie.item_of_leaf[start:end].numpy()

    def _page(self, items: Sequence[int] | NDArray[np.int64], page: int, size: int) -> list[dict[str, Any]]:
        shown: Iterable[int] = items[(page - 1) * size : page * size]
        return [self.brief(int(item)) for item in shown]
