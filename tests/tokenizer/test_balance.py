import pytest
import torch

from rqrec.tokenizer.balance import balanced_kmeans, prices
from rqrec.tokenizer.kmeans import kmeans, squared_distances


def skewed_items(items: int = 600) -> torch.Tensor:
    """Two thirds of the items lie close together, so that plain k-means assigns most items to a few codes."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(items, 6, generator=generator)
    x[: items // 3] *= 30
    return x


def test_codes_stay_within_their_capacity_except_for_items_on_a_border():
    x = skewed_items()
    plain = kmeans(x, 16, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(plain.codes_N).max() > 100
    centroids, price = balanced_kmeans(x, plain.centroids_VD, capacity=48)
    codes = (squared_distances(x, centroids) + price).argmin(1)
    counts = torch.bincount(codes)
    assert counts.max() <= 1.1 * 48
    assert (counts - 48).clamp_min(0).sum() <= 0.05 * len(x)
    assert (price >= 0).all()


def test_prices_worked_by_hand():
    """Both items prefer code 0, by 1 and by 3: with a capacity of one, the first moves at a price above 1."""
    distances = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    price = prices(distances, capacity=1)
    assert (distances + price).argmin(1).tolist() == [1, 0]
    assert 1 < price[0] - price[1] < 3


def test_prices_are_zero_if_the_capacity_is_ample():
    distances = squared_distances(skewed_items(), skewed_items()[:8])
    assert torch.equal(prices(distances, capacity=600), torch.zeros(8))


def test_duplicate_items_do_not_prevent_termination():
    assert torch.isfinite(prices(torch.ones(10, 4) * torch.arange(4.0), capacity=3)).all()


def test_too_small_a_capacity_is_refused():
    with pytest.raises(
        ValueError, match="2 codes of at most 4 items cannot hold 10 items: the capacity must be at least 5"
    ):
        prices(torch.ones(10, 2), capacity=4)
