"""Items like one item: those that share the most of its semantic ID.

Shapes: M candidates, N items, L levels, V codes of a level, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding
from rqrec.retrieval.ranking import Ranked, order_keys
from rqrec.tokenizer.trie import Trie


@torch.inference_mode()
def similar_items(embedding: CodeEmbedding, codes_NL: Tensor, trie: Trie, item: int, k: int) -> Ranked:
    """The k items most like an item, itself left out, `items` and `scores` [min(k, N - 1)]; ties by item index.

    A score is the length of the common prefix (in codes) plus the nearness of the codes' embeddings, from 0
    to 1: the mean over levels of their cosine, mapped linearly. The last code, which only tells apart items
    of equal content, has no part in nearness.
    """
    for depth in reversed(range(trie.n_levels)):
        candidates_M = trie.items_beside(item, depth)
        if len(candidates_M) > k:
            break
    candidates_M = candidates_M[candidates_M != item]
    codes_ML, own_L = codes_NL[candidates_M], codes_NL[item]
    shared_M = (codes_ML == own_L).long().cumprod(dim=1).sum(dim=1)
    cosines = []
    for level in range(max(1, trie.n_levels - 1)):
        rows_VD = functional.normalize(embedding.rows(level), dim=1)
        cosines.append((rows_VD @ rows_VD[own_L[level]])[codes_ML[:, level]])
    scores_M = shared_M + (1 + torch.stack(cosines).mean(dim=0)).clamp(0, 2) / 2
    best_K = order_keys(scores_M, candidates_M).topk(min(k, len(candidates_M))).indices
    return Ranked(candidates_M[best_K], scores_M[best_K])
