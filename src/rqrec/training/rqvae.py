"""Training of the RQ-VAE tokenizer on item embeddings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rqrec.artifact import create, read_manifest
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.progress import say
from rqrec.tokenizer.inputs import Embeddings
from rqrec.tokenizer.quantize import annealed_temperature
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import collision_rate, level_usage
from rqrec.training.checkpoint import Keeping
from rqrec.training.loop import LoopSettings, fit, seed_of
from rqrec.training.processes import Processes

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

    def after_step(self, step: int) -> Mapping[str, float]:
        """Move dead codes when it is time."""
        done = step + 1
        if self.reset_every and done % self.reset_every == 0 and done < 0.8 * self.iterations:
            generator = torch.Generator().manual_seed(seed_of(self.seed, done))
            self.model.reset_dead_codes(self.train_ND, generator)
        return {"temperature": annealed_temperature(done, self.iterations)}

    def glance(self) -> Mapping[str, float]:
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

    def concerns(self, measured: Mapping[str, float]) -> Sequence[str]:
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
    start_from: Path | None = None,
    keeping: Keeping | None = None,
) -> RqVae:
    """Train an RQ-VAE on an embeddings folder and write the artefact of kind "rqvae".

    With `do_eval` the folder's `is_train.npy` says which items train; the others only judge. `batch_size`
    counts the rows of all processes. `start_from` is an "rqvae" artefact whose weights, input standardisation
    included, are the first ones. `keeping` says where the run is kept until it is finished; its settings
    and inputs are filled in here.
    """
    embeddings = read_embeddings(embeddings_folder, do_eval=do_eval)
    train_ND, judged_ND = embeddings.parts() if do_eval else (embeddings.vectors, None)
    if train_ND.shape[1] != config.input_dim:
        raise ValueError(
            f"vae_input_dim is {config.input_dim}, but the embeddings in {embeddings_folder} have "
            f"{train_ND.shape[1]} dimensions. Leave vae_input_dim out, or make it equal."
        )
    processes = Processes.join()
    if max(config.codebook_sizes) > len(train_ND):
        say(
            f"A level has {max(config.codebook_sizes)} codes for {len(train_ND)} items: some codes will stay empty. "
            f"A smaller vae_codebook_size would do."
        )
    torch.manual_seed(settings.seed)
    model = RqVae(config)
    task = RqVaeTask(model, train_ND, settings.iterations, batch_size, settings.seed, reset_every, judged_ND)
    made_with = {"model": asdict(config), "training": asdict(settings), "batch_size": batch_size}
    made_with |= {"reset_every": reset_every, "use_kmeans_init": use_kmeans_init, "do_eval": do_eval}
    made_from = {"embeddings": embeddings_hash(embeddings_folder)}
    if start_from:
        _load_weights(model, start_from)
        made_from["start"] = read_manifest(start_from, "rqvae").hash
    else:
        task.start(use_kmeans_init=use_kmeans_init)
    if keeping:
        keeping = replace(keeping, settings=made_with, made_from=made_from)
    history = fit(task, settings, "Training the RQ-VAE", keeping)
    facts = {
        "items": len(train_ND),
        **history.validation[-1],
        "stopped": history.stopped,
        "processes": processes.count,
    }
    if processes.is_first:
        with create(folder, "rqvae", settings=made_with, made_from=made_from, facts=facts) as target:
            model.save_pretrained(target)
            history.write(target)
        if keeping:
            keeping.clear()
    processes.wait()
    return model


def write_untrained(embeddings_folder: Path, folder: Path, sizes: Mapping[str, Any], seed: int) -> None:
    """Write an RQ-VAE as it is before training as an artefact of kind "rqvae".

    Its encoder is a random map, and its codebooks are set by k-means on what that gives. `sizes` are of
    RqVaeConfig; the input dimension is that of the embeddings unless it is among them.
    """
    torch.manual_seed(seed)
    vectors_ND = read_embeddings(embeddings_folder).vectors
    model = RqVae(RqVaeConfig(**{"input_dim": vectors_ND.shape[1], **sizes}))
    model.fit_normalizer(vectors_ND)
    model.initialize_codebooks(vectors_ND, torch.Generator().manual_seed(seed))
    made_from = {"embeddings": embeddings_hash(embeddings_folder)}
    with create(folder, "rqvae", settings={"trained": False, "seed": seed}, made_from=made_from) as target:
        model.save_pretrained(target)


def _load_weights(model: RqVae, folder: Path) -> None:
    """The tensors of another RQ-VAE; how gradients pass and what the losses weigh may differ."""
    other = RqVae.from_pretrained(folder)
    free = ("mode", "commitment_weight")
    wanted, found = asdict(model.config), asdict(other.config)
    differing = [
        f"{k} is {v} and was {found[k]}" for k, v in wanted.items() if v != found[k] and k not in free
    ]
    if differing:
        raise ValueError(
            f"train.pretrained_rqvae_path: {folder} is of another model: {'; '.join(differing)}. Give it the "
            f"same settings, or leave the path out."
        )
    model.load_state_dict(other.state_dict())
