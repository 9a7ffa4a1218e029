"""Training of the RQ-VAE tokenizer on item embeddings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rqrec.artifact import create
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.tokenizer.quantize import annealed_temperature
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import collision_rate, level_usage
from rqrec.training.loop import LoopSettings, fit

HEALTH_SAMPLE = 100_000  # items on which usage and collisions are measured while training


@dataclass
class RqVaeTask:
    """Learns to reconstruct embeddings from codes.

    Codes that no item uses are moved every `reset_every` steps (0: never), over the first four fifths of the
    training, so that moved codes have time to settle.
    """

    model: RqVae
    train_ND: NDArray[np.floating]
    iterations: int
    batch_size: int
    seed: int
    reset_every: int = 0
    judged_ND: NDArray[np.floating] | None = None
    selects_on: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.batch_size = min(self.batch_size, len(self.train_ND))
        self._generator = torch.Generator().manual_seed(self.seed)
        self._step, self._epoch = 0, -1
        self._order_N = np.zeros(0, dtype=np.int64)

    def start(self, *, use_kmeans_init: bool = True) -> None:
        """Fit the input standardisation and set the codebooks by k-means."""
        self.model.fit_normalizer(self.train_ND)
        if use_kmeans_init:
            self.model.initialize_codebooks(self.train_ND, self._generator)

    def batch(self, step: int) -> Tensor:
        """Rows of the training embeddings float32 [B, D], every row once an epoch."""
        epoch, place = divmod(step, len(self.train_ND) // self.batch_size)
        if epoch != self._epoch:
            self._epoch = epoch
            self._order_N = np.random.default_rng([self.seed, epoch]).permutation(len(self.train_ND))
        # Rising rows are quick to read from a memory map.
        rows_B = np.sort(self._order_N[place * self.batch_size : (place + 1) * self.batch_size])
        return torch.from_numpy(np.asarray(self.train_ND[rows_B], dtype=np.float32))

    def loss(self, model: nn.Module, batch: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """Reconstruction, codebook and commitment loss."""
        output = model(batch.to(self.model.device), self.temperature)
        parts: dict[str, Tensor | float] = {
            "reconstruction": output.reconstruction_loss,
            "codebook": output.codebook_loss,
            "commitment": output.commitment_loss,
        }
        return output.loss, parts

    @property
    def temperature(self) -> float:
        """The Gumbel-softmax temperature of the current step."""
        return annealed_temperature(self._step, self.iterations)

    def after_step(self, step: int) -> Mapping[str, float]:
        """Anneal, and move dead codes when it is time."""
        self._step = step + 1
        if self.reset_every and self._step % self.reset_every == 0 and self._step < 0.8 * self.iterations:
            self.model.reset_dead_codes(self.train_ND, self._generator)
        return {"temperature": self.temperature}

    def validate(self, step: int) -> Mapping[str, float]:
        """Usage of each level and collisions over (a sample of) all items; error on held-out ones."""
        codes_NL = self.model.semantic_ids(self.train_ND[:HEALTH_SAMPLE]).numpy()
        levels = level_usage(codes_NL, self.model.config.codebook_sizes)
        metrics = {f"usage_level_{level}": measured.usage for level, measured in enumerate(levels)}
        metrics |= {f"perplexity_level_{level}": measured.perplexity for level, measured in enumerate(levels)}
        metrics["collision_rate"] = collision_rate(codes_NL)
        if self.judged_ND is not None:
            judged_ND = torch.from_numpy(np.asarray(self.judged_ND[:HEALTH_SAMPLE], dtype=np.float32))
            error_ND = self.model.reconstruct(judged_ND) - judged_ND
            metrics["held_out_mse"] = float(error_ND.square().mean())
        return metrics


def train_rqvae(
    embeddings_folder: Path,
    folder: Path,
    config: RqVaeConfig,
    settings: LoopSettings,
    *,
    batch_size: int,
    reset_every: int = 0,
    use_kmeans_init: bool = True,
    do_eval: bool = False,
    log_folder: Path | None = None,
) -> RqVae:
    """Train an RQ-VAE on an embeddings folder and write the artefact of kind "rqvae".

    With `do_eval` the folder's `is_train.npy` says which items train; the others only judge.
    """
    embeddings = read_embeddings(embeddings_folder, do_eval=do_eval)
    train_ND, judged_ND = embeddings.vectors, None
    if do_eval and embeddings.is_train is not None:
        train_ND, judged_ND = train_ND[embeddings.is_train], train_ND[~embeddings.is_train]
    if train_ND.shape[1] != config.input_dim:
        raise ValueError(
            f"vae_input_dim is {config.input_dim}, but the embeddings in {embeddings_folder} have "
            f"{train_ND.shape[1]} dimensions. Leave vae_input_dim out, or make it equal."
        )
    torch.manual_seed(settings.seed)
    model = RqVae(config)
    task = RqVaeTask(model, train_ND, settings.iterations, batch_size, settings.seed, reset_every, judged_ND)
    task.start(use_kmeans_init=use_kmeans_init)
    history = fit(task, settings, "Training the RQ-VAE", log_folder)
    made_with = {"model": asdict(config), "training": asdict(settings), "batch_size": batch_size}
    made_from = {"embeddings": embeddings_hash(embeddings_folder)}
    facts = {"items": len(train_ND), **history.validation[-1]}
    with create(folder, "rqvae", settings=made_with, made_from=made_from, facts=facts) as target:
        model.save_pretrained(target)
        history.write(target)
    return model
