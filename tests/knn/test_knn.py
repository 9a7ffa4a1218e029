from itertools import product
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rqrec.knn.graph
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.registry import BASELINES, fit_baseline
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.graph import GAP_DECAY, REVERSE_WEIGHT, WINDOW, content_knn_graph, item_item_knn
from rqrec.knn.index import KnnIndex
from rqrec.knn.item_knn import ItemKnn
from rqrec.knn.recency import weighted_histories
from rqrec.retrieval.ranking import ExhaustiveRecommender


def sequences_of(*users: list[int]) -> Sequences:
    items = np.array([item for user in users for item in user], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, users)])
    return Sequences(items, offsets, np.arange(len(items)), tuple(f"u{i}" for i in range(len(users))))


def test_the_last_item_weighs_one_and_padding_zero() -> None:
    weights = weighted_histories(Histories.of([[4, 5, 6], [7], [5, 4, 5]]), 0.5, 8).toarray()
    assert weights[:, 4:].tolist() == [[0.25, 0.5, 1, 0], [0, 0, 0, 1], [0.5, 1.25, 0, 0]]
    assert not weights[:, :4].any()
    with pytest.raises(ValueError, match="decay is 0"):
        weighted_histories(Histories.of([[1]]), 0, 8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 5), st.sampled_from([1, 20, 1000]))
def test_similarity_is_how_often_and_how_soon_an_item_follows(
    seed: int, neighbours: int, shrinkage: float, block_positions: int
) -> None:
    rng = np.random.default_rng(seed)
    users = [rng.integers(0, 7, rng.integers(1, 15)).tolist() for _ in range(8)]
    with patch.object(rqrec.knn.graph, "BLOCK_POSITIONS", block_positions):
        found = item_item_knn(sequences_of(*users), 7, neighbours, shrinkage).toarray()
    counts = [sum(user.count(item) for user in users) for item in range(7)]
    for one in range(7):
        pair_weights: dict[int, float] = {}
        for user in users:
            for here, there in product(range(len(user)), repeat=2):
                if here != there and user[here] == one and abs(there - here) <= WINDOW:
                    weight = GAP_DECAY ** (abs(there - here) - 1) * (1 if there > here else REVERSE_WEIGHT)
                    pair_weights[user[there]] = pair_weights.get(user[there], 0.0) + weight
        similarity = {
            other: weight / ((counts[one] * counts[other]) ** 0.5 + shrinkage)
            for other, weight in pair_weights.items()
        }
        best = sorted(similarity, key=lambda other: (-np.float32(similarity[other]), other))[:neighbours]
        assert sorted(np.flatnonzero(found[one])) == sorted(best)
        for other in best:
            assert found[one, other] == pytest.approx(similarity[other], rel=1e-5)


def test_content_neighbours_have_the_highest_cosines() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    with patch.object(rqrec.knn.graph, "BLOCK_ROWS", 7):
        found = content_knn_graph(vectors, 3).toarray()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    best = np.argsort(-cosine, axis=1)[:, :3]
    expected = np.zeros_like(cosine)
    np.put_along_axis(expected, best, np.take_along_axis(cosine, best, axis=1).clip(min=0), axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert content_knn_graph(vectors[:2], 3).shape == (2, 2)  # fewer other items than neighbours


def test_neighbours_of_the_last_item_come_first_then_popular_items() -> None:
    train = sequences_of([0, 1], [0, 1], [2, 3], [2, 3], [4], [4], [4])
    knn = ItemKnn(KnnIndex.from_similarity(item_item_knn(train, 6, 5, 20.0)), train)
    assert ExhaustiveRecommender(knn).recommend(Histories.of([[0, 2], [2, 0]]), 2).items.tolist() == [
        [3, 1],
        [1, 3],
    ]
    assert ExhaustiveRecommender(knn).recommend(Histories.of([[], [5]]), 3).items.tolist() == [
        [4, 0, 1],
        [4, 0, 1],
    ]


def test_items_with_content_like_the_history_come_first() -> None:
    vectors = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3]], dtype=np.float16)
    found = ExhaustiveRecommender(ContentKnn(vectors)).recommend(Histories.of([[0], [2], [0, 2]]), 1)
    assert found.items.tolist() == [[1], [3], [3]]
    assert found.scores[0, 0] == pytest.approx(2 / (4 + 0.01) ** 0.5, rel=1e-3)


def test_baselines_are_found_by_name_and_wrong_names_and_settings_are_refused() -> None:
    split = leave_one_out(sequences_of([0, 1, 2], [1, 2, 0]))
    for name in BASELINES:
        assert fit_baseline(name, split, 3, np.eye(3)).recommend(Histories.of([[0]]), 2).items.shape == (
            1,
            2,
        )
    with pytest.raises(ValueError, match="'bpr'; allowed are popularity, item_knn"):
        fit_baseline("bpr", split, 3)
    with pytest.raises(ValueError, match="--embeddings"):
        fit_baseline("content_knn", split, 3)
    with pytest.raises(ValueError, match="2 embeddings but 3 items"):
        fit_baseline("content_knn", split, 3, np.eye(2))
