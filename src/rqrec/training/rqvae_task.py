"""Training of the RQ-VAE tokenizer on item embeddings.

Shapes: N items, D width of an embedding, B batch, L levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rqrec.tokenizer.embedding_chunks import Embeddings
from rqrec.tokenizer.quantize import annealed_temperature
from rqrec.tokenizer.rqvae import RqVae
from rqrec.tokenizer.semantic_ids import collision_rate, level_usage
from rqrec.training.loop import seed_of
from rqrec.training.run_progress import RunProgress
from rqrec.training.task import Task

HEALTH_ITEMS = 100_000  # maximum number of items in a validation
LAST_RESET = 0.8  # of the run
COLLAPSED = (
    0.1  # a codebook whose perplexity is below this fraction of the largest possible one has collapsed
)


@dataclass
class RqVaeTask(Task):
    """Learns to reconstruct embeddings from codes."""

    model: RqVae
    train_ND: Embeddings
    batch_size: int
    seed: int
    reset_every: int = 0
    """Number of steps between resets of dead codes; 0 never resets. The last fifth of the run has no resets, so that
    replaced codes have time to converge."""
    held_out_ND: Embeddings | None = None
    """Embeddings of items outside the training set, to measure the reconstruction error; None skips this."""

    shardable = False  # resets change the weights

    def __post_init__(self) -> None:
        self._epoch, self._batches = -1, -(-len(self.train_ND) // self.batch_size)
        self._order_N = np.zeros(0, dtype=np.int64)

    def start(self, *, use_kmeans_init: bool = True) -> None:
        """Fit the input standardisation and, with `use_kmeans_init`, initialise the codebooks by k-means."""
        self.model.fit_normalizer(self.train_ND)
        if use_kmeans_init:
            generator = torch.Generator().manual_seed(self.seed)
            self.model.initialize_codebooks(self.train_ND, generator)

    def batch(self, number: int) -> Tensor:
        """Training embeddings float32 [B, D], every one once per epoch, reshuffled each epoch.

        An epoch is cut into the fewest batches of at most `batch_size` rows, whose sizes differ by one row at most: a
        small last batch would count for a whole step.
        """
        epoch, index = divmod(number, self._batches)
        n_items = len(self.train_ND)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order_N = np.random.default_rng([self.seed, epoch]).permutation(n_items)
        start, end = (place * n_items // self._batches for place in (index, index + 1))
        # Ascending rows are faster to read from a memory map.
        rows_B = np.sort(self._order_N[start:end])
        return torch.from_numpy(np.asarray(self.train_ND[rows_B], dtype=np.float32))

    def weight(self, batch: Any) -> float:
        """The number of rows."""
        return len(batch)

    def loss(
        self, model: nn.Module, batch: Any, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Reconstruction, codebook and commitment loss; the Gumbel-softmax temperature is annealed over the run."""
        output = model(batch, annealed_temperature(progress.fraction))
        parts: dict[str, Tensor | float] = {
            "reconstruction": output.reconstruction_loss,
            "codebook": output.codebook_loss,
            "commitment": output.commitment_loss,
        }
        return output.loss, parts

    def on_step_end(self, progress: RunProgress) -> Mapping[str, float]:
        """Update codes that follow moving averages, and reset dead codes if a reset is due."""
        self.model.quantizer.ema_update()
        due = self.reset_every and progress.step % self.reset_every == 0
        if due and progress.scheduled_step < LAST_RESET * progress.iterations:
            generator = torch.Generator().manual_seed(seed_of(self.seed, progress.step))
            self.model.reset_dead_codes(self.train_ND, generator)
        return {"temperature": annealed_temperature(progress.fraction)}

    def validate(self) -> Mapping[str, float]:
        """Codebook usage and collision rate on the training items, reconstruction error on the held-out items."""
        codes_NL = self.model.semantic_ids(self.train_ND[:HEALTH_ITEMS]).numpy()
        levels = level_usage(codes_NL, self.model.config.codebook_sizes)
        metrics = {f"usage_level_{level}": usage.usage for level, usage in enumerate(levels)}
        metrics |= {f"perplexity_level_{level}": usage.perplexity for level, usage in enumerate(levels)}
        metrics["collision_rate"] = collision_rate(codes_NL)
        if self.held_out_ND is not None and len(self.held_out_ND):
            held_out_ND = torch.from_numpy(np.asarray(self.held_out_ND[:HEALTH_ITEMS], dtype=np.float32))
            error_ND = self.model.reconstruct(held_out_ND) - held_out_ND
            metrics["held_out_mse"] = float(error_ND.square().mean())
        return metrics

    def health_warnings(self, metrics: Mapping[str, float]) -> Sequence[str]:
        """One warning per collapsed codebook, with its usage, its perplexity and the collision rate."""
        items = min(len(self.train_ND), HEALTH_ITEMS)
        warnings = []
        for level, size in enumerate(self.model.config.codebook_sizes):
            perplexity = metrics[f"perplexity_level_{level}"]
            if perplexity < COLLAPSED * min(size, items):
                warnings.append(
                    f"the codebook of level {level} has collapsed: {metrics[f'usage_level_{level}']:.1%} of its "
                    f"{size} codes are used, perplexity {perplexity:.1f}, collision rate "
                    f"{metrics['collision_rate']:.1%}. Use k-means initialisation (use_kmeans_init=True), "
                    f"reset_dead_codes_every, or a smaller vae_codebook_size."
                )
        return warnings
