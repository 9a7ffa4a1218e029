"""How new items compete, calibrated on known items in their place."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rqrec.core.artifact import read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.splits import Split, leave_one_out
from rqrec.evaluation.metrics import MISSED
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ensemble import Ensemble
from rqrec.retrieval.new_items import NewItemSettings
from rqrec.training import fit_new_items as fitting
from rqrec.training.fit_new_items import K, _choose, _Part, fit_new_items


@pytest.fixture(scope="module")
def world(tiny_joined: Path) -> tuple[Ensemble, np.ndarray, Split]:
    artifact = read_retrieval(tiny_joined)
    split = leave_one_out(Dataset.read(tiny_joined / "dataset").sequences)
    content_NC = np.random.default_rng(0).normal(size=(len(artifact.catalog), 8)).astype(np.float32)
    return artifact.ensemble(), content_NC, split


@pytest.mark.parametrize("rate", [0.0, 3.0, 60.0])
def test_hits_are_those_of_the_mixed_list(rate: float) -> None:
    rng, n_new = np.random.default_rng(1), 6
    known_EK = torch.from_numpy(-np.sort(rng.random((200, K)) * 6)).float()
    log_odds_EM = torch.from_numpy(rng.random((200, n_new)) * 3 - 5).float()
    log_odds_EM[:20, 2] = -torch.inf
    column_E = torch.from_numpy(rng.integers(-1, n_new, 200))
    ranks = torch.from_numpy(rng.integers(0, K + 3, 200))
    known_rank_E = torch.where((ranks < K) & (column_E < 0), ranks, MISSED)
    part = _Part(known_EK, known_rank_E, column_E)
    hits = np.zeros(2)
    for row in range(200):
        odds_M = rate * log_odds_EM[row].double().exp()
        total = 1 + float(odds_M.sum())
        scores = [(float(known_EK[row, k].double().exp()) / total, ("known", k)) for k in range(K)]
        scores += [(float(odds_M[m]) / total, ("new", m)) for m in range(n_new) if odds_M[m] > 0]
        shown = [name for _, name in sorted(scores, reverse=True)[:K]]
        if column_E[row] >= 0:
            hits[0] += ("new", int(column_E[row])) in shown
        else:
            hits[1] += ("known", int(known_rank_E[row])) in shown
    assert part.hits(log_odds_EM, rate).tolist() == hits.tolist()
    assert part.targets.sum() == 200


def test_new_items_take_no_more_than_known_ones_can_afford(world: tuple[Ensemble, np.ndarray, Split]) -> None:
    for cost in (0.0, 0.2, 0.99):
        fitted = fit_new_items(*world, cost=cost)
        without, *others = fitted.curve
        assert without["new"] == 0.0
        assert others == sorted(others, key=lambda one: one["rate"])
        (chosen,) = [one for one in others if one["rate"] == fitted.settings.rate]
        if fitted.settings != NewItemSettings():
            assert chosen["known"] >= (1 - cost) * without["known"] or chosen == others[0]


def test_the_sharpness_is_the_default_unless_another_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows: sharpness; columns: no new items, and three rates."""
    monkeypatch.setattr(fitting, "SHARPNESS", (NewItemSettings().sharpness, 30.0))
    known_SR = np.array([[0.2, 0.2, 0.199, 0.17], [0.2, 0.199, 0.198, 0.19]])
    new_SR = np.array([[0.0, 0.05, 0.08, 0.3], [0.0, 0.03, 0.085, 0.2]])
    recalls_SR2 = np.stack([new_SR, known_SR], axis=-1)
    assert _choose(recalls_SR2, 400, 0.02) == (0, 2)  # 0.085 is within a standard error
    assert _choose(recalls_SR2, 10**6, 0.02) == (1, 2)
    assert _choose(recalls_SR2, 10**6, 0.2) == (0, 3)
    assert _choose(recalls_SR2 * [1, 0.5] + [0, 0.1], 10**6, 0.0) == (0, 1)
    recalls_SR2[:, 1:, 1] = 0.1  # more than the cost at any rate
    assert _choose(recalls_SR2, 10**6, 0.02) == (0, 1)


def test_a_joined_model_keeps_how_new_items_compete(tiny_joined: Path) -> None:
    found = read_manifest(tiny_joined / "retrieval").metrics.get("new_items")
    artifact = read_retrieval(tiny_joined)
    assert (found is None) == (artifact.vectors is None)
    if found is not None:
        assert artifact.new_items == NewItemSettings(found["rate"], found["sharpness"])
        assert found["curve"][0]["rate"] == 0.0
