"""Training of the RQ-VAE tokenizer on item embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rqrec.tokenizer.embedding_chunks import Embeddings
from rqrec.tokenizer.quantize import annealed_temperature
from rqrec.tokenizer.rqvae import RqVae
from rqrec.tokenizer.semantic_ids import collision_rate, level_usage
from rqrec.training.loop import seed_of

HEALTH_SAMPLE = 100_000  # items on which usage and collisions are measured while training
COLLAPSED = 0.1  # a level whose perplexity is below this share of what it could be


@dataclass
class RqVaeTask:
    """Learns to reconstruct embeddings from codes.

    Codes that no item uses are moved every `reset_every` steps (0: never), over the first four fifths of the
    training, so that moved codes have time to settle.
    """

    model: RqVae
    train_ND: Embeddings
    iterations: int
    batch_size: int
    seed: int
    reset_every: int = 0
    judged_ND: Embeddings | None = None
    selects_on: str | None = field(default=None, init=False)
    shardable: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.batch_size = min(self.batch_size, len(self.train_ND))
        self._epoch = -1
        self._order_N = np.zeros(0, dtype=np.int64)

    def start(self, *, use_kmeans_init: bool = True) -> None:
        """Fit the input standardisation and set the codebooks by k-means."""
        self.model.fit_normalizer(self.train_ND)
        if use_kmeans_init:
            generator = torch.Generator().manual_seed(self.seed)
            self.model.initialize_codebooks(self.train_ND, generator)

    def batch(self, number: int) -> Tensor:
        """Rows of the training embeddings float32 [B, D], every row once an epoch."""
        epoch, place = divmod(number, len(self.train_ND) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order_N = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_ND))
        # Rising rows are quick to read from a memory map.
        rows_B = np.sort(self._order_N[place * self.batch_size : (place + 1) * self.batch_size])
        return torch.from_numpy(np.asarray(self.train_ND[rows_B], dtype=np.float32))

    def weight(self, batch: Any) -> float:
        """Its rows."""
        return len(batch)

    def loss(self, model: nn.Module, batch: Any, step: int) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Reconstruction, codebook and commitment loss; the Gumbel-softmax temperature follows the step."""
        output = model(batch, annealed_temperature(step, self.iterations))
        parts: dict[str, Tensor | float] = {
            "reconstruction": output.reconstruction_loss,
            "codebook": output.codebook_loss,
            "commitment": output.commitment_loss,
        }
        return output.loss, parts

    def on_step_end(self, step: int) -> Mapping[str, float]:
        """Move dead codes when it is time."""
        done = step + 1
        if self.reset_every and done % self.reset_every == 0 and done < 0.8 * self.iterations:
            generator = torch.Generator().manual_seed(seed_of(self.seed, done))
            self.model.reset_dead_codes(self.train_ND, generator)
        return {"temperature": annealed_temperature(done, self.iterations)}

    def validation_loss(self) -> Mapping[str, float]:
        """Nothing is quicker than `validate`."""
        return {}

    def validate(self) -> Mapping[str, float]:
        """Usage of each level and collisions over (a sample of) all items; error on held-out ones."""
        codes_NL = self.model.semantic_ids(self.train_ND[:HEALTH_SAMPLE]).numpy()
        levels = level_usage(codes_NL, self.model.config.codebook_sizes)
        metrics = {f"usage_level_{level}": measured.usage for level, measured in enumerate(levels)}
        metrics |= {f"perplexity_level_{level}": measured.perplexity for level, measured in enumerate(levels)}
        metrics["collision_rate"] = collision_rate(codes_NL)
        if self.judged_ND is not None and len(self.judged_ND):
            judged_ND = torch.from_numpy(np.asarray(self.judged_ND[:HEALTH_SAMPLE], dtype=np.float32))
            error_ND = self.model.reconstruct(judged_ND) - judged_ND
            metrics["held_out_mse"] = float(error_ND.square().mean())
        return metrics

    def health_warnings(self, measured: Mapping[str, float]) -> Sequence[str]:
        """Levels most of whose codes no item uses, with their usage, perplexity and the collision rate."""
        items = min(len(self.train_ND), HEALTH_SAMPLE)
        found = []
        for level, size in enumerate(self.model.config.codebook_sizes):
            perplexity = measured[f"perplexity_level_{level}"]
            if perplexity < COLLAPSED * min(size, items):
                found.append(
                    f"the codebook of level {level} collapses: {measured[f'usage_level_{level}']:.1%} of its "
                    f"{size} codes are used, perplexity {perplexity:.1f}, collision rate "
                    f"{measured['collision_rate']:.1%}. Use k-means initialisation (use_kmeans_init=True), "
                    f"reset_dead_codes_every, or a smaller vae_codebook_size."
                )
        return found
