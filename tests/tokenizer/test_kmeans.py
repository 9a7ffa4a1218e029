import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer import kmeans as kmeans_module
from rqrec.tokenizer.kmeans import kmeans, nearest, squared_distances


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(clusters: int, each: int, dim: int = 8) -> torch.Tensor:
    centres = torch.eye(clusters, dim) * 100
    return (centres[:, None] + torch.randn(clusters, each, dim, generator=seeded(1))).reshape(-1, dim)


def test_well_separated_clusters_are_found_exactly():
    x = blobs(5, 20)
    result = kmeans(x, 5, generator=seeded())
    groups = result.codes_N.reshape(5, 20)
    assert (groups == groups[:, :1]).all()
    assert groups[:, 0].unique().numel() == 5
    assert torch.allclose(result.centroids_VD[groups[:, 0]], x.reshape(5, 20, 8).mean(1), atol=1e-3)


def test_inertia_is_the_mean_squared_distance_to_the_codes():
    x = torch.randn(500, 6, generator=seeded(2))
    result = kmeans(x, 7, generator=seeded())
    by_hand = (x - result.centroids_VD[result.codes_N]).square().sum(1).mean()
    assert result.inertia == pytest.approx(float(by_hand), rel=1e-4)


def test_the_same_seed_gives_the_same_result():
    x = torch.randn(300, 4, generator=seeded(3))
    first, second = (kmeans(x, 9, generator=seeded(5), sample_size=100) for _ in range(2))
    assert torch.equal(first.centroids_VD, second.centroids_VD)
    assert torch.equal(first.codes_N, second.codes_N)


def test_precision_is_kept_far_from_the_origin():
    x = blobs(4, 10)
    near, far = kmeans(x, 4, generator=seeded()), kmeans(x + 1e4, 4, generator=seeded())
    assert torch.equal(near.codes_N, far.codes_N)
    assert far.inertia == pytest.approx(near.inertia, rel=1e-2)


def test_every_point_gets_a_code_when_only_a_sample_is_clustered():
    x = blobs(5, 200)
    result = kmeans(x, 5, generator=seeded(), sample_size=50)
    assert result.codes_N.shape == (1000,)
    assert torch.equal(result.codes_N, nearest(x, result.centroids_VD)[0])


@pytest.mark.parametrize(("points", "clusters"), [(1, 4), (3, 8), (5, 5)])
def test_fewer_points_than_clusters_give_each_point_its_own_centroid(points, clusters):
    x = torch.randn(points, 3, generator=seeded(4))
    result = kmeans(x, clusters, generator=seeded())
    assert result.centroids_VD.shape == (clusters, 3)
    assert torch.isfinite(result.centroids_VD).all()
    assert result.codes_N.unique().numel() == points
    assert result.inertia == pytest.approx(0, abs=1e-5)


def test_seeding_handles_many_duplicates_of_few_points():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).repeat(50, 1)
    result = kmeans(x, 10, generator=seeded())
    assert torch.isfinite(result.centroids_VD).all()
    assert result.codes_N.unique().numel() == 2
    assert torch.isfinite(kmeans(torch.zeros(20, 3), 4, generator=seeded()).centroids_VD).all()


def test_an_empty_cluster_moves_to_the_farthest_point():
    x = torch.tensor([[0.0], [1.0], [10.0]])
    centroids = torch.tensor([[0.5], [99.0]])
    codes, distances = nearest(x, centroids)
    moved = kmeans_module._means(x, codes, distances, centroids)
    assert moved[1].item() == 10.0


@pytest.mark.parametrize(
    ("x", "clusters", "message"),
    [
        (torch.zeros(0, 3), 2, "N of at least 1"),
        (torch.zeros(3), 2, "shape"),
        (torch.zeros(3, 3), 0, "n_clusters is 0"),
        (torch.tensor([[0.0], [float("nan")]]), 2, "Row 1"),
    ],
)
def test_invalid_input_is_refused(x, clusters, message):
    with pytest.raises(ValueError, match=message):
        kmeans(x, clusters, generator=seeded())


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 1000))
def test_codes_are_the_nearest_centroids(points, clusters, seed):
    x = torch.randn(points, 5, generator=seeded(seed))
    result = kmeans(x, clusters, generator=seeded(seed))
    direct = (x[:, None] - result.centroids_VD[None]).square().sum(-1)
    chosen = direct.gather(1, result.codes_N[:, None]).squeeze(1)
    assert torch.allclose(chosen, direct.min(1).values, atol=1e-4)
    assert torch.allclose(squared_distances(x, result.centroids_VD), direct, atol=1e-4)


def test_blocked_search_equals_all_pairs(monkeypatch):
    monkeypatch.setattr(kmeans_module, "BLOCK_ENTRIES", 16)
    x = blobs(4, 10)
    codes, distances = nearest(x, x[:8])
    direct = squared_distances(x, x[:8])
    assert torch.equal(codes, direct.argmin(1))
    assert torch.allclose(distances, direct.min(1).values, atol=1e-2)
