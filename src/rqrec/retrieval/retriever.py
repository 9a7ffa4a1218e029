"""A retrieval model with its semantic-ID table: histories of item indices in, ranked items out."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rqrec.retrieval.beam_search import Ranked, beam_search
from rqrec.retrieval.model import CodeLookup, RetrievalModel
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie


@dataclass
class Retriever:
    """Generates the next items of histories by beam search over the legal semantic IDs.

    Raises ValueError where the table and the model differ in the sizes of their levels.
    """

    model: RetrievalModel[Any]
    table: SemanticIdTable
    beam_width: int = 50
    device: torch.device | str = "cpu"
    lookup: CodeLookup = field(init=False)
    trie: Trie = field(init=False)

    def __post_init__(self) -> None:
        if tuple(self.model.level_sizes) != tuple(self.table.level_sizes):
            raise ValueError(
                f"The model generates levels of {tuple(self.model.level_sizes)} codes, but the semantic-ID "
                f"table has levels of {tuple(self.table.level_sizes)}: they don't belong together. "
                "Use the table that the model was trained with."
            )
        self.lookup = CodeLookup.of(self.table.codes_NL, self.device)
        self.trie = Trie.build(self.table.codes_NL, self.device)

    def recommend(self, items_BT: NDArray[np.int64], k: int, *, exclude_seen: bool = True) -> Ranked:
        """The k most likely next items of each history (item indices, padded on the right).

        The beam is widened to k where it is narrower. With `exclude_seen` no item of a history comes back.
        """
        excluded_BX: Tensor | None = None
        if exclude_seen:
            excluded_BX = torch.from_numpy(items_BT).to(self.device)
        batch = self.lookup.batch(items_BT, self.model.max_items)
        width = max(k, self.beam_width)
        return beam_search(self.model, batch, self.trie, k, beam_width=width, excluded_BX=excluded_BX)
