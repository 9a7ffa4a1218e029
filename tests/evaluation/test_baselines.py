"""The contract of every baseline; add a new one as a line of BASELINES."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, Sequences
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.graph import content_knn_graph, item_item_knn
from rqrec.knn.index import KnnIndex
from rqrec.knn.item_knn import ItemKnn
from rqrec.knn.popularity import Popularity
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender

N_ITEMS, WIDTH = 40, 16
COLD = (3, 17, 39)  # items without training interactions


@dataclass(frozen=True)
class World:
    train: Sequences
    vectors: np.ndarray


def sasrec(world: World) -> SasRec:
    """Untrained; its item embeddings follow the items when these are renumbered."""
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(N_ITEMS, max_items=6, width=WIDTH, heads=2, layers=1, dropout=0.5)).eval()
    with torch.no_grad():
        model.items.weight.copy_(torch.from_numpy(world.vectors))
    return model


def item_knn(world: World, content: float) -> ItemKnn:
    similarity = item_item_knn(world.train, N_ITEMS, 50, 20.0)
    if content:
        similarity = similarity + content * content_knn_graph(world.vectors, 20)
    return ItemKnn(KnnIndex.from_similarity(similarity), world.train)


BASELINES = {
    "popularity": lambda world: Popularity(world.train, N_ITEMS),
    "item_knn": lambda world: item_knn(world, content=0.0),
    "hybrid_knn": lambda world: item_knn(world, content=0.03),
    "content_knn": lambda world: ContentKnn(world.vectors),
    "sasrec": sasrec,
}
HISTORIES = [[0, 1, 2], [], [5], [3, 8, 17], [7, 7, 9, 1, 0, 12, 30, 22, 4]]


def world_of(order: np.ndarray) -> World:
    """A random log in which item i has the index order[i]."""
    rng = np.random.default_rng(0)
    warm = np.setdiff1d(np.arange(N_ITEMS), COLD)
    items = warm[rng.zipf(1.5, 400) % len(warm)]
    vectors = np.empty((N_ITEMS, WIDTH), dtype=np.float32)
    vectors[order] = rng.normal(size=(N_ITEMS, WIDTH))
    offsets = np.arange(0, 401, 8)
    users = tuple(f"user {user}" for user in range(50))
    return World(Sequences(order[items].astype(np.int32), offsets, np.arange(400), users), vectors)


@pytest.fixture(params=BASELINES, scope="module")
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def baseline(name: str) -> ItemRecommender:
    return ExhaustiveRecommender(BASELINES[name](world_of(np.arange(N_ITEMS))))


def test_seen_items_are_excluded_unless_requested(baseline: ItemRecommender) -> None:
    histories = Histories.of(HISTORIES)
    without = baseline.recommend(histories, N_ITEMS).items.tolist()
    for history, items in zip(HISTORIES, without, strict=True):
        real = [item for item in items if item != PADDING]
        assert sorted(real) == sorted(set(range(N_ITEMS)) - set(history))
    everything = baseline.recommend(histories, N_ITEMS, exclude_seen=False).items
    assert (everything.sort(dim=1).values == torch.arange(N_ITEMS)).all()


def test_a_batch_equals_its_rows_one_by_one_whatever_the_padding(baseline: ItemRecommender) -> None:
    items, scores = baseline.recommend(Histories.of(HISTORIES), 10)[:2]
    for row, history in enumerate(HISTORIES):
        alone = baseline.recommend(Histories.of([history]), 10)
        assert alone.items[0].tolist() == items[row].tolist()
        torch.testing.assert_close(alone.scores[0], scores[row])


def test_scores_are_descending_and_ties_are_ordered_by_item_index(baseline: ItemRecommender) -> None:
    items, scores = baseline.recommend(Histories.of(HISTORIES), N_ITEMS, exclude_seen=False)[:2]
    assert (scores.diff(dim=1) <= 0).all()
    tied = scores.diff(dim=1) == 0
    assert (items.diff(dim=1)[tied] > 0).all()


def test_a_list_longer_than_the_catalogue_is_padded(baseline: ItemRecommender) -> None:
    items, scores = baseline.recommend(Histories.of([[0, 1, 2]]), N_ITEMS + 5)[:2]
    assert items.shape == scores.shape == (1, N_ITEMS + 5)
    assert (items[0, N_ITEMS - 3 :] == PADDING).all()
    assert torch.isneginf(scores[0, N_ITEMS - 3 :]).all()
    assert (items[0, : N_ITEMS - 3] != PADDING).all()


def test_an_empty_history_gets_recommendations(baseline: ItemRecommender) -> None:
    (items,) = baseline.recommend(Histories.of([[]]), 10).items.tolist()
    assert len(set(items)) == 10
    assert min(items) >= 0


def test_cold_items_are_ranked_and_may_be_in_a_history(baseline: ItemRecommender) -> None:
    items, scores = baseline.recommend(Histories.of([list(COLD)]), N_ITEMS, exclude_seen=False)[:2]
    assert scores.isfinite().all()
    assert set(COLD) <= set(items[0].tolist())


def test_renumbering_the_items_renumbers_the_recommendations(name: str, baseline: ItemRecommender) -> None:
    order = np.random.default_rng(1).permutation(N_ITEMS)
    renumbered = ExhaustiveRecommender(BASELINES[name](world_of(order)))
    for history in HISTORIES:
        items, scores = baseline.recommend(Histories.of([history]), N_ITEMS, exclude_seen=False)[:2]
        others, other_scores, _ = renumbered.recommend(
            Histories.of([order[history].tolist() if history else []]), N_ITEMS, exclude_seen=False
        )
        if name == "content_knn" and not history:
            continue  # all scores tie, so item indices decide
        by_item = scores[0, items[0].argsort()]
        by_other_item = other_scores[0, others[0].argsort()]
        torch.testing.assert_close(by_other_item[torch.from_numpy(order)], by_item)
