"""Why an item is recommended: what each expert says of it after a history.

Shapes: B histories, T items of a history, U of them distinct, K items explained for each, M for all, E examples,
L levels, N items of the catalogue.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat

import numpy as np
import torch
from numpy.typing import NDArray

from rqrec.core.pausing import pause
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import AnyModel
from rqrec.retrieval.retriever import Retriever
from rqrec.serving.answers import Answers, Recommendation
from rqrec.serving.beside import beside


@dataclass(frozen=True)
class CodeStep:
    """One code of a recommended item's semantic ID.

    `probability`: probability of the code, given the history and the preceding codes. `n_items`: number of
    items whose semantic IDs start with the codes up to this one. `others`: ids of some of them, without the
    item itself.
    """

    code: int
    probability: float
    n_items: int
    others: tuple[str, ...]


@dataclass(frozen=True)
class Reason:
    """An item of the history that the neighbours propose another item for; `share`: its part of that item's score."""

    item_id: str
    share: float


@dataclass(frozen=True)
class Neighbour:
    """An item of the history near another item.

    `shared`: number of leading codes that both have. `closeness`: of their codes, from 0 to 1.
    """

    item_id: str
    shared: int
    closeness: float


@dataclass(frozen=True)
class Explanation:
    """How the experts arrive at an item.

    `path`: for the expert "codes", the item's codes, whose probabilities multiply to exp(score); the score is the
    log-probability of this expert alone. `because`: for the neighbours, the items of the history that have the item
    among their neighbours, the largest share first; empty if there are none, or no neighbours were joined. `beside`:
    the items of the history nearest to the item by their codes, which is what the expert "codes" reads of them.
    """

    recommendation: Recommendation
    path: tuple[CodeStep, ...]
    because: tuple[Reason, ...] = ()
    beside: tuple[Neighbour, ...] = ()

    def __repr__(self) -> str:
        """One fact per line, for notebooks."""
        codes = ", ".join(f"{step.code} ({step.probability:.2g})" for step in self.path)
        lines = [repr(self.recommendation), f"  codes with their probabilities: {codes}"]
        if self.because:
            lines.append(
                f"  neighbour of {', '.join(f'{one.item_id} ({one.share:.0%})' for one in self.because)}"
            )
        if self.beside:
            near = ", ".join(f"{one.item_id} ({one.shared})" for one in self.beside)
            lines.append(f"  nearest in the history, with the number of shared codes: {near}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Explainer:
    """Explains items of a model."""

    answers: Answers
    model: AnyModel
    retriever: Retriever
    """The search of the model, in the items of its training."""
    every: Retriever
    """The same in all items that may be recommended."""
    index: KnnIndex | None
    """The neighbours, if some were joined."""

    def explain(
        self, inputs: Histories, items: Sequence[NDArray[np.int64]], examples: int
    ) -> list[tuple[Explanation, ...]]:
        """The explanations of some items of each history, with up to `examples` other items at each code."""
        items_BK = Histories.of(items).items_BT
        log_probs_ML = self._code_log_probs(inputs, items_BK)[items_BK != PADDING]
        items_M = items_BK[items_BK != PADDING]
        explanations = map(
            Explanation,
            self.answers.of(items_M, log_probs_ML.sum(axis=1, dtype=np.float64)),
            self._paths(items_M, log_probs_ML, examples),
            chain.from_iterable(self._because(inputs, items)),
            chain.from_iterable(map(self._beside, inputs.items_BT, items, repeat(examples))),
        )
        return [tuple(islice(explanations, len(row))) for row in items]

    def _code_log_probs(self, inputs: Histories, items_BK: NDArray[np.int64]) -> NDArray[np.float32]:
        """log p of each code, float32 [B, K, L]: of known items among the known ones, of new ones among all items."""
        if self.retriever.known_N is None:
            return self.retriever.code_log_probs(inputs, items_BK).numpy(force=True)
        is_new_BK = ~self.retriever.known_N[items_BK] & (items_BK != PADDING)
        parts = [
            retriever.code_log_probs(inputs, np.where(mine_BK, items_BK, PADDING))
            for retriever, mine_BK in ((self.retriever, ~is_new_BK), (self.every, is_new_BK))
        ]
        known_BKL, new_BKL = (part.numpy(force=True) for part in parts)
        return np.where(is_new_BK[:, :, None], new_BKL, known_BKL)

    def _paths(
        self, items_M: NDArray[np.int64], log_probs_ML: NDArray[np.float32], examples: int
    ) -> list[tuple[CodeStep, ...]]:
        """The path of codes to each item, with up to `examples` other items at each code."""
        items, steps = torch.from_numpy(items_M).to(self.every.trie.leaf_of_item.device), []
        for level, probabilities_M in enumerate(np.exp(log_probs_ML).T):
            pause()
            leaf_start = self.every.trie.depths[level + 1].leaf_start
            nodes_M = self.every.trie.nodes_of_items(items, level + 1)
            start_M, end_M = leaf_start[nodes_M], leaf_start[nodes_M + 1]
            leaves_ME = start_M[:, None] + torch.arange(examples + 1, device=items.device)
            sharing_ME = self.every.trie.item_of_leaf[leaves_ME.clamp(max=self.every.trie.n_items - 1)]
            is_other_ME = (leaves_ME < end_M[:, None]) & (sharing_ME != items[:, None])
            is_other_ME &= is_other_ME.cumsum(1) <= examples
            others = iter(self.answers.id_map.ids(sharing_ME[is_other_ME].tolist()))
            rows = zip(
                self.answers.codes_NL[items_M, level].tolist(),
                probabilities_M.tolist(),
                (end_M - start_M).tolist(),
                is_other_ME.sum(1).tolist(),
                strict=True,
            )
            steps.append(
                [
                    CodeStep(code, probability, n_items, tuple(islice(others, n_others)))
                    for code, probability, n_items, n_others in rows
                ]
            )
        return list(zip(*steps, strict=True))

    def _beside(
        self, history_T: NDArray[np.int64], items_K: NDArray[np.int64], count: int
    ) -> list[tuple[Neighbour, ...]]:
        """For each item, the `count` items of the history nearest to it by their codes."""
        pause()
        history_T = history_T[history_T != PADDING]
        codes_NL, levels = self.retriever.lookup.codes_NL, self.retriever.table.content_levels
        near = beside(self.model.codes, codes_NL, items_K, history_T, count, content_levels=levels)
        ids = iter(self.answers.id_map.ids(chain.from_iterable([one.item for one in row] for row in near)))
        return [tuple(Neighbour(next(ids), one.shared, one.closeness) for one in row) for row in near]

    def _because(
        self, histories: Histories, items: Sequence[NDArray[np.int64]]
    ) -> list[list[tuple[Reason, ...]]]:
        """For each item, the items of the history that the neighbours propose it for."""
        pause()
        if self.index is None:
            return [[()] * len(items_K) for items_K in items]
        items_BK = torch.from_numpy(Histories.of(items).items_BT).to(self.index.neighbours_NM.device)
        parts_BKT = self.index.contributions(histories, items_BK).numpy(force=True)
        recent_BT = histories.last(self.index.settings.max_items).items_BT
        return [
            self._reasons(recent_T, parts_KT[: len(items_K)])
            for items_K, recent_T, parts_KT in zip(items, recent_BT, parts_BKT, strict=True)
        ]

    def _reasons(
        self, recent_T: NDArray[np.int64], parts_KT: NDArray[np.float32]
    ) -> list[tuple[Reason, ...]]:
        """For each of K items, the items of a history with a part in its score, the largest share first."""
        items_U, places = np.unique(recent_T[recent_T != PADDING], return_inverse=True)
        parts_KU = parts_KT[:, recent_T != PADDING].astype(np.float64) @ np.eye(len(items_U))[places]
        shares_KU = parts_KU / parts_KU.sum(axis=1, keepdims=True).clip(np.finfo(np.float32).tiny)
        ids = self.answers.id_map.ids(items_U)
        return [
            tuple(
                Reason(ids[u], float(shares_U[u]))
                for u in np.argsort(-shares_U, kind="stable")
                if shares_U[u]
            )
            if shares_U.any()
            else ()
            for shares_U in shares_KU
        ]
