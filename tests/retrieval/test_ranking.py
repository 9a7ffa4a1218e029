"""The best of a full score matrix: in order, ties by item index, whatever `topk` does with them."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from rqrec.data.ids import PADDING
from rqrec.retrieval.ranking import rank_scores


@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 120),
    k=st.integers(1, 40),
    values=st.integers(1, 200),
    excluded=st.integers(0, 5),
)
def test_ties_at_any_place_are_in_the_order_of_items(
    seed: int, n_items: int, k: int, values: int, excluded: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores_BN = torch.randint(-values, values, (3, n_items), generator=generator) / 2
    scores_BN[torch.rand(scores_BN.shape, generator=generator) < 0.2] = -torch.inf
    excluded_BX = torch.randint(PADDING, n_items, (3, excluded), generator=generator)
    ranked = rank_scores(scores_BN, k, excluded_BX=excluded_BX)
    for row in range(3):
        scores = scores_BN[row].tolist()
        possible = set(range(n_items)) - set(excluded_BX[row].tolist())
        possible = {item for item in possible if scores[item] > float("-inf")}
        expected = sorted(possible, key=lambda item, scores=scores: (-scores[item], item))[:k]
        assert ranked.items[row].tolist() == expected + [PADDING] * (k - len(expected))
        assert ranked.scores[row, : len(expected)].tolist() == [scores[item] for item in expected]
        assert ranked.scores[row, len(expected) :].isneginf().all()
