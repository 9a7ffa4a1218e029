"""Residual quantisation: a vector becomes one code per level, and the gradient still reaches the encoder.

Shapes: B batch, L levels, V codes of a level, D width of the latent.
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
    """How the gradient passes the choice of a code, which has none of its own."""

    GUMBEL_SOFTMAX = "gumbel_softmax"  # a soft mixture of codes in training, the nearest one otherwise
    STE = "ste"  # straight-through: the gradient is copied
    ROTATION_TRICK = "rotation_trick"  # the gradient is rotated and rescaled with the vector


class Distance(StrEnum):
    """Which code is nearest: by squared L2 distance, or by angle."""

    L2 = "l2"
    COSINE = "cosine"


class Quantized(NamedTuple):
    """`latent_BD` is the sum of the chosen codes, with a gradient to the encoder. Codes are int64 [B, L].

    Both losses are squared errors summed over the D dimensions and the levels, averaged over the B items.
    """

    latent_BD: Tensor
    codes_BL: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor


def straight_through(z_BD: Tensor, q_BD: Tensor) -> Tensor:
    """The value of `q_BD`, the gradient of `z_BD`."""
    return z_BD + (q_BD - z_BD).detach()


def rotation_trick(z_BD: Tensor, q_BD: Tensor) -> Tensor:
    """The value of `q_BD`; the gradient to `z_BD` is rotated by the angle between them and rescaled.

    Equation 4.2 of arXiv 2410.06424: q = sg[|q| / |z| R] z with R = I - 2 r r^T + 2 q' z'^T, where z' and
    q' have unit length and r is z' + q' brought to unit length. A row where z or q is zero has no angle:
    there the gradient passes straight through.
    """
    z, q = z_BD.detach(), q_BD.detach()
    z_norm, q_norm = z.norm(dim=-1, keepdim=True), q.norm(dim=-1, keepdim=True)
    turns = (z_norm > 1e-6) & (q_norm > 1e-6)
    z_unit, q_unit = F.normalize(z, dim=-1), F.normalize(q, dim=-1)
    r = F.normalize(z_unit + q_unit, dim=-1)  # zero where z and q are opposite, which R allows
    scale = torch.where(turns, q_norm / z_norm.clamp_min(1e-6), 0)
    along_r = (z_BD * r).sum(-1, keepdim=True)
    along_z = (z_BD * z_unit).sum(-1, keepdim=True)
    rotated = scale * (z_BD - 2 * along_r * r + 2 * along_z * q_unit)
    carrier = torch.where(turns, rotated, z_BD)
    return straight_through(carrier, q_BD)  # q exactly, whatever the rounding of the rotation


def gumbel_weights(distances_BV: Tensor, temperature: float) -> Tensor:
    """A random soft choice of codes, [B, V], each row summing to 1; nearer codes weigh more.

    Distances count in units of their standard deviation, so that one temperature means the same at every
    level and whatever the scale of the latent. The temperature divides them before the Gumbel noise is added:
    as it falls, the noise fades with the softness, and training ends with the codes that evaluation uses.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0.")
    unit = distances_BV.detach().std().clamp_min(1e-12)
    return F.gumbel_softmax(-distances_BV / (unit * temperature), dim=-1)


def annealed_temperature(step: int, steps: int, start: float = 0.2, end: float = 0.005) -> float:
    """The Gumbel temperature at `step` of `steps`: from `start` to `end` by equal factors."""
    done = min(max(step / max(steps, 1), 0.0), 1.0)
    return start * math.exp(done * math.log(end / start))


class Codebook(nn.Module):
    """The V code vectors of one level.

    With `sim_vq` (arXiv 2411.02038) the vectors are a fixed table times a learned D x D matrix, so that one
    step moves all of them. With `learned=False` the table takes no gradient (SimVQ, moving averages). With
    `normalize` the vectors have unit length.
    """

    weight: Tensor
    ema_count_V: Tensor
    ema_sum_VD: Tensor

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
        weight_VD = torch.randn(size, dim) / math.sqrt(dim)
        if sim_vq or ema_decay is not None:
            self.register_buffer("weight", weight_VD)
        else:
            self.weight = nn.Parameter(weight_VD)
        self.projection = nn.Parameter(torch.eye(dim)) if sim_vq else None
        if ema_decay is not None:
            self.register_buffer("ema_count_V", torch.ones(size))
            self.register_buffer("ema_sum_VD", weight_VD.clone())

    def vectors(self) -> Tensor:
        """The code vectors as they are used, [V, D]."""
        vectors_VD = self.weight if self.projection is None else self.weight @ self.projection.T
        return F.normalize(vectors_VD, dim=-1) if self.normalize else vectors_VD

    def distances(self, r_BD: Tensor, vectors_VD: Tensor) -> Tensor:
        """Distance of each residual to each code, [B, V]."""
        if self.distance is Distance.COSINE:
            return 1 - F.normalize(r_BD, dim=-1) @ F.normalize(vectors_VD, dim=-1).T
        return squared_distances(r_BD, vectors_VD)

    @torch.no_grad()
    def nearest(self, r_BD: Tensor) -> Tensor:
        """The nearest code of each residual, int64 [B]."""
        return self.distances(r_BD, self.vectors()).argmin(dim=-1)

    @torch.no_grad()
    def set_codes(self, rows: Tensor, vectors_RD: Tensor) -> None:
        """Make `vectors_RD` the vectors of the codes `rows` [R]."""
        if self.projection is not None:
            vectors_RD = torch.linalg.lstsq(self.projection, vectors_RD.T).solution.T
        self.weight[rows] = vectors_RD
        if self.ema_decay is not None:
            self.ema_count_V[rows] = 1.0
            self.ema_sum_VD[rows] = vectors_RD

    @torch.no_grad()
    def ema_update(self, r_BD: Tensor, codes_B: Tensor) -> None:
        """Move each code towards the mean of its residuals, by an exponential moving average.

        The update of arXiv 1711.00937, appendix A.1. Codes without residuals stay where they are. Under
        torch.distributed the sums are those of all processes.
        """
        assert self.ema_decay is not None
        count_V = torch.zeros_like(self.ema_count_V).index_add_(0, codes_B, torch.ones_like(r_BD[:, 0]))
        sum_VD = torch.zeros_like(self.ema_sum_VD).index_add_(0, codes_B, r_BD)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(count_V)
            torch.distributed.all_reduce(sum_VD)
        self.ema_count_V.lerp_(count_V, 1 - self.ema_decay)
        self.ema_sum_VD.lerp_(sum_VD, 1 - self.ema_decay)
        seen_V = count_V > 0
        self.weight[seen_V] = self.ema_sum_VD[seen_V] / self.ema_count_V[seen_V, None]


class ResidualQuantizer(nn.Module):
    """L codebooks in a row: each level quantises what the levels before it left over.

    arXiv 2305.05065, section 3.1: r_0 = z, c_l = argmin |r_l - e|, r_(l+1) = r_l - e_(c_l). The residual
    passes on with the code detached, so that every level's loss reaches the encoder; the sum of the codes
    meets the latent once, at the end.
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
        """The levels in order."""
        return [level for level in self.levels if isinstance(level, Codebook)]

    def forward(self, z_BD: Tensor, temperature: float = 1.0) -> Quantized:
        """Quantise latents; `temperature` softens the choice with GUMBEL_SOFTMAX in training, only there."""
        soft = self.mode is QuantizeMode.GUMBEL_SOFTMAX and self.training
        residual_BD = z_BD
        total_BD = torch.zeros_like(z_BD)
        codebook_loss = commitment_loss = z_BD.new_zeros(())
        codes = []
        for codebook in self.codebooks():
            vectors_VD = codebook.vectors()
            if soft:
                distances_BV = codebook.distances(residual_BD, vectors_VD)
                codes_B = distances_BV.argmin(dim=-1)
                e_BD = gumbel_weights(distances_BV, temperature) @ vectors_VD
            else:
                codes_B = codebook.nearest(residual_BD)
                e_BD = F.embedding(codes_B, vectors_VD)
            codebook_loss = codebook_loss + squared_error(residual_BD.detach(), e_BD)
            commitment_loss = commitment_loss + squared_error(residual_BD, e_BD.detach())
            if codebook.ema_decay is not None and self.training:
                codebook.ema_update(residual_BD.detach(), codes_B)
            total_BD = total_BD + e_BD
            residual_BD = residual_BD - e_BD.detach()
            codes.append(codes_B)
        if self.mode is QuantizeMode.ROTATION_TRICK:
            total_BD = rotation_trick(z_BD, total_BD)
        elif not soft:
            total_BD = straight_through(z_BD, total_BD)
        return Quantized(total_BD, torch.stack(codes, dim=-1), codebook_loss, commitment_loss)

    @torch.no_grad()
    def encode(self, z_BD: Tensor) -> Tensor:
        """The nearest code at every level, int64 [B, L]; never random."""
        codes = []
        for codebook in self.codebooks():
            codes.append(codebook.nearest(z_BD))
            z_BD = z_BD - codebook.vectors()[codes[-1]]
        return torch.stack(codes, dim=-1)

    @torch.no_grad()
    def last_level_distances(self, z_BD: Tensor) -> Tensor:
        """The distance to each code of the last level, of what the other levels leave over, [B, V]."""
        *others, last = self.codebooks()
        for codebook in others:
            z_BD = z_BD - codebook.vectors()[codebook.nearest(z_BD)]
        return last.distances(z_BD, last.vectors())

    def decode(self, codes_BL: Tensor) -> Tensor:
        """The sum of the codes' vectors, [B, D]: the inverse of `encode`, up to the last residual."""
        codebooks = self.codebooks()
        total_BD = codebooks[0].vectors()[codes_BL[:, 0]]
        for level in range(1, len(codebooks)):
            total_BD = total_BD + codebooks[level].vectors()[codes_BL[:, level]]
        return total_BD

    @torch.no_grad()
    def initialize(self, z_BD: Tensor, generator: torch.Generator) -> None:
        """Set every codebook by k-means on the residuals of its level."""
        for codebook in self.codebooks():
            if codebook.projection is not None:
                codebook.projection.copy_(torch.eye(z_BD.shape[1]))
            size = len(codebook.weight)
            centroids_VD = kmeans(z_BD, size, generator=generator).centroids_VD
            codebook.set_codes(torch.arange(size, device=z_BD.device), centroids_VD)
            z_BD = z_BD - codebook.vectors()[codebook.nearest(z_BD)]

    @torch.no_grad()
    def reset_dead_codes(self, z_BD: Tensor, generator: torch.Generator) -> list[int]:
        """Move codes that none of `z_BD` uses onto residuals that their level fits badly.

        A new place is drawn with probability ~ squared error. Returns how many codes moved on each level.
        """
        moved = []
        for codebook in self.codebooks():
            codes_B = codebook.nearest(z_BD)
            counts_V = torch.bincount(codes_B, minlength=len(codebook.weight))
            dead = (counts_V == 0).nonzero().squeeze(1)
            errors_B = (z_BD - codebook.vectors()[codes_B]).square().sum(1).double().cpu()
            dead = dead[: int((errors_B > 0).sum())]
            if len(dead):
                rows = torch.multinomial(errors_B, len(dead), generator=generator).to(z_BD.device)
                codebook.set_codes(dead, z_BD[rows])
            moved.append(len(dead))
            z_BD = z_BD - codebook.vectors()[codebook.nearest(z_BD)]
        return moved


def squared_error(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """|a - b|^2 summed over the dimensions, averaged over the items."""
    return (a_BD - b_BD).square().sum(dim=-1).mean()
