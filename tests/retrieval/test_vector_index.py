"""An index of item vectors: how much it finds, and that it changes nothing else."""

import logging
import sys

import numpy as np
import pytest
import torch

from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval import vector_index
from rqrec.retrieval.constraints import Constraints
from rqrec.retrieval.experts import DenseExpert, Proposal
from rqrec.retrieval.vector_index import FOUND, RECALL, VectorIndex, index_of

N_ITEMS = 3000


@pytest.fixture
def model() -> SasRec:
    """Its items lie in clusters, as those of a trained one do."""
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(N_ITEMS, max_items=5, width=16, heads=2, layers=1)).eval()
    centres = torch.randn(60, 16)
    with torch.no_grad():
        model.items.weight.copy_(centres[torch.randint(60, (N_ITEMS,))] + 0.4 * torch.randn(N_ITEMS, 16))
    return model


@pytest.fixture
def index(model: SasRec, monkeypatch: pytest.MonkeyPatch) -> VectorIndex:
    monkeypatch.setattr(vector_index, "MIN_ITEMS", N_ITEMS)
    found = index_of(model)
    assert found is not None
    return found


def histories(seed: int = 0, count: int = 40) -> Histories:
    return Histories(np.random.default_rng(seed).integers(0, N_ITEMS, (count, 3)))


def both(
    model: SasRec, index: VectorIndex, constraints: Constraints, k: int = 20
) -> tuple[Proposal, Proposal]:
    """What all items and the index give."""
    return tuple(DenseExpert(model, one).propose(histories(), k, constraints) for one in (None, index))


def recall(expected_BK: torch.Tensor, found_BK: torch.Tensor) -> float:
    shares = [torch.isin(one, other).float().mean() for one, other in zip(expected_BK, found_BK, strict=True)]
    return float(torch.stack(shares).mean())


def test_it_visits_some_clusters_and_finds_what_it_says(model: SasRec, index: VectorIndex) -> None:
    assert 1 <= index.probes < index.clusters
    assert RECALL <= index.recall <= 1
    states_BD = model.encode(Histories(np.random.default_rng(9).integers(0, N_ITEMS, (200, 1))))
    best_BK = (
        model.score_items(Histories(np.random.default_rng(9).integers(0, N_ITEMS, (200, 1))))
        .topk(FOUND)
        .indices
    )
    assert recall(best_BK, index.search(states_BD, FOUND)) == pytest.approx(index.recall, abs=0.02)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("share", [None, 0.7])
def test_its_lists_are_nearly_those_of_all_items(
    share: float | None, exclude_seen: bool, model: SasRec, index: VectorIndex
) -> None:
    torch.manual_seed(1)
    allowed_N = None if share is None else torch.rand(N_ITEMS) < share
    exact, approximate = both(model, index, Constraints(exclude_seen, allowed_N))
    items_BK, scores_BK, _ = approximate.ranked
    assert recall(exact.ranked.items, items_BK) > 0.95
    assert (items_BK != PADDING).all()
    assert (scores_BK.diff() <= 0).all()
    assert (scores_BK[:, 0] - exact.ranked.scores[:, 0]).abs().max() < 0.3  # the sum is an estimate
    assert torch.equal(approximate.log_probs(items_BK), scores_BK)
    if allowed_N is not None:
        assert allowed_N[items_BK].all()
    if exclude_seen:
        assert not any(
            set(one) & set(other)
            for one, other in zip(items_BK.tolist(), histories().items_BT.tolist(), strict=True)
        )


@pytest.mark.parametrize(
    "constraints",
    [
        Constraints(True, torch.arange(N_ITEMS) % 5 == 0),
        Constraints(True, None, torch.linspace(0, 1, N_ITEMS)),
    ],
)
def test_all_items_are_scored_if_few_are_allowed_or_some_boosted(
    constraints: Constraints, model: SasRec, index: VectorIndex
) -> None:
    exact, other = both(model, index, constraints)
    assert torch.equal(exact.ranked.items, other.ranked.items)
    assert torch.equal(exact.ranked.scores, other.ranked.scores)


def test_it_is_built_once_and_not_for_small_catalogues(
    model: SasRec, index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index_of(model) is index
    monkeypatch.setattr(vector_index, "MIN_ITEMS", N_ITEMS + 1)
    assert index_of(model) is None


def test_without_faiss_all_items_are_scored_and_it_says_so(
    model: SasRec, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(vector_index, "MIN_ITEMS", N_ITEMS)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with caplog.at_level(logging.WARNING):
        assert index_of(model) is None
        assert index_of(model) is None
    assert [record.message for record in caplog.records] == [
        "Every one of 3,000 items is scored for each user, since the package faiss-cpu is not installed: "
        "`pip install faiss-cpu` makes recommending faster."
    ]
