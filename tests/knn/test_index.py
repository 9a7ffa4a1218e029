"""The kNN index, against its definition computed by loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.registry import fit_baseline
from rqrec.knn.counts import NEIGHBOURS_FILE
from rqrec.knn.fit import fit_knn_index
from rqrec.knn.graph import item_item_knn
from rqrec.knn.index import KnnIndex, KnnSettings
from tests.retrieval.test_beam_search import random_histories
from tests.tiny import FAMILIES, N_ITEMS, SIZE, tiny_dataset, tiny_vectors


def random_index(seed: int, n_items: int, **changes: Any) -> KnnIndex:
    """Up to four neighbours for each item, none for some."""
    rng = np.random.default_rng(seed)
    neighbours = np.full((n_items, 4), PADDING, dtype=np.int32)
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        some = rng.permutation(others)[: rng.integers(0, 5)]
        neighbours[item, : len(some)] = some
    similarity = np.where(neighbours == PADDING, 0, rng.random(neighbours.shape)).astype(np.float32)
    index = KnnIndex(torch.from_numpy(neighbours), torch.from_numpy(similarity))
    return index.with_settings(**changes)


def dense_scores(knn: KnnIndex, items_BT: np.ndarray, *, exclude_seen: bool = True) -> np.ndarray:
    """The index's score of every item, by loops."""
    scores = np.zeros((len(items_BT), len(knn)))
    for row, items in enumerate(items_BT):
        history = items[items != PADDING].tolist()
        for age, item in enumerate(reversed(history[-knn.settings.max_items :])):
            for other, similarity in zip(
                knn.neighbours_NM[item].tolist(), knn.similarity_NM[item].tolist(), strict=True
            ):
                if other != PADDING and not (exclude_seen and other in history):
                    scores[row, other] += similarity * knn.settings.decay**age
    return scores


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("count", [None, 3])
def test_candidates_are_the_best_neighbours_of_the_most_recent_items(
    exclude_seen: bool, count: int | None
) -> None:
    knn, items_BT = random_index(4, 30, max_items=3), random_histories(4, 30, 20, 6)
    expected = dense_scores(knn, items_BT, exclude_seen=exclude_seen)
    items, scores = (x.numpy() for x in knn.retrieve(Histories(items_BT), count, exclude_seen=exclude_seen))
    for row, dense in enumerate(expected):
        best = sorted(np.flatnonzero(dense), key=lambda item: (-np.float32(dense[item]), item))[:count]
        assert sorted(items[row][items[row] != PADDING]) == sorted(best)
        assert scores[row][: len(best)] == pytest.approx(dense[items[row][: len(best)]], rel=1e-5)
        assert not scores[row][len(best) :].any()


def test_a_seen_item_that_people_take_again_is_proposed_if_seen_items_are_allowed() -> None:
    users = [[0, 1, 0], [2, 3, 2], [0, 4, 0]] * 4
    items = np.array([item for user in users for item in user], dtype=np.int32)
    train = Sequences(items, np.arange(0, len(items) + 1, 3), np.arange(len(items)), tuple("abcdefghijkl"))
    knn = KnnIndex.from_similarity(item_item_knn(train, 5, 3, 1.0))
    histories = Histories.of([[2, 0]])
    assert 0 in knn.retrieve(histories, exclude_seen=False).items_BM[0].tolist()
    assert not {0, 2} & {*knn.retrieve(histories).items_BM[0].tolist()}


@pytest.mark.parametrize(
    "contents", [None, tiny_vectors()], ids=["co-occurrence", "co-occurrence and content"]
)
def test_the_baseline_ranks_exactly_as_the_index_of_a_mixture(contents: np.ndarray | None) -> None:
    split = leave_one_out(tiny_dataset().sequences)
    name = "item_knn" if contents is None else "hybrid_knn"
    baseline = fit_baseline(name, split, N_ITEMS, contents)
    knn = fit_knn_index(split, N_ITEMS, contents)
    histories = split.test.histories(np.arange(30))
    alone, best = knn.retrieve(histories, 10), baseline.recommend(histories, 10)
    real = alone.items_BM != PADDING
    assert real.any()
    assert torch.equal(best.items[real], alone.items_BM[real])


def test_content_gets_weight_where_it_predicts_the_next_item() -> None:
    few = leave_one_out(tiny_dataset(24).sequences)
    angle = 2 * np.pi * (np.arange(N_ITEMS) % SIZE) / SIZE
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    in_family = np.eye(FAMILIES)[np.arange(N_ITEMS) // SIZE, :, None] * circle[:, None]
    knn = fit_knn_index(few, N_ITEMS, in_family.reshape(N_ITEMS, -1))
    assert knn.settings.content_weight > 0
    assert fit_knn_index(few, N_ITEMS).settings.content_weight == 0
    # Too few users for co-occurrence to find all pairs of adjacent items.
    for item, others in enumerate(knn.neighbours_NM.tolist()):
        family = item // SIZE * SIZE
        assert {family + (item + step) % SIZE for step in (1, -1)} <= {*others}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_items": 0}, "max_items is 0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"content_weight": -0.1}, "content_weight is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnnSettings(**change)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    knn = random_index(0, 10)
    knn.write(tmp_path)
    with pytest.raises(ValueError, match="with 11 rows"):
        KnnIndex.read(tmp_path, 11)
    knn.neighbours_NM[0, 0] = 10
    knn.write(tmp_path)
    with pytest.raises(ValueError, match="item indices outside of the catalogue of 10 items"):
        KnnIndex.read(tmp_path, 10)
    knn.neighbours_NM[0, 0] = 9
    KnnIndex(knn.neighbours_NM, -knn.similarity_NM).write(tmp_path)
    with pytest.raises(ValueError, match="has negative similarities"):
        KnnIndex.read(tmp_path, 10)
    KnnIndex(knn.neighbours_NM, knn.similarity_NM.int()).write(tmp_path)
    with pytest.raises(ValueError, match=r"similarity of torch.int32, but must have int32 and float32"):
        KnnIndex.read(tmp_path, 10)
    (tmp_path / NEIGHBOURS_FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is damaged or missing"):
        KnnIndex.read(tmp_path, 10)
