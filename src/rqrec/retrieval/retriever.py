"""A retrieval model with its semantic-ID table: histories of item indices in, ranked items out.

Shapes: B histories, T items of a history, K items of each (generated or given), M neighbours, C candidates, N items
of the catalogue, L levels.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.data.sequences import Histories
from rqrec.knn.index import KnnIndex
from rqrec.models.retrieval_model import CodeLookup, RetrievalModel
from rqrec.retrieval.beam_search import beam_search, rank_by_quota
from rqrec.retrieval.knn_mixture import Candidates
from rqrec.retrieval.ranking import Ranked, order_keys, padded
from rqrec.retrieval.scoring import code_log_probs, score_items
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie

BEAM_WIDTH = 50  # prefixes that a search keeps, wherever nothing else is asked for


@dataclass
class Retriever:
    """Generates the next items of histories by beam search over the legal semantic IDs.

    With `knn`, the model is mixed with a kNN index (see `rqrec.retrieval.knn_mixture`).
    Raises ValueError if the table and the model have different level sizes.
    """

    model: RetrievalModel[Any]
    table: SemanticIdTable
    beam_width: int = BEAM_WIDTH
    device: torch.device | str = "cpu"
    knn: KnnIndex | None = None
    lookup: CodeLookup = field(init=False)
    trie: Trie = field(init=False)

    def __post_init__(self) -> None:
        if tuple(self.model.level_sizes) != tuple(self.table.level_sizes):
            raise ValueError(
                f"The model has level sizes {tuple(self.model.level_sizes)}, but the semantic-ID table has "
                f"{tuple(self.table.level_sizes)}. Use the table that the model was trained with."
            )
        self.lookup = CodeLookup.from_codes(self.table.codes_NL, self.device)
        self.trie = Trie.build(self.table.codes_NL, self.device)
        if self.knn is not None:
            self.knn = self.knn.to(self.device)

    @torch.inference_mode()
    def recommend(
        self,
        histories: Histories,
        k: int,
        *,
        exclude_seen: bool = True,
        allowed_N: NDArray[np.bool_] | None = None,
        max_per_code: int | None = None,
    ) -> Ranked:
        """The k most likely next items of each history.

        A score is the model's log-probability; with `knn`, the mixture's among the candidates. The beam width is at
        least k. `exclude_seen` excludes the items of each history. `allowed_N` (bool, by item index) restricts the
        items that may be recommended; `max_per_code` limits how many may share their first code (see
        `beam_search`).
        """
        allowed = None if allowed_N is None else torch.from_numpy(allowed_N).to(self.device)
        if self.knn is None:
            return self._search(histories, k, exclude_seen, allowed, max_per_code)[0]
        found = self._candidates(histories, k, exclude_seen, allowed, max_per_code)
        log_p_BC = found.log_p_mixture(self.knn.settings.weight, self.knn.settings.power)
        ties_BC = found.items_BC.clamp(min=0)
        if max_per_code is None:
            best_BC = order_keys(log_p_BC, ties_BC).argsort(dim=1, descending=True)
        else:
            first_codes_BC = self.lookup.codes_NL[ties_BC, 0]
            best_BC, over_BC = rank_by_quota(log_p_BC, ties_BC, first_codes_BC, max_per_code)
            log_p_BC = log_p_BC.masked_fill(over_BC, -torch.inf)
        return padded(found.items_BC.gather(1, best_BC), log_p_BC.gather(1, best_BC), k)

    def candidates(self, histories: Histories, *, exclude_seen: bool = True) -> Candidates:
        """The items that the model and `knn` propose, `beam_width` each, with what both say of them."""
        return self._candidates(histories, self.beam_width, exclude_seen)

    @torch.inference_mode()
    def _candidates(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool,
        allowed_N: Tensor | None = None,
        max_per_code: int | None = None,
    ) -> Candidates:
        assert self.knn is not None
        width = max(k, self.beam_width)
        # A search that limits its first codes returns the items of the limited list only.
        proposed = width if max_per_code is None else k
        beam, context = self._search(histories, proposed, exclude_seen, allowed_N, max_per_code)
        neighbours = self.knn.retrieve(histories, width, exclude_seen=exclude_seen, allowed_N=allowed_N)
        log_p_BM = self._code_log_probs(context, neighbours.items_BM).sum(2)
        return Candidates.of(beam, neighbours, log_p_BM)

    def _search(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool,
        allowed_N: Tensor | None,
        max_per_code: int | None,
    ) -> tuple[Ranked, Any]:
        """The k most likely items under the model, and its context of the histories."""
        batch = self.lookup.batch(histories, self.model.max_items)
        context = self.model.encode(batch)
        ranked = beam_search(
            self.model,
            batch,
            self.trie,
            k,
            beam_width=max(k, self.beam_width),
            context=context,
            excluded_BX=torch.from_numpy(histories.items_BT).to(self.device) if exclude_seen else None,
            allowed_N=allowed_N,
            max_per_code=max_per_code,
        )
        return ranked, context

    def score_items(self, histories: Histories) -> Tensor:
        """The exact log-probability of every item for each history, float32 [B, N]; slow: no search."""
        return score_items(self.model, self.lookup.batch(histories, self.model.max_items), self.trie)

    @torch.inference_mode()
    def code_log_probs(self, histories: Histories, items_BK: NDArray[np.int64]) -> Tensor:
        """log p(code | history, codes before it) for each code of K items of each history, float32 [B, K, L].

        Each history is read once for its K items. Values where `items_BK` is PADDING are meaningless.
        """
        context = self.model.encode(self.lookup.batch(histories, self.model.max_items))
        return self._code_log_probs(context, torch.from_numpy(items_BK).to(self.device))

    def _code_log_probs(self, context: Any, items_BK: Tensor) -> Tensor:
        return code_log_probs(self.model, context, self.trie, items_BK.clamp(min=0))
