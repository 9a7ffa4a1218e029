"""The RQ-VAE of TIGER (arXiv 2305.05065, section 3.1): an autoencoder whose latent is a sum of L codes.

Shapes: N items, B batch, I input dimensions, D latent dimensions, L levels, V codes of a level.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rqrec.core.hub import upload
from rqrec.tokenizer.embedding_chunks import Embeddings, check_shape, chunks, sample_rows
from rqrec.tokenizer.model_card import model_card
from rqrec.tokenizer.quantize import Distance, QuantizeMode, ResidualQuantizer, squared_error
from rqrec.tokenizer.reference_checkpoints import convert, is_reference_checkpoint
from rqrec.tokenizer.saved_tokenizer import (
    check_settings,
    check_tensors,
    read_saved_tokenizer,
    write_saved_tokenizer,
)

CHUNK_ROWS = 8192  # of a catalogue at a time: 25 MB at 768 dimensions


@dataclass(frozen=True)
class RqVaeConfig:
    """What an RQ-VAE is made of. Raises ValueError where the values contradict each other.

    input_dim: dimensions of an item embedding, categorical features included.
    embed_dim: dimensions of the latent and of the codes.
    hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
    codebook_size: codes of a level, one number for all levels or one per level.
    n_layers: levels, the length of a semantic ID before the code that makes it unique.
    commitment_weight: the beta of equation 2, which holds the encoder to its codes.
    mode: how the gradient passes the quantiser.
    distance: what makes a code the nearest.
    codebook_normalize: the latent and the first level's codes have unit length. Later levels hold residuals,
        which have no length in common, and stay free.
    sim_vq: codes are a fixed table times a learned matrix (arXiv 2411.02038).
    ema_decay: codes follow the moving average of their residuals with this decay, instead of a gradient.
    n_cat_features: how many of the last input dimensions are 0/1 features, fitted by binary cross-entropy.
    """

    input_dim: int
    embed_dim: int = 32
    hidden_dims: tuple[int, ...] = (512, 256, 128)
    codebook_size: int | tuple[int, ...] = 256
    n_layers: int = 3
    commitment_weight: float = 0.25
    mode: QuantizeMode = QuantizeMode.ROTATION_TRICK
    distance: Distance = Distance.L2
    codebook_normalize: bool = False
    sim_vq: bool = False
    ema_decay: float | None = None
    n_cat_features: int = 0

    def __post_init__(self) -> None:
        # JSON has no tuples and no enums: accept what it gives back.
        object.__setattr__(self, "hidden_dims", tuple(self.hidden_dims))
        if not isinstance(self.codebook_size, int):
            object.__setattr__(self, "codebook_size", tuple(self.codebook_size))
        object.__setattr__(self, "mode", _member(QuantizeMode, "mode", self.mode))
        object.__setattr__(self, "distance", _member(Distance, "distance", self.distance))
        for name in ("input_dim", "embed_dim", "n_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if any(width < 1 for width in self.hidden_dims):
            raise ValueError(f"hidden_dims is {self.hidden_dims}; every width must be at least 1.")
        if len(self.codebook_sizes) != self.n_layers:
            raise ValueError(
                f"codebook_size has {len(self.codebook_sizes)} values for n_layers={self.n_layers} levels: "
                f"give one for all levels, or one per level."
            )
        if any(size < 2 for size in self.codebook_sizes):
            raise ValueError(f"codebook_size is {self.codebook_size}; a level needs at least 2 codes.")
        if not 0 <= self.n_cat_features < self.input_dim:
            raise ValueError(
                f"n_cat_features is {self.n_cat_features}; it must be from 0 to input_dim - 1 = "
                f"{self.input_dim - 1}."
            )
        if self.commitment_weight < 0:
            raise ValueError(f"commitment_weight is {self.commitment_weight}; it must not be negative.")
        if self.ema_decay is not None:
            if not 0 < self.ema_decay < 1:
                raise ValueError(f"ema_decay is {self.ema_decay}; it must be between 0 and 1.")
            if self.sim_vq or self.mode is QuantizeMode.GUMBEL_SOFTMAX:
                raise ValueError(
                    "ema_decay moves codes without a gradient; sim_vq and GUMBEL_SOFTMAX learn them by one. "
                    "Leave ema_decay out, or the other."
                )

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level, [L]."""
        if isinstance(self.codebook_size, int):
            return (self.codebook_size,) * self.n_layers
        return self.codebook_size


class RqVaeOutput(NamedTuple):
    """Losses of a batch, each a scalar: summed over dimensions (and levels), averaged over items.

    `loss` is reconstruction + codebook + commitment_weight x commitment. The reconstruction loss is in the
    units of the standardised input. `codes_BL` is int64; `reconstruction_BI` is in the input's own units,
    with probabilities in place of the categorical features.
    """

    loss: Tensor
    reconstruction_loss: Tensor
    codebook_loss: Tensor
    commitment_loss: Tensor
    codes_BL: Tensor
    reconstruction_BI: Tensor


class RqVae(nn.Module):
    """Item embeddings in, semantic IDs out.

    In order: `fit_normalizer`, `initialize_codebooks`, then train on `forward(...).loss`. `initialized` is
    a buffer that says whether the codebooks were set from data.
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
        """Where the parameters lie."""
        return self.input_mean_I.device

    @torch.no_grad()
    def fit_normalizer(self, x_NI: Embeddings) -> None:
        """Standardise inputs from now on: each dimension's mean to 0, the mean variance to 1.

        One scale for all dimensions keeps their proportions. Categorical features stay as they are. Reads
        `x_NI` once, in chunks.
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
        # A set without any variance (one item) has nothing to scale.
        self.input_scale_I.fill_(1.0)[dense] = scale if scale > 1e-12 else 1.0

    @torch.no_grad()
    def initialize_codebooks(
        self, x_NI: Embeddings, generator: torch.Generator, sample_size: int = 65_536
    ) -> None:
        """Set the codebooks by k-means, level by level on the residuals of a random sample of items."""
        check_shape(x_NI, self.config.input_dim)
        self.quantizer.initialize(self._latents(sample_rows(x_NI, sample_size, generator)), generator)
        self.initialized.fill_(True)

    @torch.no_grad()
    def reset_dead_codes(
        self, x_NI: Embeddings, generator: torch.Generator, sample_size: int = 65_536
    ) -> list[int]:
        """Move codes that no item (of a random sample) uses to where items are fitted badly.

        Returns how many codes moved on each level.
        """
        check_shape(x_NI, self.config.input_dim)
        latents_ND = self._latents(sample_rows(x_NI, sample_size, generator))
        return self.quantizer.reset_dead_codes(latents_ND, generator)

    def encode(self, x_BI: Tensor) -> Tensor:
        """The latent before quantisation, [B, D]."""
        z_BD = self.encoder((x_BI - self.input_mean_I) / self.input_scale_I)
        return F.normalize(z_BD, dim=-1) if self.config.codebook_normalize else z_BD

    def forward(self, x_BI: Tensor, temperature: float = 1.0) -> RqVaeOutput:
        """Losses, codes and reconstruction of a batch, float [B, I].

        `temperature` matters in training with GUMBEL_SOFTMAX only; see `annealed_temperature`.
        """
        z_BD = self.encode(x_BI)
        # Distances and their differences need float32, also under mixed precision.
        with torch.autocast(x_BI.device.type, enabled=False):
            quantized = self.quantizer(z_BD.float(), temperature)
        decoded_BI = self.decoder(quantized.latent_BD)
        with torch.autocast(x_BI.device.type, enabled=False):
            reconstruction_loss = self._reconstruction_loss(decoded_BI.float(), x_BI.float())
        loss = (
            reconstruction_loss
            + quantized.codebook_loss
            + self.config.commitment_weight * quantized.commitment_loss
        )
        return RqVaeOutput(
            loss,
            reconstruction_loss,
            quantized.codebook_loss,
            quantized.commitment_loss,
            quantized.codes_BL,
            self._to_input_units(decoded_BI),
        )

    @torch.no_grad()
    def semantic_ids(self, x_NI: Embeddings) -> Tensor:
        """The codes of each item, int64 [N, L], on the device of `x_NI`: the nearest code at every level.

        The same in training and evaluation mode. Reads `x_NI` in chunks, so a memory map may be larger than
        the memory. Raises ValueError on another dimension and on values that are not finite.
        """
        device = x_NI.device if isinstance(x_NI, Tensor) else torch.device("cpu")
        parts = [self.quantizer.encode(self.encode(x_BI)).to(device) for x_BI in self._chunks(x_NI)]
        return torch.cat(parts)

    @torch.no_grad()
    def last_level_costs(self, x_NI: Embeddings) -> Tensor:
        """The distance of each item to each code of its last level, [N, V], for `reassign`."""
        return torch.cat(
            [self.quantizer.last_level_distances(self.encode(x_BI)) for x_BI in self._chunks(x_NI)]
        )

    @torch.no_grad()
    def reconstruct(self, x_NI: Embeddings) -> Tensor:
        """What the decoder makes of each item's codes, float32 [N, I], on the device of `x_NI`."""
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
        """Read a folder, a `.pt` file or a Hugging Face repository, also of the reference implementation.

        The model comes in evaluation mode, on the CPU. Raises FileNotFoundError, ConnectionError or
        ValueError with the reason.
        """
        checkpoint = read_saved_tokenizer(source)
        if is_reference_checkpoint(checkpoint):
            checkpoint = convert(checkpoint)
        check_settings({field.name for field in fields(RqVaeConfig)}, {"input_dim"}, checkpoint)
        model = cls(RqVaeConfig(**checkpoint.settings))
        check_tensors(model.state_dict(), checkpoint)
        model.load_state_dict(checkpoint.tensors)
        return model.eval()

    def push_to_hub(
        self, repo_id: str, *, data: str, figures: Mapping[str, float], private: bool = False
    ) -> str:
        """Put the model on Hugging Face with a model card that tells its `data` and `figures`; gives the URL.

        Raises ConnectionError where the hub cannot be reached or refuses.
        """
        card = model_card(repo_id, "RqVae", "rqrec", asdict(self.config), data=data, figures=figures)
        return upload(repo_id, self.save_pretrained, card, private=private)

    def _chunks(self, x_NI: Embeddings, device: torch.device | None = None) -> Iterator[Tensor]:
        return chunks(x_NI, CHUNK_ROWS, dim=self.config.input_dim, device=device or self.device)

    def _latents(self, x_NI: Embeddings) -> Tensor:
        return torch.cat([self.encode(x_BI) for x_BI in self._chunks(x_NI)])

    def _reconstruction_loss(self, decoded_BI: Tensor, x_BI: Tensor) -> Tensor:
        """Squared error of the dense part, binary cross-entropy of the categorical one (from logits)."""
        target_BI = (x_BI - self.input_mean_I) / self.input_scale_I
        dense = self.config.input_dim - self.config.n_cat_features
        loss = squared_error(decoded_BI[:, :dense], target_BI[:, :dense])
        if self.config.n_cat_features:
            entropy_BC = F.binary_cross_entropy_with_logits(
                decoded_BI[:, dense:], target_BI[:, dense:], reduction="none"
            )
            loss = loss + entropy_BC.sum(dim=-1).mean()
        return loss

    def _to_input_units(self, decoded_BI: Tensor) -> Tensor:
        dense = self.config.input_dim - self.config.n_cat_features
        values_BI = decoded_BI * self.input_scale_I + self.input_mean_I
        return torch.cat([values_BI[:, :dense], decoded_BI[:, dense:].sigmoid()], dim=-1)


def _mlp(widths: Sequence[int]) -> nn.Sequential:
    """Linear maps without bias, with a ReLU between two of them; the output starts at the input's scale."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        linear = nn.Linear(fan_in, fan_out, bias=False)
        is_last = len(layers) == 2 * (len(widths) - 2)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="linear" if is_last else "relu")
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _member(kind: Any, name: str, value: Any) -> Any:
    try:
        return kind(value.lower())
    except (ValueError, AttributeError):
        allowed = ", ".join(member.value for member in kind)
        raise ValueError(f"{name} is {value!r}; allowed are {allowed}.") from None
