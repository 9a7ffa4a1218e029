"""Items similar to a given item: those that share the most leading codes with it.

Shapes: K items, M candidates, N items of the catalogue, L levels, V codes of a level, U of them that occur, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding
from rqrec.retrieval.ranking import Ranked, order_keys
from rqrec.tokenizer.trie import Trie


class Nearness(NamedTuple):
    """How near items are to others by their codes."""

    shared_KM: Tensor
    """int64: the number of leading codes that both share."""
    closeness_KM: Tensor
    """float32: the mean over levels of the cosine of their code embeddings, mapped linearly to [0, 1]."""


def nearness(embedding: CodeEmbedding, codes_KL: Tensor, codes_ML: Tensor, content_levels: int) -> Nearness:
    """How near K items are to M others.

    The mean is over the first `content_levels` levels: a deduplication code only distinguishes items with the same
    codes.
    """
    shared_KM = (codes_KL[:, None] == codes_ML).long().cumprod(dim=2).sum(dim=2)
    cosines = []
    for level in range(content_levels):
        rows_VD = embedding.rows(level)
        # Only codes that occur, each once: a level may have many more, and many items may share a few.
        codes_U, at_M = codes_ML[:, level].unique(return_inverse=True)
        own_KD = functional.normalize(rows_VD[codes_KL[:, level]], dim=1)
        cosines.append((own_KD @ functional.normalize(rows_VD[codes_U], dim=1).T)[:, at_M])
    return Nearness(shared_KM, (1 + torch.stack(cosines).mean(dim=0)).clamp(0, 2) / 2)


@torch.inference_mode()
def similar_items(
    embedding: CodeEmbedding, codes_NL: Tensor, trie: Trie, item: int, k: int, *, content_levels: int
) -> Ranked:
    """The k items most similar to an item, without the item itself: `items` and `scores` [min(k, N - 1)].

    A score is the number of leading codes that both items share, plus their closeness (see `nearness`). Ties go to
    the lower item index.
    """
    for depth in reversed(range(trie.n_levels)):
        candidates_M = trie.items_sharing_prefix(item, depth)
        if len(candidates_M) > k:
            break
    candidates_M = candidates_M[candidates_M != item]
    near = nearness(embedding, codes_NL[item, None], codes_NL[candidates_M], content_levels)
    scores_M = (near.shared_KM + near.closeness_KM)[0]
    best_K = order_keys(scores_M, candidates_M).topk(min(k, len(candidates_M))).indices
    return Ranked(candidates_M[best_K], scores_M[best_K])
