import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec.tokenizer.quantize import (
    Codebook,
    Distance,
    QuantizeMode,
    ResidualQuantizer,
    annealed_temperature,
    gumbel_weights,
    rotation_trick,
    straight_through,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def quantizer(mode: QuantizeMode = QuantizeMode.STE, **options) -> ResidualQuantizer:
    torch.manual_seed(0)
    return ResidualQuantizer((8, 8, 8), 4, mode=mode, **options)


def latents(rows: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, 4, generator=seeded(seed)).requires_grad_()


def test_straight_through_copies_the_gradient():
    z, q = latents(), torch.randn(16, 4, generator=seeded(2), requires_grad=True)
    weights = torch.randn(16, 4, generator=seeded(3))
    out = straight_through(z, q)
    (out * weights).sum().backward()
    assert torch.allclose(out, q)
    assert torch.equal(z.grad, weights)
    assert q.grad is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000))
def test_rotation_trick_matches_equation_4_2_by_explicit_matrices(rows, dim, seed):
    z = torch.randn(rows, dim, generator=seeded(seed), dtype=torch.float64).requires_grad_()
    q = torch.randn(rows, dim, generator=seeded(seed + 1), dtype=torch.float64)
    weights = torch.randn(rows, dim, generator=seeded(seed + 2), dtype=torch.float64)
    out = rotation_trick(z, q)
    (out * weights).sum().backward()
    assert torch.equal(out, z + (q - z)) or torch.allclose(out, q)
    for row in range(rows):
        a = z[row].detach() / z[row].detach().norm()
        b = q[row] / q[row].norm()
        r = (a + b) / (a + b).norm()
        rotation = torch.eye(dim, dtype=torch.float64) - 2 * torch.outer(r, r) + 2 * torch.outer(b, a)
        scaled = q[row].norm() / z[row].detach().norm() * rotation
        assert torch.allclose(scaled @ z[row].detach(), q[row])
        assert torch.allclose(z.grad[row], scaled.T @ weights[row])


def test_rotation_trick_handles_zero_and_opposite_vectors():
    z = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    q = torch.tensor([[1.0, 2.0], [0.0, 0.0], [-2.0, 0.0], [0.0, 0.0]])
    out = rotation_trick(z, q)
    out.sum().backward()
    assert torch.equal(out, q)
    assert torch.isfinite(z.grad).all()
    assert torch.equal(z.grad[[0, 1, 3]], torch.ones(3, 2))


@pytest.mark.parametrize("mode", list(QuantizeMode))
@pytest.mark.parametrize("rows", [1, 7])
def test_a_batch_equals_its_rows_one_by_one(mode, rows):
    model = quantizer(mode).eval()
    z = latents(rows).detach()
    whole = model(z)
    for row in range(rows):
        alone = model(z[row : row + 1])
        assert torch.equal(alone.codes_BL[0], whole.codes_BL[row])
        assert torch.allclose(alone.latent_BD[0], whole.latent_BD[row], atol=1e-6)


@pytest.mark.parametrize("mode", list(QuantizeMode))
@pytest.mark.parametrize("distance", list(Distance))
def test_at_evaluation_the_latent_is_the_sum_of_the_codes(mode, distance):
    model = quantizer(mode, distance=distance).eval()
    z = latents().detach()
    out = model(z)
    assert torch.equal(out.codes_BL, model.encode(z))
    assert torch.allclose(out.latent_BD, model.decode(out.codes_BL), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)))
def test_permuted_items_get_permuted_codes(order):
    model = quantizer()
    z = latents(12).detach()
    assert torch.equal(model.encode(z[list(order)]), model.encode(z)[list(order)])


@pytest.mark.parametrize("mode", [QuantizeMode.STE, QuantizeMode.ROTATION_TRICK])
def test_the_commitment_loss_of_every_level_reaches_the_encoder(mode):
    """If residuals were computed from the straight-through output, levels after the first had no gradient."""
    model, z = quantizer(mode), latents()
    out = model(z)
    codes = out.codes_BL
    out.commitment_loss.backward()
    with torch.no_grad():
        residual, expected = z.detach(), torch.zeros_like(z)
        for level, codebook in enumerate(model.codebooks()):
            residual = residual - codebook.vectors()[codes[:, level]]
            expected += 2 * residual / z.numel()
    assert torch.allclose(z.grad, expected, atol=1e-6)


@pytest.mark.parametrize("mode", QuantizeMode)
def test_each_loss_reaches_only_the_encoder_or_only_the_codebooks(mode):
    model, z = quantizer(mode), latents()
    model(z).codebook_loss.backward()
    assert z.grad is None
    assert all(codebook.weight.grad.abs().sum() > 0 for codebook in model.codebooks())

    model, z = quantizer(mode), latents()
    model(z).commitment_loss.backward()
    assert z.grad.abs().sum() > 0
    assert all(codebook.weight.grad is None for codebook in model.codebooks())


@pytest.mark.parametrize("mode", [QuantizeMode.STE, QuantizeMode.ROTATION_TRICK])
def test_without_mixtures_the_sum_of_codes_has_a_gradient_to_the_encoder_only(mode):
    model, z = quantizer(mode), latents()
    model(z).latent_BD.sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(codebook.weight.grad is None for codebook in model.codebooks())


def test_gumbel_mixtures_have_gradients_to_encoder_and_codebooks():
    model, z = quantizer(QuantizeMode.GUMBEL_SOFTMAX), latents()
    model(z, temperature=0.7).latent_BD.square().sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(codebook.weight.grad.abs().sum() > 0 for codebook in model.codebooks())


def test_gumbel_is_soft_and_random_in_training_only():
    model, z = quantizer(QuantizeMode.GUMBEL_SOFTMAX), latents().detach()
    assert not torch.equal(model(z).latent_BD, model(z).latent_BD)
    model.eval()
    assert torch.equal(model(z).latent_BD, model(z).latent_BD)


def test_the_codebook_loss_of_gumbel_mixtures_moves_the_nearest_codes_only():
    model, z = quantizer(QuantizeMode.GUMBEL_SOFTMAX), latents(5)
    out = model(z, temperature=0.7)
    out.codebook_loss.backward()
    for level, codebook in enumerate(model.codebooks()):
        moved = codebook.weight.grad.abs().sum(1).nonzero().squeeze(1)
        assert moved.tolist() == out.codes_BL[:, level].unique().tolist()


def test_gumbel_weights_become_the_nearest_code_as_the_temperature_falls():
    distances = torch.randn(200, 8, generator=seeded()).square()
    torch.manual_seed(0)
    warm = gumbel_weights(distances, torch.tensor(1.0), 2.0)
    torch.manual_seed(0)
    cold = gumbel_weights(distances, torch.tensor(1.0), 0.001)
    assert torch.allclose(warm.sum(1), torch.ones(200))
    nearest = distances.argmin(1)
    assert (cold.argmax(1) == nearest).float().mean() > 0.9 > (warm.argmax(1) == nearest).float().mean()
    assert cold.max(1).values.mean() > 0.9 > warm.max(1).values.mean()
    with pytest.raises(ValueError, match="temperature is 0"):
        gumbel_weights(distances, torch.tensor(1.0), 0)


def test_the_temperature_decays_exponentially_from_start_to_end():
    temperatures = [annealed_temperature(step / 4, start=1.0, end=0.0625) for step in range(5)]
    assert temperatures == pytest.approx([1, 0.5, 0.25, 0.125, 0.0625])


def test_losses_average_over_dimensions_and_items_and_sum_over_levels():
    model, z = quantizer(), latents(5).detach()
    out = model(z)
    residual, expected = z, torch.zeros(())
    for level, codebook in enumerate(model.codebooks()):
        residual = residual - codebook.vectors()[out.codes_BL[:, level]]
        expected += residual.detach().square().mean()
    assert out.codebook_loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert out.commitment_loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_sim_vq_learns_the_matrix_but_not_the_table():
    model, z = quantizer(sim_vq=True), latents()
    assert sorted(dict(model.named_parameters())) == [f"levels.{i}.projection" for i in range(3)]
    model(z).codebook_loss.backward()
    assert all(codebook.projection.grad.abs().sum() > 0 for codebook in model.codebooks())


def test_sim_vq_codes_are_set_through_the_matrix():
    codebook = Codebook(8, 4, sim_vq=True, normalize=False, distance=Distance.L2, ema_decay=None)
    torch.nn.init.orthogonal_(codebook.projection)
    wanted = torch.randn(2, 4, generator=seeded())
    before = codebook.vectors().detach().clone()
    codebook.set_codes(torch.tensor([1, 5]), wanted)
    assert torch.allclose(codebook.vectors()[[1, 5]], wanted, atol=1e-5)
    assert torch.equal(codebook.vectors()[[0, 2, 3]], before[[0, 2, 3]])


def test_only_the_first_level_is_normalised():
    model = quantizer(normalize_first=True)
    norms = [codebook.vectors().norm(dim=1) for codebook in model.codebooks()]
    assert torch.allclose(norms[0], torch.ones(8))
    assert not torch.allclose(norms[1], torch.ones(8))


def test_cosine_distance_ignores_length():
    model = quantizer(distance=Distance.COSINE)
    z = latents().detach()
    assert torch.equal(model.codebooks()[0].nearest(z), model.codebooks()[0].nearest(z * 7))


def test_moving_averages_converge_to_the_means_without_a_gradient():
    model = ResidualQuantizer((2,), 2, mode=QuantizeMode.STE, ema_decay=0.5)
    codebook = model.codebooks()[0]
    codebook.set_codes(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    z = torch.tensor([[2.0, 1.0], [4.0, 1.0], [-3.0, 5.0]])
    for _ in range(60):
        out = model(z)
        model.ema_update()
    assert not out.codebook_loss.requires_grad
    assert torch.allclose(codebook.vectors(), torch.tensor([[3.0, 1.0], [-3.0, 5.0]]), atol=1e-4)
    frozen = codebook.vectors().clone()
    model.eval()
    model(z + 10)
    model.ema_update()
    assert torch.equal(codebook.vectors(), frozen)


def test_moving_averages_follow_all_batches_since_the_last_update_and_no_earlier_ones():
    def updated(*steps: list[torch.Tensor]) -> torch.Tensor:
        torch.manual_seed(0)
        model = ResidualQuantizer((3, 3), 2, mode=QuantizeMode.STE, ema_decay=0.5)
        for batches in steps:
            for batch in batches:
                model(batch)
            model.ema_update()
        return torch.stack([codebook.vectors() for codebook in model.codebooks()])

    one, two, later = (torch.randn(12, 2, generator=seeded(seed)) for seed in range(3))
    torch.testing.assert_close(updated([one, two], [later]), updated([torch.cat([one, two])], [later]))
    assert not torch.allclose(updated([one, two], [later]), updated([one, two], [one, two, later]))
    by_hand = ResidualQuantizer((3,), 2, mode=QuantizeMode.STE, ema_decay=0.5).codebooks()[0]
    by_hand.set_codes(torch.arange(3), torch.zeros(3, 2))
    for value in (4.0, 8.0):
        by_hand.count_residuals(torch.full((2, 2), value), torch.zeros(2, dtype=torch.int64))
        by_hand.ema_update()
    # Sums 0, 4, 10 and counts 1, 1.5, 1.75 of code 0.
    torch.testing.assert_close(by_hand.vectors()[0], torch.full((2,), 10 / 1.75))


def test_an_unused_code_does_not_move_under_moving_averages():
    model = ResidualQuantizer((2,), 2, mode=QuantizeMode.STE, ema_decay=0.5)
    codebook = model.codebooks()[0]
    codebook.set_codes(torch.tensor([0, 1]), torch.tensor([[1.0, 0.0], [-50.0, 0.0]]))
    for _ in range(50):
        model(torch.tensor([[1.0, 0.0], [2.0, 0.0]]))
        model.ema_update()
    assert codebook.vectors()[1].tolist() == [-50.0, 0.0]


@pytest.mark.parametrize("options", [{}, {"sim_vq": True}, {"ema_decay": 0.9}])
def test_initialisation_uses_every_code_and_lowers_the_residual_level_by_level(options):
    model = quantizer(**options)
    z = torch.randn(400, 4, generator=seeded(9))
    model.initialize(z, seeded())
    codes = model.encode(z)
    assert all(codes[:, level].unique().numel() == 8 for level in range(3))
    residual, errors = z, [z.square().sum(1).mean()]
    for level, codebook in enumerate(model.codebooks()):
        residual = residual - codebook.vectors()[codes[:, level]]
        errors.append(residual.square().sum(1).mean())
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("options", [{}, {"sim_vq": True}, {"ema_decay": 0.9}])
def test_dead_codes_are_used_after_a_reset(options):
    model = quantizer(**options)
    z = torch.randn(400, 4, generator=seeded(9))
    model.initialize(z, seeded())
    for codebook in model.codebooks():
        codebook.set_codes(torch.arange(4), torch.full((4, 4), 1e3))
    replaced = model.reset_dead_codes(z, seeded())
    assert replaced[0] == 4
    codes = model.encode(z)
    assert all(codes[:, level].unique().numel() == 8 for level in range(3))
    assert model.reset_dead_codes(z, seeded()) == [0, 0, 0]


def test_dead_codes_are_not_reset_if_the_error_is_zero():
    model = quantizer()
    z = torch.zeros(5, 4)
    model.initialize(z, seeded())
    assert model.reset_dead_codes(z, seeded()) == [0, 0, 0]
    assert all(torch.isfinite(codebook.weight).all() for codebook in model.codebooks())
