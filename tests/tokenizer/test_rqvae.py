import json

import numpy as np
import pytest
import torch

from rqrec.tokenizer.quantize import Distance, QuantizeMode
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig

OPTIONS = [
    {"mode": "gumbel_softmax"},
    {"mode": "ste"},
    {"mode": "rotation_trick"},
    {"sim_vq": True},
    {"codebook_normalize": True},
    {"distance": "cosine"},
    {"ema_decay": 0.9, "mode": "ste"},
    {"codebook_size": (4, 8, 6)},
    {"n_cat_features": 2},
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(**options) -> RqVae:
    torch.manual_seed(0)
    defaults = {"input_dim": 12, "embed_dim": 4, "hidden_dims": (16, 8), "codebook_size": 8}
    return RqVae(RqVaeConfig(**(defaults | options)))


def items(rows: int = 200, seed: int = 1) -> torch.Tensor:
    x = torch.randn(rows, 12, generator=seeded(seed)) * 3 + 5
    x[:, 10:] = (x[:, 10:] > 5).float()
    return x


def ready(**options) -> RqVae:
    model = small(**options)
    model.fit_normalizer(items())
    model.initialize_codebooks(items(), seeded())
    return model


def grads(model: RqVae, loss: torch.Tensor) -> set[str]:
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    named = model.named_parameters()
    return {name.split(".")[0] for name, p in named if p.grad is not None and p.grad.abs().sum() > 0}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_training_lowers_the_reconstruction_loss(options):
    model, x = ready(**options), items()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(60):
        out = model(x, temperature=0.1)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        model.quantizer.ema_update()
        losses.append(float(out.reconstruction_loss.detach()))
    assert losses[-1] < 0.97 * losses[0]


def test_each_loss_term_reaches_its_own_parameters():
    model = ready()
    out = model(items())
    assert grads(model, out.reconstruction_loss) == {"encoder", "decoder"}
    assert grads(model, out.codebook_loss) == {"quantizer"}
    assert grads(model, out.commitment_loss) == {"encoder"}


def test_the_commitment_loss_of_every_level_reaches_the_encoder():
    """With the first level alone the gradient would differ."""
    model, x = ready(), items()
    grads(model, model(x).commitment_loss)
    both = model.encoder[0].weight.grad.clone()
    model.quantizer.levels = model.quantizer.levels[:1]
    grads(model, model(x).commitment_loss)
    assert not torch.allclose(both, model.encoder[0].weight.grad)


def test_losses_average_over_dimensions_and_items_and_add_up():
    model, x = ready(quantization_weight=3.0, commitment_weight=0.7), items()
    model.eval()
    out = model(x)
    standard = (x - model.input_mean_I) / model.input_scale_I
    rebuilt = (model.reconstruct(x) - model.input_mean_I) / model.input_scale_I
    by_hand = (standard - rebuilt).square().mean()
    assert out.reconstruction_loss.item() == pytest.approx(by_hand.item(), rel=1e-4)
    total = out.reconstruction_loss + 3 * (out.codebook_loss + 0.7 * out.commitment_loss)
    assert out.loss.item() == pytest.approx(total.item(), rel=1e-6)
    twice = model(torch.cat([x, x]))
    assert twice.loss.item() == pytest.approx(out.loss.item(), rel=1e-4)


@pytest.mark.parametrize("n_cat_features", [0, 2])
def test_the_weight_of_a_loss_does_not_depend_on_the_number_of_dimensions(n_cat_features):
    """Every dimension of the input and of the latent comes twice: no loss changes."""
    model = ready(n_cat_features=n_cat_features).eval()
    wide = small(input_dim=24, embed_dim=8, n_cat_features=2 * n_cat_features).eval()
    tensors = model.state_dict()
    for name in tensors:
        if name.startswith(("input_", "encoder.4", "decoder.4")):
            tensors[name] = tensors[name].repeat_interleave(2, dim=0)
        elif name.startswith(("encoder.0", "decoder.0")):  # they add up their inputs, which come twice
            tensors[name] = tensors[name].repeat_interleave(2, dim=1) / 2
        elif name.startswith("quantizer"):
            tensors[name] = tensors[name].repeat_interleave(2, dim=1)
    wide.load_state_dict(tensors)
    narrow_out, wide_out = model(items()), wide(items().repeat_interleave(2, dim=1))
    assert torch.equal(wide_out.codes_BL, narrow_out.codes_BL)
    for term in ("reconstruction_loss", "codebook_loss", "commitment_loss", "loss"):
        assert getattr(wide_out, term).item() == pytest.approx(getattr(narrow_out, term).item(), rel=1e-4)


def test_the_scale_of_the_input_does_not_matter():
    losses, codes = [], []
    for factor in (1e-3, 1.0, 1e3):
        model = small()
        model.fit_normalizer(items() * factor)
        model.initialize_codebooks(items() * factor, seeded())
        losses.append(model(items() * factor).loss.item())
        codes.append(model.semantic_ids(items() * factor))
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-3)
    assert all((part == codes[0]).float().mean() > 0.99 for part in codes)


def test_standardised_inputs_have_mean_zero_and_mean_variance_one():
    model = small(n_cat_features=2)
    model.fit_normalizer(items())
    standard = (items() - model.input_mean_I) / model.input_scale_I
    assert torch.allclose(standard[:, :10].mean(0), torch.zeros(10), atol=1e-5)
    assert float(standard[:, :10].var(0, correction=0).mean()) == pytest.approx(1, rel=1e-4)
    assert torch.equal(standard[:, 10:], items()[:, 10:])


@pytest.mark.parametrize("n_cat_features", [0, 2])
def test_categorical_features_become_probabilities_and_are_optional(n_cat_features):
    """`[..., :-0]` is empty: without categorical features, all features must still be dense."""
    model = ready(n_cat_features=n_cat_features)
    rebuilt = model.reconstruct(items())
    assert rebuilt.shape == (200, 12)
    if n_cat_features:
        assert ((rebuilt[:, 10:] >= 0) & (rebuilt[:, 10:] <= 1)).all()
    grads(model, model(items()).reconstruction_loss)
    assert (model.decoder[-1].weight.grad.abs().sum(1) > 0).all()


def test_the_categorical_loss_is_binary_cross_entropy():
    model, x = ready(n_cat_features=2).eval(), items()
    out = model(x)
    rebuilt = model.reconstruct(x)
    p = rebuilt[:, 10:]
    entropy = -(x[:, 10:] * p.log() + (1 - x[:, 10:]) * (1 - p).log())
    scale = model.input_scale_I[0]
    dense = ((x - rebuilt)[:, :10] / scale).square()
    by_hand = torch.cat([dense, entropy], dim=1).mean()
    assert out.reconstruction_loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ids_are_the_same_in_training_and_evaluation_mode(options):
    model = ready(**options)
    x = items()
    training = model.train().semantic_ids(x)
    assert model.training
    assert training.dtype == torch.int64
    assert training.shape == (200, 3)
    assert torch.equal(training, model.train().semantic_ids(x))
    assert torch.equal(training, model.eval().semantic_ids(x))
    assert torch.equal(training, model(x).codes_BL)


def test_the_codes_of_an_item_do_not_depend_on_the_batch():
    model, x = ready(), items(20)
    whole = model.semantic_ids(x)
    assert all(torch.equal(model.semantic_ids(x[i : i + 1])[0], whole[i]) for i in range(20))
    assert torch.isfinite(model(x[:1]).loss)


def test_arrays_of_any_float_type_are_read():
    model, x = ready(), items()
    expected = model.semantic_ids(x)
    assert torch.equal(model.semantic_ids(x.double()), expected)
    assert torch.equal(model.semantic_ids(x.numpy()), expected)
    assert (model.semantic_ids(x.numpy().astype(np.float16)) == expected).float().mean() > 0.9


def test_a_catalogue_is_read_in_chunks(monkeypatch):
    model, x = ready(), items()
    expected = model.semantic_ids(x), model.reconstruct(x)
    monkeypatch.setattr("rqrec.tokenizer.rqvae.CHUNK_ROWS", 7)
    assert torch.equal(model.semantic_ids(x), expected[0])
    assert torch.allclose(model.reconstruct(x), expected[1], atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_save_and_load_give_the_same_model(tmp_path, options):
    model = ready(**options)
    model.save_pretrained(tmp_path)
    loaded = RqVae.from_pretrained(tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded.semantic_ids(items()), model.semantic_ids(items()))
    assert torch.equal(loaded.reconstruct(items()), model.reconstruct(items()))


def test_the_initialized_flag_is_saved(tmp_path):
    model = small()
    assert not model.initialized
    model.save_pretrained(tmp_path)
    assert not RqVae.from_pretrained(tmp_path).initialized
    ready().save_pretrained(tmp_path)
    assert RqVae.from_pretrained(tmp_path).initialized


def test_initialisation_is_the_same_for_the_same_seed_and_spreads_the_codes():
    first, second = ready(), ready()
    assert torch.equal(first.semantic_ids(items()), second.semantic_ids(items()))
    assert all(first.semantic_ids(items())[:, level].unique().numel() == 8 for level in range(3))


def test_dead_codes_are_reset():
    model = ready()
    with torch.no_grad():
        model.quantizer.codebooks()[0].weight[:4] = 1e6
    assert model.reset_dead_codes(items(), seeded())[0] == 4
    assert model.semantic_ids(items())[:, 0].unique().numel() == 8


def test_mixed_precision_quantises_in_float32():
    model = ready()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(items())
    out.loss.backward()
    assert out.loss.dtype == torch.float32
    assert torch.isfinite(out.loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": (8, 8)}, "2 values for n_layers=3"),
        ({"codebook_size": 1}, "codebook_size is 1, but must be at least 2"),
        ({"n_cat_features": 12}, "must be below input_dim = 12"),
        ({"input_dim": 0}, "input_dim is 0"),
        ({"hidden_dims": (8, 0)}, "hidden_dims is"),
        ({"commitment_weight": -1.0}, "commitment_weight is -1.0"),
        ({"mode": "magic"}, "one of GUMBEL_SOFTMAX, STE, ROTATION_TRICK"),
        ({"distance": "l1"}, "one of L2, COSINE"),
        ({"ema_decay": 1.5}, "above 0 and below 1"),
        ({"ema_decay": 0.9, "sim_vq": True}, "set ema_decay to None"),
    ],
)
def test_contradictory_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_settings_are_read_back_from_names_and_lists():
    config = RqVaeConfig(input_dim=4, mode="STE", hidden_dims=[3], codebook_size=[4, 4, 4], distance="COSINE")
    assert (config.mode, config.distance) == (QuantizeMode.STE, Distance.COSINE)
    assert config.hidden_dims == (3,)
    assert config.codebook_sizes == (4, 4, 4)


def test_a_wrong_dimension_and_nan_values_are_refused():
    model = ready()
    with pytest.raises(ValueError, match="5 dimensions, but the tokenizer expects 12"):
        model.semantic_ids(torch.zeros(3, 5))
    broken = items()
    broken[7, 3] = float("nan")
    with pytest.raises(ValueError, match="row 7"):
        model.semantic_ids(broken)
    with pytest.raises(ValueError, match="empty"):
        model.fit_normalizer(torch.zeros(0, 12))


def test_settings_that_contradict_the_tensors_are_refused(tmp_path):
    ready().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change, message in [
        ({"colour": 3}, r"unknown settings \['colour'\]"),
        ({"embed_dim": 5}, "by its settings the shape must be"),
        ({"n_layers": 2}, "unexpected tensors"),
    ]:
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=message):
            RqVae.from_pretrained(tmp_path)


def test_push_to_hub_sends_a_model_card_with_the_metrics(monkeypatch):
    sent = {}
    monkeypatch.setattr(
        "rqrec.tokenizer.rqvae.upload", lambda repo, save, card, private: sent.update(repo=repo, card=card)
    )
    ready().push_to_hub("me/x", data="Toys.", figures={"usage": 1.0})
    assert sent["repo"] == "me/x"
    assert "Toys." in sent["card"]
    assert "| usage | 1 |" in sent["card"]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_last_code_of_an_item_has_the_lowest_cost(options):
    model = ready(**options)
    assert torch.equal(model.last_level_costs(items()).argmin(1), model.semantic_ids(items())[:, -1])
