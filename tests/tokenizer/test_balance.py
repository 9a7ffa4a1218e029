import pytest
import torch

from rqrec.tokenizer.balance import balanced_kmeans, prices
from rqrec.tokenizer.kmeans import kmeans, squared_distances


def crowded(items: int = 600) -> torch.Tensor:
    """Two thirds of the items crowd in one corner, so that plain k-means gives a few codes most of them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(items, 6, generator=generator)
    x[: items // 3] *= 30
    return x


def test_codes_stay_within_their_capacity_but_for_items_on_a_border():
    x = crowded()
    plain = kmeans(x, 16, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(plain.codes_N).max() > 100
    centroids, price = balanced_kmeans(x, plain.centroids_VD, capacity=48)
    codes = (squared_distances(x, centroids) + price).argmin(1)
    counts = torch.bincount(codes)
    assert counts.max() <= 1.1 * 48
    assert (counts - 48).clamp_min(0).sum() <= 0.05 * len(x)
    assert (price >= 0).all()


def test_prices_settle_a_case_worked_by_hand():
    """Both items prefer code 0, by 1 and by 3: with room for one, the first gives way at a price over 1."""
    distances = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    price = prices(distances, capacity=1)
    assert (distances + price).argmin(1).tolist() == [1, 0]
    assert 1 < price[0] - price[1] < 3


def test_ample_room_costs_nothing():
    distances = squared_distances(crowded(), crowded()[:8])
    assert torch.equal(prices(distances, capacity=600), torch.zeros(8))


def test_copies_stay_together_and_the_search_ends():
    assert torch.isfinite(prices(torch.ones(10, 4) * torch.arange(4.0), capacity=3)).all()


def test_too_little_room_is_refused():
    with pytest.raises(ValueError, match="2 codes of at most 4 items cannot hold 10 items: allow at least 5"):
        prices(torch.ones(10, 2), capacity=4)
