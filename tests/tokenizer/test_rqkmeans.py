import numpy as np
import pytest
import torch

from rqrec.tokenizer.collisions import reassign
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.semantic_ids import collision_rate


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def items(rows: int = 400) -> torch.Tensor:
    return torch.randn(rows, 10, generator=seeded(1)) * torch.linspace(0.3, 3, 10) + 2


def fitted(**options) -> RqKMeans:
    model = RqKMeans(RqKMeansConfig(**({"input_dim": 10, "codebook_size": 8} | options)))
    model.fit(items(), seeded())
    return model


OPTIONS = [{}, {"balance": 1.2}, {"whiten_dim": 4}, {"codebook_size": (4, 8, 6)}, {"n_layers": 1}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ids_use_every_code_and_decode_to_the_reconstruction(options):
    model = fitted(**options)
    codes = model.semantic_ids(items())
    assert codes.dtype == torch.int64
    assert codes.shape == (400, model.config.n_layers)
    for level, size in enumerate(model.config.codebook_sizes):
        assert codes[:, level].unique().numel() == size
    rebuilt = sum(model.get_buffer(f"centroids_{i}")[codes[:, i]] for i in range(model.config.n_layers))
    if model.config.whiten_dim is not None:
        rebuilt = rebuilt @ model.unwhiten_DI + model.mean_I
    assert torch.allclose(model.reconstruct(items()), rebuilt, atol=1e-4)


def test_whitening_gives_unit_variance_and_is_invertible():
    model = fitted(whiten_dim=10)
    white = (items() - model.mean_I) @ model.whiten_ID
    assert torch.allclose(white.T.cov(correction=0), torch.eye(10), atol=1e-4)
    assert torch.allclose(white @ model.unwhiten_DI + model.mean_I, items(), atol=1e-4)


def test_each_level_lowers_the_reconstruction_error():
    errors = [float((fitted(n_layers=n).reconstruct(items()) - items()).square().mean()) for n in (1, 2, 3)]
    assert errors == sorted(errors, reverse=True)


def test_a_balanced_tokenizer_keeps_codes_within_the_maximum():
    codes = fitted(balance=1.2).semantic_ids(items())
    for level in range(3):
        assert torch.bincount(codes[:, level]).max() <= 62


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_codes_do_not_depend_on_other_items_order_or_chunks(options, monkeypatch):
    model, x = fitted(**options), items()
    codes = model.semantic_ids(x)
    order = torch.randperm(400, generator=seeded(3))
    assert torch.equal(model.semantic_ids(x[order]), codes[order])
    assert torch.equal(model.semantic_ids(x[5:6])[0], codes[5])
    monkeypatch.setattr("rqrec.tokenizer.rqkmeans.CHUNK_ROWS", 33)
    assert torch.equal(model.semantic_ids(x.numpy()), codes)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_save_and_load_give_the_same_model(tmp_path, options):
    model = fitted(**options)
    model.save_pretrained(tmp_path)
    loaded = RqKMeans.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded.semantic_ids(items()), model.semantic_ids(items()))


def test_the_same_seed_gives_the_same_tokenizer():
    assert torch.equal(fitted().semantic_ids(items()), fitted().semantic_ids(items()))


def test_the_last_code_of_an_item_has_the_lowest_cost():
    model = fitted(balance=1.2)
    assert torch.equal(model.last_level_costs(items()).argmin(1), model.semantic_ids(items())[:, -1])


def test_reassignment_makes_ids_unique():
    model = fitted(codebook_size=16, n_layers=2)
    codes = model.semantic_ids(items()).numpy()
    before = collision_rate(codes)
    x = items().numpy()
    with pytest.raises(ValueError, match="Use the deduplication code"):
        reassign(np.zeros_like(codes), lambda rows: model.last_level_costs(x[rows]).numpy(), 16)
    model = fitted(codebook_size=(8, 8, 64))
    codes = model.semantic_ids(items()).numpy()
    unique = reassign(codes, lambda rows: model.last_level_costs(x[rows]).numpy(), 64)
    assert before > 0 == collision_rate(unique)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"balance": 0.5}, "balance is 0.5"),
        ({"whiten_dim": 11}, "at most input_dim = 10"),
        ({"codebook_size": (8, 8)}, "2 values for n_layers=3"),
        ({"codebook_size": 1}, "codebook_size is 1, but must be at least 2"),
        ({"n_layers": 0}, "n_layers is 0"),
    ],
)
def test_contradictory_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_invalid_embeddings_are_refused():
    with pytest.raises(ValueError, match="4 dimensions, but the tokenizer expects 10"):
        fitted().semantic_ids(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="empty"):
        fitted().semantic_ids(torch.zeros(0, 10))


def test_push_to_hub_sends_a_model_card(monkeypatch):
    sent = {}
    monkeypatch.setattr(
        "rqrec.tokenizer.rqkmeans.upload", lambda repo, save, card, private: sent.update(card=card)
    )
    fitted().push_to_hub("me/x", data="Toys.", figures={})
    assert "from rqrec.tokenizer.rqkmeans import RqKMeans" in sent["card"]
