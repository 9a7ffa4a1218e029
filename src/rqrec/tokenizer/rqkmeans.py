"""RQ-k-means: semantic IDs by k-means on the residuals of the embeddings, without gradient training.

Shapes: N items, B rows of a chunk, I input dimensions, D clustered dimensions, L levels, V codes of a level.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from rqrec.core.hub import upload
from rqrec.tokenizer.balance import balanced_kmeans
from rqrec.tokenizer.embedding_chunks import FITTED_ROWS, Embeddings, check_shape, chunks, sample_rows
from rqrec.tokenizer.kmeans import kmeans, squared_distances
from rqrec.tokenizer.model_card import model_card
from rqrec.tokenizer.rqkmeans_config import RqKMeansConfig
from rqrec.tokenizer.saved_tokenizer import (
    SavedTokenizer,
    read_saved_tokenizer,
    restored,
    write_saved_tokenizer,
)

CHUNK_ROWS = 8192


class RqKMeans(nn.Module):
    """Tokenizer with the interface of `RqVae`, fitted by `fit` instead of gradient training.

    With `balance`, every code has a price, and an item is assigned to the code with the lowest squared
    distance + price. The prices are part of the model, so the codes of an item do not depend on the other
    items of a call.
    """

    def __init__(self, config: RqKMeansConfig) -> None:
        super().__init__()
        self.config = config
        for level, size in enumerate(config.codebook_sizes):
            self.register_buffer(
                f"centroids_{level}", torch.zeros(size, config.whiten_dim or config.input_dim)
            )
            self.register_buffer(f"prices_{level}", torch.zeros(size))
        if config.whiten_dim is not None:
            self.register_buffer("mean_I", torch.zeros(config.input_dim))
            self.register_buffer("whiten_ID", torch.zeros(config.input_dim, config.whiten_dim))
            self.register_buffer("unwhiten_DI", torch.zeros(config.whiten_dim, config.input_dim))

    @property
    def device(self) -> torch.device:
        """Device of the centroids."""
        return self.get_buffer("centroids_0").device

    @torch.no_grad()
    def fit(self, x_NI: Embeddings, generator: torch.Generator) -> None:
        """Fit the centroids of each level to the residuals of a random sample of items, at most `FITTED_ROWS`.

        `x_NI` float [N, I], a tensor or an array (memory maps are read in chunks); `generator` must be a CPU
        generator. Raises ValueError on a wrong shape or dtype and on NaN or infinite values.
        """
        check_shape(x_NI, self.config.input_dim)
        sample = sample_rows(x_NI, FITTED_ROWS, generator)
        if self.config.whiten_dim is not None:
            self._fit_whitening(torch.cat(list(self._inputs(sample))), self.config.whiten_dim)
        residual_ND = torch.cat(list(self._chunks(sample)))
        for level, size in enumerate(self.config.codebook_sizes):
            centroids_VD = kmeans(residual_ND, size, generator=generator).centroids_VD
            prices_V = torch.zeros(size, device=self.device)
            if self.config.balance is not None:
                capacity = math.ceil(self.config.balance * len(residual_ND) / size)
                centroids_VD, prices_V = balanced_kmeans(residual_ND, centroids_VD, capacity)
            self.get_buffer(f"centroids_{level}").copy_(centroids_VD)
            self.get_buffer(f"prices_{level}").copy_(prices_V)
            codes_N = self._level_codes(residual_ND, level)
            residual_ND = residual_ND - centroids_VD[codes_N]

    @torch.no_grad()
    def semantic_ids(self, x_NI: Embeddings) -> Tensor:
        """Codes of each item, int64 [N, L], without the deduplication code; see `RqVae.semantic_ids`."""
        device = x_NI.device if isinstance(x_NI, Tensor) else torch.device("cpu")
        return torch.cat([self._encode(x_BD).to(device) for x_BD in self._chunks(x_NI)])

    @torch.no_grad()
    def last_level_costs(self, x_NI: Embeddings) -> Tensor:
        """Cost of each code of the last level for each item, [N, V]: squared distance + price."""
        parts = []
        last = self.config.n_layers - 1
        for x_BD in self._chunks(x_NI):
            codes_BL = self._encode(x_BD)
            centroids_VD = self.get_buffer(f"centroids_{last}")
            residual_BD = x_BD - self.decode(codes_BL) + centroids_VD[codes_BL[:, last]]
            parts.append(squared_distances(residual_BD, centroids_VD) + self.get_buffer(f"prices_{last}"))
        return torch.cat(parts)

    @torch.no_grad()
    def reconstruct(self, x_NI: Embeddings) -> Tensor:
        """Reconstruction of each item from its codes (the sum of its centroids), float32 [N, I]."""
        device = x_NI.device if isinstance(x_NI, Tensor) else torch.device("cpu")
        parts = []
        for x_BD in self._chunks(x_NI):
            rebuilt_BD = self.decode(self._encode(x_BD))
            if self.config.whiten_dim is not None:
                rebuilt_BD = rebuilt_BD @ self.get_buffer("unwhiten_DI") + self.get_buffer("mean_I")
            parts.append(rebuilt_BD.to(device))
        return torch.cat(parts)

    def decode(self, codes_BL: Tensor) -> Tensor:
        """The sum of the centroids of codes, float32 [B, D]; a deduplication code at the end is ignored."""
        parts = [self.get_buffer(f"centroids_{i}")[codes_BL[:, i]] for i in range(self.config.n_layers)]
        return torch.stack(parts).sum(0)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors` into `folder`."""
        write_saved_tokenizer(Path(folder), asdict(self.config), self.state_dict())

    @classmethod
    def from_pretrained(cls, source: Path | str) -> "RqKMeans":
        """Load from a folder, a `.pt` file or a Hugging Face repository; errors as in `RqVae.from_pretrained`."""
        return cls.from_saved(read_saved_tokenizer(source))

    @classmethod
    def from_saved(cls, saved: SavedTokenizer) -> "RqKMeans":
        """Build the model from what was read; errors as in `from_pretrained`."""
        return restored(saved, RqKMeansConfig, cls)

    def push_to_hub(
        self, repo_id: str, *, data: str, figures: Mapping[str, float], private: bool = False
    ) -> str:
        """Upload the model to the Hugging Face Hub with a model card; see `RqVae.push_to_hub`."""
        settings = asdict(self.config)
        card = model_card(
            repo_id, "RqKMeans", "rqrec.tokenizer.rqkmeans", settings, data=data, figures=figures
        )
        return upload(repo_id, self.save_pretrained, card, private=private)

    def _fit_whitening(self, x_NI: Tensor, dim: int) -> None:
        mean_I = x_NI.mean(0)
        variances_I, directions_II = torch.linalg.eigh((x_NI - mean_I).double().T.cov(correction=0))
        # Floor the variances at 1e-6 of the largest: directions without variance would be scaled up to noise.
        scales_D = variances_I[-dim:].clamp_min(1e-6 * float(variances_I[-1]) + 1e-30).sqrt()
        self.get_buffer("mean_I").copy_(mean_I)
        self.get_buffer("whiten_ID").copy_(directions_II[:, -dim:] / scales_D)
        self.get_buffer("unwhiten_DI").copy_(directions_II[:, -dim:].T * scales_D[:, None])

    def _inputs(self, x_NI: Embeddings) -> Iterator[Tensor]:
        return chunks(x_NI, CHUNK_ROWS, dim=self.config.input_dim, device=self.device)

    def _chunks(self, x_NI: Embeddings) -> Iterator[Tensor]:
        """Chunks [B, D] of the vectors to cluster: the embeddings or their whitened principal components."""
        for x_BI in self._inputs(x_NI):
            if self.config.whiten_dim is None:
                yield x_BI
            else:
                yield (x_BI - self.get_buffer("mean_I")) @ self.get_buffer("whiten_ID")

    def _level_codes(self, residual_BD: Tensor, level: int) -> Tensor:
        centroids_VD, prices_V = self.get_buffer(f"centroids_{level}"), self.get_buffer(f"prices_{level}")
        parts = residual_BD.split(CHUNK_ROWS)
        return torch.cat([(squared_distances(part, centroids_VD) + prices_V).argmin(1) for part in parts])

    def _encode(self, residual_BD: Tensor) -> Tensor:
        codes = []
        for level in range(self.config.n_layers):
            codes.append(self._level_codes(residual_BD, level))
            residual_BD = residual_BD - self.get_buffer(f"centroids_{level}")[codes[-1]]
        return torch.stack(codes, dim=1)
