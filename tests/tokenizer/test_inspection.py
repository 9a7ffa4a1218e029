import numpy as np
import pytest
import torch

from rqrec.tokenizer import inspection as module
from rqrec.tokenizer.inspection import PrefixAgreement, inspect_codes, items_with_prefix, prefix_agreement


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Three pairs of neighbours (0, 1), (2, 3), (4, 5) in orthogonal directions.
VECTORS = np.eye(3, dtype=np.float32).repeat(2, axis=0) + np.float32(0.01) * np.eye(6, 3, dtype=np.float32)
CODES = np.array([[0, 0], [0, 0], [1, 0], [1, 1], [2, 0], [3, 0]])


def test_agreement_worked_by_hand():
    """Two of three pairs share the first code, and one of them the second."""
    agreement = prefix_agreement(CODES, VECTORS, seeded(), 100)
    assert agreement.neighbours == pytest.approx((2 / 3, 1 / 3))
    assert all(share <= 2 / 3 for share in agreement.random_items)


def test_agreement_does_not_depend_on_chunks(monkeypatch):
    whole = prefix_agreement(CODES, VECTORS, seeded(), 100)
    monkeypatch.setattr(module, "CHUNK_ROWS", 1)
    assert prefix_agreement(CODES, VECTORS, seeded(), 100) == whole


def test_a_sample_estimates_the_agreement_of_all_items():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3000, 4, generator=generator)
    codes = (x[:, :1] > 0).long().numpy()
    sampled = prefix_agreement(codes, x, seeded(), 500)
    assert sampled.neighbours[0] > 0.85
    assert sampled.random_items[0] == pytest.approx(0.5, abs=0.08)


def test_metrics_worked_by_hand():
    found = inspect_codes(CODES, (4, 2), VECTORS, seeded())
    assert (found.items, found.largest_group) == (6, 2)
    assert found.collision_rate == pytest.approx(2 / 6)
    assert [level.usage for level in found.levels] == [1.0, 1.0]
    assert isinstance(found.agreement, PrefixAgreement)
    assert inspect_codes(CODES, (4, 2), None, seeded()).agreement is None


def test_healthy_codes_raise_no_warning():
    unique = np.stack([np.arange(512) % 16, np.arange(512) // 16], 1)
    assert inspect_codes(unique, (16, 32), None, seeded()).warnings() == []


def test_collapsed_and_unbalanced_levels_raise_warnings():
    lost = inspect_codes(np.zeros((50, 2), np.int64), (8, 8), None, seeded()).warnings()
    assert "Level 0 has collapsed: only 1 of its 8 codes" in lost[0]
    assert "100% of the items share all their codes" in lost[-1]
    lopsided = np.stack([np.r_[np.arange(32), np.zeros(968, int)], np.arange(1000)], 1)
    assert "Level 0 is unbalanced" in inspect_codes(lopsided, (32, 1000), None, seeded()).warnings()[0]


def test_codes_unrelated_to_the_embeddings_raise_a_warning():
    x = torch.randn(400, 4, generator=seeded())
    shuffled = np.random.default_rng(0).permutation(400)[:, None] % 20
    texts = inspect_codes(shuffled, (20,), x, seeded()).warnings()
    assert any("do not follow content" in text for text in texts)
    with pytest.raises(ValueError, match="400 rows of codes and 10 embeddings"):
        inspect_codes(shuffled, (20,), x[:10], seeded())


def test_a_single_item_is_inspected_without_neighbours():
    assert inspect_codes(np.zeros((1, 2), np.int64), (2, 2), np.ones((1, 3)), seeded()).warnings() == []


def test_items_with_a_prefix_are_found():
    assert items_with_prefix(CODES, [0]).tolist() == [0, 1]
    assert items_with_prefix(CODES, [1, 1]).tolist() == [3]
    assert items_with_prefix(CODES, []).tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="longer than the 2 levels"):
        items_with_prefix(CODES, [0, 0, 0])
