"""The RQ-VAE of TIGER (arXiv 2305.05065, section 3.1): an autoencoder with a residual-quantised latent.

Shapes: N items, B batch, I input dimensions, C categorical features, D latent dimensions, L levels, V codes of a
level.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rqrec.core.hub import upload
from rqrec.core.values import (
    CodebookSize,
    Depth,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    Width,
)
from rqrec.tokenizer.embedding_chunks import FITTED_ROWS, Embeddings, check_shape, chunks, sample_rows
from rqrec.tokenizer.levels_config import LevelsConfig
from rqrec.tokenizer.model_card import model_card
from rqrec.tokenizer.quantize import Distance, QuantizeMode, ResidualQuantizer
from rqrec.tokenizer.reference_checkpoints import convert, is_reference_checkpoint
from rqrec.tokenizer.saved_tokenizer import (
    SavedTokenizer,
    read_saved_tokenizer,
    restored,
    write_saved_tokenizer,
)

CHUNK_ROWS = 8192  # items encoded at a time: 25 MB at 768 dimensions


@dataclass(frozen=True)
class RqVaeConfig(LevelsConfig):
    """Settings of an RQ-VAE. Raises ValueError on values out of range or contradictory."""

    input_dim: PositiveInt
    """Dimensions of an item embedding, including the categorical features."""
    embed_dim: Width = 32
    """Dimensions of the latent and of the code vectors."""
    hidden_dims: tuple[Width, ...] = (512, 256, 128)
    """Widths of the encoder's hidden layers; the decoder has them in reverse order."""
    codebook_size: CodebookSize | tuple[CodebookSize, ...] = 256
    """Codes per level: one number for all levels, or one per level."""
    n_layers: Depth = 3
    """Number of levels: codes per item, without the deduplication code."""
    quantization_weight: NonNegativeFloat = 4.0
    """Weight of the quantisation loss (codebook loss + commitment_weight x commitment loss) beside the reconstruction
    loss: the more, the fewer collisions and the larger the reconstruction error."""
    commitment_weight: NonNegativeFloat = 0.25
    """Weight of the commitment loss, which keeps latents close to their codes (beta in equation 2)."""
    mode: QuantizeMode = QuantizeMode.ROTATION_TRICK
    """Gradient estimator of the quantiser: ROTATION_TRICK (arXiv 2410.06424), STE or GUMBEL_SOFTMAX."""
    distance: Distance = Distance.L2
    """Distance that defines the nearest code: l2 (squared) or cosine."""
    codebook_normalize: bool = False
    """Scale the latent and the codes of the first level to unit length; later levels hold residuals."""
    sim_vq: bool = False
    """SimVQ (arXiv 2411.02038): codes are a fixed random table times a learned matrix."""
    ema_decay: Fraction | None = None
    """Decay of the moving averages that update the codes instead of a gradient, 0 to 1; None: gradient."""
    n_cat_features: NonNegativeInt = 0
    """Number of 0/1 features at the end of the input, reconstructed with binary cross-entropy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_cat_features >= self.input_dim:
            raise ValueError(
                f"n_cat_features is {self.n_cat_features}, but must be below input_dim = {self.input_dim}."
            )
        if self.ema_decay is not None and (self.sim_vq or self.mode is QuantizeMode.GUMBEL_SOFTMAX):
            raise ValueError(
                "ema_decay updates codes without a gradient, but sim_vq and GUMBEL_SOFTMAX need one: set "
                "ema_decay to None, or use neither of these."
            )


class RqVaeOutput(NamedTuple):
    """Result of `RqVae.forward`.

    The losses are scalars, averaged over dimensions and the items of the batch: their proportions do not depend on
    the number of dimensions, of the input or of the latent.
    """

    loss: Tensor
    """reconstruction_loss + quantization_weight x (codebook_loss + commitment_weight x commitment_loss)."""
    reconstruction_loss: Tensor
    """In units of the standardised input."""
    codebook_loss: Tensor
    """Pulls the codes towards the residuals."""
    commitment_loss: Tensor
    """Pulls the latents towards their codes; not weighted."""
    codes_BL: Tensor
    """int64 [B, L]."""


class RqVae(nn.Module):
    """Tokenizer: item embeddings in, semantic IDs out (arXiv 2305.05065, section 3.1).

    To train: `fit_normalizer`, `initialize_codebooks`, then minimise `forward(...).loss`; with `ema_decay`, call
    `quantizer.ema_update()` after each optimizer step. To use: `semantic_ids` and `reconstruct`. The buffer
    `initialized` is True once the codebooks were initialised from data.
    """

    input_mean_I: Tensor
    input_scale_I: Tensor
    initialized: Tensor

    def __init__(self, config: RqVaeConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.input_dim, *config.hidden_dims, config.embed_dim)
        self.encoder = _mlp(widths)
        self.decoder = _mlp(widths[::-1])
        self.quantizer = ResidualQuantizer(
            config.codebook_sizes,
            config.embed_dim,
            mode=config.mode,
            distance=config.distance,
            sim_vq=config.sim_vq,
            normalize_first=config.codebook_normalize,
            ema_decay=config.ema_decay,
        )
        self.register_buffer("input_mean_I", torch.zeros(config.input_dim))
        self.register_buffer("input_scale_I", torch.ones(config.input_dim))
        self.register_buffer("initialized", torch.tensor(False))

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.input_mean_I.device

    @torch.no_grad()
    def fit_normalizer(self, x_NI: Embeddings) -> None:
        """Fit the input standardisation to `x_NI`, float [N, I]: mean 0 per dimension, mean variance 1.

        A single scale for all dimensions keeps their proportions. Categorical features are not standardised.
        Reads `x_NI` once, in chunks. Raises ValueError on a wrong shape or dtype and on NaN or infinite values.
        """
        total_I = torch.zeros(self.config.input_dim, dtype=torch.float64)
        squares_I = torch.zeros_like(total_I)
        for x_BI in self._chunks(x_NI, device=torch.device("cpu")):
            total_I += x_BI.double().sum(0)
            squares_I += x_BI.double().square().sum(0)
        mean_I = total_I / len(x_NI)
        variance_I = (squares_I / len(x_NI) - mean_I.square()).clamp_min(0)
        dense = slice(0, self.config.input_dim - self.config.n_cat_features)
        scale = float(variance_I[dense].mean().sqrt())
        self.input_mean_I.zero_()[dense] = mean_I[dense].float()
        # Without variance (a single item) there is nothing to scale.
        self.input_scale_I.fill_(1.0)[dense] = scale if scale > 1e-12 else 1.0

    @torch.no_grad()
    def initialize_codebooks(self, x_NI: Embeddings, generator: torch.Generator) -> None:
        """Initialise the codebooks by k-means on the residuals of a random sample of items, level by level.

        `x_NI` float [N, I]; `generator` must be a CPU generator. Raises ValueError like `fit_normalizer`.
        """
        check_shape(x_NI, self.config.input_dim)
        self.quantizer.initialize(self._latents(sample_rows(x_NI, FITTED_ROWS, generator)), generator)
        self.initialized.fill_(True)

    @torch.no_grad()
    def reset_dead_codes(
        self, x_NI: Embeddings, generator: torch.Generator, rows_per_code: int = 64
    ) -> list[int]:
        """Replace codes that no item of a random sample uses by residuals with a large error.

        The sample has `rows_per_code` items for each code of the largest codebook. Returns the number of codes
        replaced on each level. Raises ValueError like `fit_normalizer`.
        """
        check_shape(x_NI, self.config.input_dim)
        sample_size = rows_per_code * max(self.config.codebook_sizes)
        latents_ND = self._latents(sample_rows(x_NI, sample_size, generator))
        return self.quantizer.reset_dead_codes(latents_ND, generator)

    def encode(self, x_BI: Tensor) -> Tensor:
        """The latent before quantisation, [B, D], of inputs float [B, I]."""
        z_BD = self.encoder((x_BI - self.input_mean_I) / self.input_scale_I)
        return F.normalize(z_BD, dim=-1) if self.config.codebook_normalize else z_BD

    def forward(self, x_BI: Tensor, temperature: float = 1.0) -> RqVaeOutput:
        """Losses and codes of a batch, float [B, I].

        `temperature` is used in training with GUMBEL_SOFTMAX only; see `annealed_temperature`.
        """
        z_BD = self.encode(x_BI)
        # Distances need float32, also under mixed precision.
        with torch.autocast(x_BI.device.type, enabled=False):
            quantized = self.quantizer(z_BD.float(), temperature)
        decoded_BI = self.decoder(quantized.latent_BD)
        with torch.autocast(x_BI.device.type, enabled=False):
            reconstruction_loss = self._reconstruction_loss(decoded_BI.float(), x_BI.float())
        config = self.config
        quantization_loss = quantized.codebook_loss + config.commitment_weight * quantized.commitment_loss
        loss = reconstruction_loss + config.quantization_weight * quantization_loss
        return RqVaeOutput(
            loss,
            reconstruction_loss,
            quantized.codebook_loss,
            quantized.commitment_loss,
            quantized.codes_BL,
        )

    @torch.no_grad()
    def semantic_ids(self, x_NI: Embeddings) -> Tensor:
        """Codes of each item, int64 [N, L], without the deduplication code: the nearest code at every level.

        `x_NI` is a float tensor or array [N, I]; it is read in chunks, so a memory map may exceed the memory.
        The result is on the device of a tensor, on the CPU for an array. Training mode makes no difference.
        Raises ValueError on a wrong shape or dtype and on NaN or infinite values.
        """
        device = x_NI.device if isinstance(x_NI, Tensor) else torch.device("cpu")
        parts = [self.quantizer.encode(self.encode(x_BI)).to(device) for x_BI in self._chunks(x_NI)]
        return torch.cat(parts)

    @torch.no_grad()
    def last_level_costs(self, x_NI: Embeddings) -> Tensor:
        """Distance of each item to each code of the last level, [N, V], for `rqrec.tokenizer.collisions.reassign`."""
        return torch.cat(
            [self.quantizer.last_level_distances(self.encode(x_BI)) for x_BI in self._chunks(x_NI)]
        )

    def decode(self, codes_BL: Tensor) -> Tensor:
        """The sum of the code vectors of codes, [B, D]; a deduplication code at the end is ignored."""
        return self.quantizer.decode(codes_BL)

    @torch.no_grad()
    def reconstruct(self, x_NI: Embeddings) -> Tensor:
        """Reconstruction of each item from its codes, float32 [N, I]; device and errors as in `semantic_ids`.

        Categorical features are returned as probabilities.
        """
        device = x_NI.device if isinstance(x_NI, Tensor) else torch.device("cpu")
        parts = []
        for x_BI in self._chunks(x_NI):
            latent_BD = self.quantizer.decode(self.quantizer.encode(self.encode(x_BI)))
            parts.append(self._to_input_units(self.decoder(latent_BD)).to(device))
        return torch.cat(parts)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` into `folder`."""
        write_saved_tokenizer(Path(folder), asdict(self.config), self.state_dict())

    @classmethod
    def from_pretrained(cls, source: Path | str) -> "RqVae":
        """Load from a folder, a `.pt` file or the id of a Hugging Face repository (owner/name).

        Checkpoints of the reference implementation are converted. The model is on the CPU, in evaluation mode.
        Raises FileNotFoundError if there is no such source, ConnectionError if the hub cannot be reached, and
        ValueError if files are damaged, or settings and tensors contradict each other.
        """
        return cls.from_saved(read_saved_tokenizer(source))

    @classmethod
    def from_saved(cls, saved: SavedTokenizer) -> "RqVae":
        """Build the model from what was read; errors as in `from_pretrained`."""
        if is_reference_checkpoint(saved):
            saved = convert(saved)
        return restored(saved, RqVaeConfig, cls)

    def push_to_hub(
        self, repo_id: str, *, data: str, figures: Mapping[str, float], private: bool = False
    ) -> str:
        """Upload the model to the Hugging Face Hub and return its URL.

        The model card states `data` (a description of the training data) and `figures` (metrics by name).
        Raises ConnectionError if the hub cannot be reached or rejects the upload.
        """
        card = model_card(repo_id, "RqVae", "rqrec", asdict(self.config), data=data, figures=figures)
        return upload(repo_id, self.save_pretrained, card, private=private)

    def _chunks(self, x_NI: Embeddings, device: torch.device | None = None) -> Iterator[Tensor]:
        return chunks(x_NI, CHUNK_ROWS, dim=self.config.input_dim, device=device or self.device)

    def _latents(self, x_NI: Embeddings) -> Tensor:
        return torch.cat([self.encode(x_BI) for x_BI in self._chunks(x_NI)])

    def _reconstruction_loss(self, decoded_BI: Tensor, x_BI: Tensor) -> Tensor:
        """Squared error of the dense features + binary cross-entropy of the categorical ones (from logits)."""
        target_BI = (x_BI - self.input_mean_I) / self.input_scale_I
        dense = self.config.input_dim - self.config.n_cat_features
        losses_BI = (decoded_BI[:, :dense] - target_BI[:, :dense]).square()
        if self.config.n_cat_features:
            entropy_BC = F.binary_cross_entropy_with_logits(
                decoded_BI[:, dense:], target_BI[:, dense:], reduction="none"
            )
            losses_BI = torch.cat([losses_BI, entropy_BC], dim=1)
        return losses_BI.mean()

    def _to_input_units(self, decoded_BI: Tensor) -> Tensor:
        dense = self.config.input_dim - self.config.n_cat_features
        values_BI = decoded_BI * self.input_scale_I + self.input_mean_I
        return torch.cat([values_BI[:, :dense], decoded_BI[:, dense:].sigmoid()], dim=-1)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers without bias, with ReLU between them, initialised to preserve the scale of the input."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out, bias=False)
        is_last = len(layers) == 2 * (len(widths) - 2)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if is_last else "relu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
