"""Residual quantisation: a vector becomes one code per level, with a gradient estimator for the encoder.

Shapes: B batch, L levels, V codes of a level, D width of the latent, R codes to replace.
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rqrec.tokenizer.kmeans import kmeans, squared_distances


class QuantizeMode(StrEnum):
    """How the gradient passes through the choice of a code, which is not differentiable."""

    GUMBEL_SOFTMAX = "gumbel_softmax"  # a soft mixture of codes in training, the nearest code at evaluation
    STE = "ste"  # straight-through estimator: the gradient is copied
    ROTATION_TRICK = (
        "rotation_trick"  # the gradient is rotated and rescaled like the vector (arXiv 2410.06424)
    )


class Distance(StrEnum):
    """Distance that defines the nearest code: squared L2 or 1 - cosine similarity."""

    L2 = "l2"
    COSINE = "cosine"


class Quantized(NamedTuple):
    """Result of `ResidualQuantizer.forward`.

    Both losses are squared errors averaged over the D dimensions and the B items, and summed over the L levels.
    """

    latent_BD: Tensor
    """Sum of the chosen code vectors, [B, D], with a gradient to the encoder."""
    codes_BL: Tensor
    """int64 [B, L]."""
    codebook_loss: Tensor
    """Scalar; its gradient reaches the codebooks only."""
    commitment_loss: Tensor
    """Scalar; its gradient reaches the encoder only."""


def straight_through(z_BD: Tensor, q_BD: Tensor) -> Tensor:
    """`q_BD` in the forward pass; the gradient goes to `z_BD` unchanged."""
    return z_BD + (q_BD - z_BD).detach()


def rotation_trick(z_BD: Tensor, q_BD: Tensor) -> Tensor:
    """`q_BD` in the forward pass; the gradient to `z_BD` is rotated by the angle between them and rescaled.

    Equation 4.2 of arXiv 2410.06424: q = sg[|q| / |z| R] z with R = I - 2 r r^T + 2 q' z'^T, where z' and
    q' are z and q scaled to unit length and r is z' + q' scaled to unit length. For a row where z or q is
    zero the angle is undefined, and the gradient passes straight through.
    """
    z, q = z_BD.detach(), q_BD.detach()
    z_norm, q_norm = z.norm(dim=-1, keepdim=True), q.norm(dim=-1, keepdim=True)
    turns = (z_norm > 1e-6) & (q_norm > 1e-6)
    z_unit, q_unit = F.normalize(z, dim=-1), F.normalize(q, dim=-1)
    r = F.normalize(z_unit + q_unit, dim=-1)  # zero if z and q are opposite; R is still defined
    scale = torch.where(turns, q_norm / z_norm.clamp_min(1e-6), 0)
    along_r = (z_BD * r).sum(-1, keepdim=True)
    along_z = (z_BD * z_unit).sum(-1, keepdim=True)
    rotated = scale * (z_BD - 2 * along_r * r + 2 * along_z * q_unit)
    carrier = torch.where(turns, rotated, z_BD)
    return straight_through(carrier, q_BD)  # exactly q, despite the rounding error of the rotation


def gumbel_weights(distances_BV: Tensor, unit: Tensor, temperature: float) -> Tensor:
    """Random soft assignment to codes, [B, V], each row summing to 1; nearer codes get more weight.

    A sample of the Gumbel-softmax distribution (arXiv 1611.01144, equation 2) with the logits
    -distance / (unit x temperature), where `unit` is a positive scalar (see `Codebook.unit`). Unlike the temperature
    of the paper, this one does not divide the noise: as it falls, both the noise and the softness vanish, and the
    mixtures become the codes that evaluation uses. Raises ValueError if `temperature` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0.")
    return F.gumbel_softmax(-distances_BV / (unit * temperature), dim=-1)


def annealed_temperature(fraction: float, start: float = 0.1, end: float = 0.05) -> float:
    """Gumbel temperature when this fraction of a run has passed: exponential decay from `start` to `end`.

    At the end, the nearest code has about nine tenths of a mixture's weight. At lower temperatures it would have
    nearly all, and the encoder would get hardly any gradient through the weights.
    """
    return start * math.exp(fraction * math.log(end / start))


class Codebook(nn.Module):
    """The V code vectors of one level.

    With `sim_vq` (arXiv 2411.02038) the vectors are a fixed random table times a learned D x D matrix, so that
    every update moves all of them. With `ema_decay` they follow moving averages of their residuals instead of
    a gradient. With `normalize` they have unit length.
    """

    weight: Tensor
    ema_count_V: Tensor
    ema_sum_VD: Tensor
    step_count_V: Tensor | None
    step_sum_VD: Tensor | None

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        sim_vq: bool,
        normalize: bool,
        distance: Distance,
        ema_decay: float | None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.distance = distance
        self.ema_decay = ema_decay
        weight_VD = nn.init.normal_(torch.empty(size, dim)) / math.sqrt(dim)
        if sim_vq or ema_decay is not None:
            self.register_buffer("weight", weight_VD)
        else:
            self.weight = nn.Parameter(weight_VD)
        self.projection = nn.Parameter(torch.eye(dim)) if sim_vq else None
        if ema_decay is not None:
            self.register_buffer("ema_count_V", torch.ones(size))
            self.register_buffer("ema_sum_VD", weight_VD.clone())
            # Counts and sums of the residuals since the last update; None: there were none.
            self.register_buffer("step_count_V", None, persistent=False)
            self.register_buffer("step_sum_VD", None, persistent=False)

    def vectors(self) -> Tensor:
        """The effective code vectors, [V, D]: projected and normalised."""
        vectors_VD = self.weight if self.projection is None else self.weight @ self.projection.T
        return F.normalize(vectors_VD, dim=-1) if self.normalize else vectors_VD

    def distances(self, r_BD: Tensor, vectors_VD: Tensor) -> Tensor:
        """Distance of each residual to each code vector, [B, V]."""
        if self.distance is Distance.COSINE:
            return 1 - F.normalize(r_BD, dim=-1) @ F.normalize(vectors_VD, dim=-1).T
        return squared_distances(r_BD, vectors_VD)

    @torch.no_grad()
    def unit(self) -> Tensor:
        """The standard deviation of the distances between code vectors, a positive scalar.

        In this unit a temperature means the same at every level and for any scale of the latent. It does not depend
        on the batch, so that the loss of a batch is the mean of the losses of its items.
        """
        vectors_VD = self.vectors()
        return self.distances(vectors_VD, vectors_VD).std().clamp_min(1e-12)

    @torch.no_grad()
    def nearest(self, r_BD: Tensor) -> Tensor:
        """The nearest code of each residual, int64 [B]."""
        return self.distances(r_BD, self.vectors()).argmin(dim=-1)

    @torch.no_grad()
    def set_codes(self, rows: Tensor, vectors_RD: Tensor) -> None:
        """Set the vectors of the codes `rows`, int64 [R], to `vectors_RD`."""
        if self.projection is not None:
            vectors_RD = torch.linalg.lstsq(self.projection, vectors_RD.T).solution.T
        self.weight[rows] = vectors_RD
        if self.ema_decay is not None:
            self.ema_count_V[rows] = 1.0
            self.ema_sum_VD[rows] = vectors_RD

    @torch.no_grad()
    def count_residuals(self, r_BD: Tensor, codes_B: Tensor) -> None:
        """Count the residuals of each code and add them up, for the next `ema_update`."""
        count_V, sum_VD = self._step()
        self.step_count_V = count_V.index_add_(0, codes_B, torch.ones_like(r_BD[:, 0]))
        self.step_sum_VD = sum_VD.index_add_(0, codes_B, r_BD)

    def _step(self) -> tuple[Tensor, Tensor]:
        """The counts [V] and sums [V, D] of the residuals since the last update."""
        if self.step_count_V is None or self.step_sum_VD is None:
            return torch.zeros_like(self.ema_count_V), torch.zeros_like(self.ema_sum_VD)
        return self.step_count_V, self.step_sum_VD

    @torch.no_grad()
    def ema_update(self) -> None:
        """Update the codes as exponential moving averages of their residuals (arXiv 1711.00937, appendix A.1).

        The residuals are those since the last update, of all batches and, with torch.distributed initialised, of all
        processes. Codes without residuals do not move.
        """
        assert self.ema_decay is not None
        count_V, sum_VD = self._step()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count_V)
            torch.distributed.all_reduce(sum_VD)
        self.ema_count_V.lerp_(count_V, 1 - self.ema_decay)
        self.ema_sum_VD.lerp_(sum_VD, 1 - self.ema_decay)
        seen_V = count_V > 0
        self.weight[seen_V] = self.ema_sum_VD[seen_V] / self.ema_count_V[seen_V, None]
        self.step_count_V = self.step_sum_VD = None


class ResidualQuantizer(nn.Module):
    """L codebooks in sequence: each level quantises the residual of the levels before it.

    arXiv 2305.05065, section 3.1: r_0 = z, c_l = argmin |r_l - e|, r_(l+1) = r_l - e_(c_l). The code vector
    is detached in the residual, so that the loss of every level reaches the encoder. The gradient estimator
    is applied once, to the sum of the code vectors.
    """

    def __init__(
        self,
        codebook_sizes: Sequence[int],
        dim: int,
        *,
        mode: QuantizeMode = QuantizeMode.ROTATION_TRICK,
        distance: Distance = Distance.L2,
        sim_vq: bool = False,
        normalize_first: bool = False,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__()
        self.mode = mode
        self.levels = nn.ModuleList(
            Codebook(
                size,
                dim,
                sim_vq=sim_vq,
                normalize=normalize_first and level == 0,
                distance=distance,
                ema_decay=ema_decay,
            )
            for level, size in enumerate(codebook_sizes)
        )

    def codebooks(self) -> list[Codebook]:
        """The codebooks, by level."""
        return [level for level in self.levels if isinstance(level, Codebook)]

    def forward(self, z_BD: Tensor, temperature: float = 1.0) -> Quantized:
        """Quantise latents [B, D]. `temperature` is used in training with GUMBEL_SOFTMAX only."""
        soft = self.mode is QuantizeMode.GUMBEL_SOFTMAX and self.training
        residual_BD = z_BD
        total_BD = torch.zeros_like(z_BD)
        codebook_loss = commitment_loss = z_BD.new_zeros(())
        codes = []
        for codebook in self.codebooks():
            vectors_VD = codebook.vectors()
            codes_B = codebook.nearest(residual_BD)
            nearest_BD = F.embedding(codes_B, vectors_VD)
            # Always of the nearest code: a mixture's losses would pull all its codes towards the same residual.
            codebook_loss = codebook_loss + F.mse_loss(residual_BD.detach(), nearest_BD)
            commitment_loss = commitment_loss + F.mse_loss(residual_BD, nearest_BD.detach())
            e_BD = nearest_BD
            if soft:
                distances_BV = codebook.distances(residual_BD, vectors_VD)
                e_BD = gumbel_weights(distances_BV, codebook.unit(), temperature) @ vectors_VD
            if codebook.ema_decay is not None and self.training:
                codebook.count_residuals(residual_BD.detach(), codes_B)
            total_BD = total_BD + e_BD
            residual_BD = residual_BD - e_BD.detach()
            codes.append(codes_B)
        if self.mode is QuantizeMode.ROTATION_TRICK:
            total_BD = rotation_trick(z_BD, total_BD)
        elif not soft:
            total_BD = straight_through(z_BD, total_BD)
        return Quantized(total_BD, torch.stack(codes, dim=-1), codebook_loss, commitment_loss)

    def ema_update(self) -> None:
        """Update codes that follow moving averages by the residuals since the last update; else do nothing."""
        for codebook in self.codebooks():
            if codebook.ema_decay is not None:
                codebook.ema_update()

    @torch.no_grad()
    def encode(self, z_BD: Tensor) -> Tensor:
        """The nearest code at every level, int64 [B, L]; deterministic, also in training mode."""
        codes = []
        for codebook in self.codebooks():
            codes.append(codebook.nearest(z_BD))
            z_BD = z_BD - codebook.vectors()[codes[-1]]
        return torch.stack(codes, dim=-1)

    @torch.no_grad()
    def last_level_distances(self, z_BD: Tensor) -> Tensor:
        """Distance of the residual at the last level to each code of that level, [B, V]."""
        *others, last = self.codebooks()
        for codebook in others:
            z_BD = z_BD - codebook.vectors()[codebook.nearest(z_BD)]
        return last.distances(z_BD, last.vectors())

    def decode(self, codes_BL: Tensor) -> Tensor:
        """The sum of the code vectors, [B, D]: the inverse of `encode` up to the last residual."""
        codebooks = self.codebooks()
        total_BD = codebooks[0].vectors()[codes_BL[:, 0]]
        for level in range(1, len(codebooks)):
            total_BD = total_BD + codebooks[level].vectors()[codes_BL[:, level]]
        return total_BD

    @torch.no_grad()
    def initialize(self, z_BD: Tensor, generator: torch.Generator) -> None:
        """Initialise every codebook by k-means on the residuals of its level."""
        for codebook in self.codebooks():
            if codebook.projection is not None:
                codebook.projection.copy_(torch.eye(z_BD.shape[1]))
            size = len(codebook.weight)
            centroids_VD = kmeans(z_BD, size, generator=generator).centroids_VD
            codebook.set_codes(torch.arange(size, device=z_BD.device), centroids_VD)
            z_BD = z_BD - codebook.vectors()[codebook.nearest(z_BD)]

    @torch.no_grad()
    def reset_dead_codes(self, z_BD: Tensor, generator: torch.Generator) -> list[int]:
        """Replace codes that none of `z_BD` uses by residuals with a large quantisation error.

        Residuals are sampled with probability proportional to their squared error. Returns the number of
        codes replaced on each level.
        """
        replaced = []
        for codebook in self.codebooks():
            codes_B = codebook.nearest(z_BD)
            counts_V = torch.bincount(codes_B, minlength=len(codebook.weight))
            dead = (counts_V == 0).nonzero().squeeze(1)
            errors_B = (z_BD - codebook.vectors()[codes_B]).square().sum(1).double().cpu()
            dead = dead[: int((errors_B > 0).sum())]
            if len(dead):
                rows = torch.multinomial(errors_B, len(dead), generator=generator).to(z_BD.device)
                codebook.set_codes(dead, z_BD[rows])
                codes_B = codebook.nearest(z_BD)
            replaced.append(len(dead))
            z_BD = z_BD - codebook.vectors()[codes_B]
        return replaced
