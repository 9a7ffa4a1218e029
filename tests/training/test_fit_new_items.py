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
from rqrec.training.fit_new_items import RATES, K, _choose, _Part, _Tradeoff, fit_new_items


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
    tradeoff = _Tradeoff.of(part.limits(log_odds_EM), part.targets_new)
    targets = [len(tradeoff.new_E), len(tradeoff.known_E)]
    assert np.multiply([tradeoff.new(rate), tradeoff.known(rate)], targets).round(6).tolist() == hits.tolist()
    assert sum(targets) == 200


def test_new_items_take_what_known_ones_can_afford(world: tuple[Ensemble, np.ndarray, Split]) -> None:
    for cost in (0.0, 0.2, 0.99):
        fitted = fit_new_items(*world, cost=cost)
        without, *others = fitted.curve
        assert without["new"] == 0.0
        assert others == sorted(others, key=lambda one: one["rate"])
        if fitted.settings != NewItemSettings():
            (chosen,) = [one for one in others if one["rate"] == fitted.settings.rate]
            least = (1 - cost) * without["known"]
            assert chosen["known"] >= least or chosen == others[0]
            assert all(one["new"] <= chosen["new"] for one in others if one["known"] >= least)


@pytest.mark.parametrize(
    ("cost", "rate"),
    [
        (0.0, (0.5 * 0.8) ** 0.5),  # from the last gain to the first loss
        (0.5, (0.5 * 2) ** 0.5),  # one of three
        (0.99, (3 * 4) ** 0.5),  # two of three at most
        (1.0, (5 * RATES[-1]) ** 0.5),
    ],
)
def test_the_rate_is_the_best_that_known_items_can_afford(cost: float, rate: float) -> None:
    new, known = [5.0, np.inf, 0.5, 3.0], [0.0, 2.0, 0.8, 4.0]  # one is never found even without new items
    with np.errstate(divide="ignore"):
        limits_E = torch.from_numpy(np.log([*new, *known]))
    tradeoff = _Tradeoff.of(limits_E, torch.arange(8) < 4)
    assert tradeoff.best_rate(cost) == pytest.approx(rate)


def test_the_lowest_rate_is_taken_where_known_items_lose_at_any() -> None:
    limits_E = torch.tensor([1.0, RATES[0] / 2]).log()
    assert _Tradeoff.of(limits_E, torch.tensor([True, False])).best_rate(0.0) == pytest.approx(RATES[0])


def test_the_sharpness_is_the_default_unless_another_is_clearly_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fitting, "SHARPNESS", (NewItemSettings().sharpness, 30.0))
    assert _choose([0.08, 0.085], 400) == 0  # within a standard error
    assert _choose([0.08, 0.085], 10**6) == 1
    assert _choose([0.3, 0.2], 10**6) == 0


def test_a_joined_model_keeps_how_new_items_compete(tiny_joined: Path) -> None:
    found = read_manifest(tiny_joined / "retrieval").metrics.get("new_items")
    artifact = read_retrieval(tiny_joined)
    assert (found is None) == (artifact.vectors is None)
    if found is not None:
        assert artifact.new_items == NewItemSettings(found["rate"], found["sharpness"])
        assert found["curve"][0]["rate"] == 0.0
