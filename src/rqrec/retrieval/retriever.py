"""A retrieval model with its semantic-ID table: histories of item indices in, ranked items out.

Shapes: B histories, X items of a history, K items of each (generated or given), M others, N items of the catalogue, L
levels.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.retrieval_model import CodeLookup, RetrievalModel
from rqrec.retrieval.beam_search import beam_search
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.retrieval.ranking import Ranked
from rqrec.retrieval.scoring import ItemPaths, code_log_probs, score_items
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie


class Found(NamedTuple):
    """What a search finds."""

    ranked: Ranked
    others_BM: Tensor | None
    """The exact log-probabilities of the items that were asked for, float32 [B, M]; meaningless at PADDING."""
    context: Any
    """What the model's `encode` returned for the histories, for `item_log_probs`."""


@dataclass
class Retriever:
    """Generates the next items of histories by beam search over the legal semantic IDs.

    Raises ValueError if the table and the model have different level sizes.
    """

    model: RetrievalModel[Any]
    table: SemanticIdTable
    beam_width: int = BEAM_WIDTH
    device: torch.device | str = "cpu"
    known_N: NDArray[np.bool_] | None = None
    """The items that the model was trained on, bool; it generates no others, but reads them. None: all."""
    lookup: CodeLookup = field(init=False)
    trie: Trie = field(init=False)

    def __post_init__(self) -> None:
        if tuple(self.model.level_sizes) != tuple(self.table.level_sizes):
            raise ValueError(
                f"The model has level sizes {tuple(self.model.level_sizes)}, but the semantic-ID table has "
                f"{tuple(self.table.level_sizes)}. Use the table that the model was trained with."
            )
        self.lookup = CodeLookup.from_codes(self.table.codes_NL, self.device)
        self.trie = Trie.build(self.table.codes_NL, self.device, inside_N=self.known_N)

    @torch.inference_mode()
    def recommend(self, histories: Histories, k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k most likely next items of each history.

        A score is the model's log-probability. The beam width is at least k; a small catalogue is ranked exactly (see
        `width`). `exclude_seen` excludes the items of each history.
        """
        return self.search(histories, k, Constraints(exclude_seen)).ranked

    @torch.inference_mode()
    def search(
        self, histories: Histories, k: int, constraints: Constraints, others_BM: Tensor | None = None
    ) -> Found:
        """The k best items under constraints, and the log-probabilities of others (padded with PADDING)."""
        seen_BX = torch.from_numpy(histories.items_BT).to(self.device) if constraints.exclude_seen else None
        batch = self.lookup.batch(histories, self.model.max_items)
        context = self.model.encode(batch)
        beside = None if others_BM is None else ItemPaths(self.trie, self._in_trie(others_BM))
        ranked = beam_search(
            self.model,
            batch,
            self.trie,
            k,
            beam_width=self.width(k),
            context=context,
            excluded_BX=seen_BX,
            allowed_N=constraints.allowed_N,
            boost_N=constraints.boost_N,
            beside=beside,
        )
        return Found(ranked, None if beside is None else torch.stack(beside.by_level).sum(0), context)

    def width(self, k: int) -> int:
        """The prefixes that a search for k items keeps.

        All of them if a beam reads every prefix with a choice anyway: then the ranking is exact. Larger catalogues
        take longer to score than to search (docs/performance.md).
        """
        beam = max(k, self.beam_width)
        return max(beam, self.trie.n_items) if max(self.trie.n_choices) <= beam else beam

    @torch.inference_mode()
    def item_log_probs(self, context: Any, items_BK: Tensor) -> Tensor:
        """The exact log-probability of K items of each history, float32 [B, K]; meaningless at PADDING."""
        return self._code_log_probs(context, items_BK).sum(2)

    def score_items(self, histories: Histories) -> Tensor:
        """The exact log-probability of every item for each history, float32 [B, N]; slow: no search.

        Only for a model that was trained on all items.
        """
        return score_items(self.model, self.lookup.batch(histories, self.model.max_items), self.trie)

    @torch.inference_mode()
    def code_log_probs(self, histories: Histories, items_BK: NDArray[np.int64]) -> Tensor:
        """log p(code | history, codes before it) for each code of K items of each history, float32 [B, K, L].

        Each history is read once for its K items. Values where `items_BK` is PADDING are meaningless.
        """
        context = self.model.encode(self.lookup.batch(histories, self.model.max_items))
        return self._code_log_probs(context, torch.from_numpy(items_BK).to(self.device))

    def _code_log_probs(self, context: Any, items_BK: Tensor) -> Tensor:
        return code_log_probs(self.model, context, self.trie, self._in_trie(items_BK))

    def _in_trie(self, items: Tensor) -> Tensor:
        """The items, with one of the trie in place of padding; item 0 may be none that the model knows."""
        return items.where(items != PADDING, self.trie.item_of_leaf[:1].long())
