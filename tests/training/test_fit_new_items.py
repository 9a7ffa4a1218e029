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
from rqrec.training.fit_new_items import K, _Part, fit_new_items


@pytest.fixture(scope="module")
def world(tiny_joined: Path) -> tuple[Ensemble, np.ndarray, Split]:
    artifact = read_retrieval(tiny_joined)
    split = leave_one_out(Dataset.read(tiny_joined / "dataset").sequences)
    content_NC = np.random.default_rng(0).normal(size=(len(artifact.catalog), 8)).astype(np.float32)
    return artifact.ensemble(), content_NC, split


@pytest.mark.parametrize("settings", [None, NewItemSettings(3.0, 1.0), NewItemSettings(20.0, 3.0)])
def test_hits_are_those_of_the_mixed_list(settings: NewItemSettings | None) -> None:
    rng, n_new, n_known = np.random.default_rng(1), 6, 40
    known_EK = torch.from_numpy(-np.sort(rng.random((200, K)) * 6)).float()
    affinity_EM = torch.from_numpy(rng.random((200, n_new)) * 2 - 1).float()
    affinity_EM[:20, 2] = -torch.inf
    column_E = torch.from_numpy(rng.integers(-1, n_new, 200))
    ranks = torch.from_numpy(rng.integers(0, K + 3, 200))
    known_rank_E = torch.where((ranks < K) & (column_E < 0), ranks, MISSED)
    sample_ES = torch.from_numpy(rng.random((200, n_known)) * 2 - 1).float()
    part = _Part(n_known, known_EK, affinity_EM, sample_ES, known_rank_E, column_E)
    hits = np.zeros(2)
    for row in range(200):
        p_new = torch.zeros(n_new).double()
        if settings is not None:
            both = settings.sharpness * torch.cat([affinity_EM[row], sample_ES[row]]).double()
            p_new = settings.rate * both[:n_new].exp() / both[n_new:].exp().sum()
        total = 1 + float(p_new.sum())
        p_new /= total
        scores = [(float(known_EK[row, k].double().exp()) / total, ("known", k)) for k in range(K)]
        scores += [(float(p_new[m]), ("new", m)) for m in range(n_new) if p_new[m] > 0]
        shown = [name for _, name in sorted(scores, reverse=True)[:K]]
        if column_E[row] >= 0:
            hits[0] += ("new", int(column_E[row])) in shown
        else:
            hits[1] += ("known", int(known_rank_E[row])) in shown
    assert part.hits(settings).tolist() == hits.tolist()
    assert part.targets.sum() == 200


def test_new_items_take_no_more_than_known_ones_can_afford(world: tuple[Ensemble, np.ndarray, Split]) -> None:
    news = []
    for cost in (0.0, 0.2, 0.99):
        fitted = fit_new_items(*world, cost=cost)
        without, *others = fitted.curve
        assert without["new"] == 0.0
        chosen = [one for one in others if one["rate"] == fitted.settings.rate]
        assert len(chosen) == 1
        news.append(chosen[0]["new"])
        assert others == sorted(others, key=lambda one: one["rate"])
    assert news == sorted(news)
    assert fitted.settings == max(
        (NewItemSettings(one["rate"], one["sharpness"]) for one in others),
        key=lambda one: next(row["new"] for row in others if row["rate"] == one.rate),
    )


def test_a_joined_model_keeps_how_new_items_compete(tiny_joined: Path) -> None:
    found = read_manifest(tiny_joined / "retrieval").metrics.get("new_items")
    artifact = read_retrieval(tiny_joined)
    assert (found is None) == (artifact.vectors is None)
    if found is not None:
        assert artifact.new_items == NewItemSettings(found["rate"], found["sharpness"])
        assert found["curve"][0]["rate"] == 0.0
