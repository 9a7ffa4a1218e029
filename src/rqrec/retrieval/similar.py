"""Items similar to a given item: those that share the most leading codes with it.

Shapes: M candidates, N items, L levels, V codes of a level, D width.
"""

import torch
from torch import Tensor
from torch.nn import functional

from rqrec.models.layers import CodeEmbedding
from rqrec.retrieval.ranking import Ranked, order_keys
from rqrec.tokenizer.trie import Trie


@torch.inference_mode()
def similar_items(
    embedding: CodeEmbedding, codes_NL: Tensor, trie: Trie, item: int, k: int, *, content_levels: int
) -> Ranked:
    """The k items most similar to an item, without the item itself: `items` and `scores` [min(k, N - 1)].

    A score is the number of leading codes that both items share, plus the mean over levels of the cosine of their
    code embeddings, mapped linearly to [0, 1]. The mean is over the first `content_levels` levels: a deduplication
    code only distinguishes items with the same codes. Ties go to the lower item index.
    """
    for depth in reversed(range(trie.n_levels)):
        candidates_M = trie.items_sharing_prefix(item, depth)
        if len(candidates_M) > k:
            break
    candidates_M = candidates_M[candidates_M != item]
    codes_ML, own_L = codes_NL[candidates_M], codes_NL[item]
    shared_M = (codes_ML == own_L).long().cumprod(dim=1).sum(dim=1)
    cosines = []
    for level in range(content_levels):
        rows_VD = functional.normalize(embedding.rows(level), dim=1)
        cosines.append((rows_VD @ rows_VD[own_L[level]])[codes_ML[:, level]])
    scores_M = shared_M + (1 + torch.stack(cosines).mean(dim=0)).clamp(0, 2) / 2
    best_K = order_keys(scores_M, candidates_M).topk(min(k, len(candidates_M))).indices
    return Ranked(candidates_M[best_K], scores_M[best_K])
