"""`python train_rqvae.py configs/rqvae_amazon.gin`: train an RQ-VAE, the item tokenizer.

Shapes: N items, D width of an embedding.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from rqrec.core.artifact import create, file_hash, read_manifest, reuse
from rqrec.core.config import check_fields_of
from rqrec.core.progress import log
from rqrec.core.tensors import check_memory
from rqrec.core.values import Config, NonNegativeInt, PositiveInt
from rqrec.data.embeddings import (
    IS_TRAIN_FILE,
    embeddings_hash,
    embeddings_protocol,
    is_plain,
    read_embeddings,
)
from rqrec.data.protocols import common_protocol, protocol_of
from rqrec.stages.pretrained import check_push, check_same_model, find_vae, push_vae
from rqrec.stages.raw_data import DataConfig, inputs_from_raw
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.training.checkpoint import CheckpointConfig, CheckpointManager
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.processes import Processes
from rqrec.training.rqvae_task import RqVaeTask
from rqrec.training.tracking import check_wandb

# Setting names of the fields of RqVaeConfig that are not "vae_" followed by the field's name.
VAE_NAMES = {
    "n_cat_features": "vae_n_cat_feats",
    "mode": "vae_codebook_mode",
    "commitment_weight": "commitment_weight",
    "ema_decay": "vae_codebook_ema_decay",
}


@dataclass(frozen=True)
class TrainRqVaeConfig(Config):
    """How an RQ-VAE is trained."""

    ALIASES: ClassVar = {"eval_every": "full_eval_every"}

    data: DataConfig = DataConfig(dataset="custom", dataset_folder=Path("dataset/custom"))
    loop: LoopConfig = LoopConfig(
        iterations=10_000, learning_rate=5e-3, weight_decay=1e-4, warmup=50, amp=True
    )
    checkpoints: CheckpointConfig = CheckpointConfig(Path("out/rqvae"))
    rqvae: Mapping[str, Any] = field(
        default_factory=dict, metadata={"fields_of": RqVaeConfig, "prefix": "vae_", "names": VAE_NAMES}
    )
    """Fields of RqVaeConfig; `vae_input_dim` may be left out, it is that of the embeddings."""
    batch_size: PositiveInt = 256
    """Items per optimizer step over all processes (per process with split_batches=False)."""
    split_batches: bool = True
    """Whether batch_size counts the items of all processes together."""
    use_kmeans_init: bool = True
    """Initialise the codebooks by k-means."""
    reset_dead_codes_every: NonNegativeInt = 50
    """Steps between resets of codes that no item uses; 0: never."""
    do_eval: bool = True
    """Evaluate on the items that `is_train.npy` of a custom folder marks False."""
    pretrained_rqvae_path: str | None = None
    """Weights to start from: a folder, a .pt file or a Hugging Face repository."""
    push_vae_to_hf: bool = False
    """Push the trained tokenizer to Hugging Face."""
    vae_hf_model_name: str | None = None
    """Repository to push to, as owner/name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields_of(self, "rqvae", RqVaeConfig, input_dim=sys.maxsize)


def train_rqvae(config: TrainRqVaeConfig, *, embeddings: Path | None = None) -> Path:
    """Train an RQ-VAE on item embeddings; returns the artefact `save_dir_root/rqvae`.

    `embeddings` is a folder of embeddings; without it, they are made from the raw data that `config.data` names.
    An artefact with the same settings and inputs is reused; an unfinished run is resumed.

    Raises ValueError for settings that contradict each other or the embeddings, or if `save_dir_root/rqvae` was
    made differently.
    """
    check_push(config.push_vae_to_hf, config.vae_hf_model_name)
    if config.checkpoints.wandb_logging:
        check_wandb()
    processes = Processes.join()
    folder = embeddings or processes.from_first(lambda: inputs_from_raw(config.data)).embeddings
    # Only a plain folder can say which items are held out: stages that write embeddings do not.
    do_eval = config.do_eval and is_plain(folder)
    unread = config.data.dataset_folder / IS_TRAIN_FILE
    if config.do_eval and not do_eval and embeddings is None and unread.is_file():
        log(
            f"{unread} has no effect on a folder with interactions: the tokenizer is trained on all items. Pass the "
            f"folder with --embeddings to hold items out."
        )
    out = config.checkpoints.save_dir_root / "rqvae"
    start = None
    if source := config.pretrained_rqvae_path:
        start_folder = config.checkpoints.save_dir_root / "start" / "rqvae"
        start = processes.from_first(lambda: find_vae(source, {}, start_folder))
    _train(config, folder, out, start, do_eval=do_eval)
    log(f"The tokenizer is in {out}.")
    if config.push_vae_to_hf and config.vae_hf_model_name and processes.is_first:
        push_vae(out, config.vae_hf_model_name, config.data.describe())
    return out


def _train(config: TrainRqVaeConfig, folder: Path, out: Path, start: Path | None, *, do_eval: bool) -> None:
    """Train on the embeddings in `folder`, from the weights of the artefact `start` if there is one."""
    embeddings = read_embeddings(folder, do_eval=do_eval)
    train_ND, held_out_ND = embeddings.train_and_eval() if do_eval else (embeddings.vectors, None)
    model_config = RqVaeConfig(**{"input_dim": train_ND.shape[1], **config.rqvae})
    if train_ND.shape[1] != model_config.input_dim:
        raise ValueError(
            f"vae_input_dim is {model_config.input_dim}, but the embeddings in {folder} have {train_ND.shape[1]} "
            f"dimensions. Leave vae_input_dim out, or make it equal."
        )
    processes = Processes.join()
    batch_size = processes.global_batch_size(config.batch_size, split_batches=config.split_batches)
    learned = {str(folder): embeddings_protocol(folder)}
    if start:
        learned[str(start)] = protocol_of(read_manifest(start, "rqvae"))
    settings = {
        "model": asdict(model_config),
        "training": asdict(config.loop),
        "batch_size": batch_size,
        "reset_dead_codes_every": config.reset_dead_codes_every,
        "use_kmeans_init": config.use_kmeans_init,
        "do_eval": do_eval,
        "protocol": common_protocol(learned),
    }
    inputs = {"embeddings": embeddings_hash(folder)}
    if do_eval:
        inputs["is_train"] = file_hash(folder / IS_TRAIN_FILE)
    if start:
        inputs["start"] = read_manifest(start, "rqvae").hash
    checkpoints = CheckpointManager(config.checkpoints, settings, inputs)
    if processes.from_first(lambda: checkpoints.finished(out, "rqvae")):
        return
    if max(model_config.codebook_sizes) > len(train_ND):
        log(
            f"A level has {max(model_config.codebook_sizes)} codes for {len(train_ND)} items: some codes will stay "
            f"unused. Consider a smaller vae_codebook_size."
        )
    check_memory(lambda: RqVae(model_config))
    torch.manual_seed(config.loop.seed)
    model = RqVae(model_config)
    task = RqVaeTask(
        model,
        train_ND,
        batch_size,
        config.loop.seed,
        config.reset_dead_codes_every,
        held_out_ND,
    )
    if start:
        _load_weights(model, start)
    else:
        task.start(use_kmeans_init=config.use_kmeans_init)
    history = fit(task, config.loop, "Training the RQ-VAE", checkpoints)
    metrics = {
        "items": len(train_ND),
        **history.validation[-1],
        "stopped": history.stopped,
        "precision": history.precision,
        **processes.numbers,
    }
    if processes.is_first:
        with checkpoints.finish(out, "rqvae", metrics) as target:
            model.save_pretrained(target)
            history.write(target)
    processes.wait()


def make_untrained(
    embeddings: Path,
    out: Path,
    sizes: Mapping[str, Any],
    seed: int,
    *,
    force: bool = False,
    how_to_replace: str = "--force",
) -> Path:
    """Write an untrained RQ-VAE as an "rqvae" artefact, or reuse it.

    Its encoder is a random projection, and its codebooks are initialised by k-means on the encoder's outputs.
    `sizes` are fields of RqVaeConfig; the input dimension is that of the embeddings unless it is given.
    """
    vectors_ND = read_embeddings(embeddings).vectors
    config = RqVaeConfig(**{"input_dim": vectors_ND.shape[1], **sizes})
    protocol = embeddings_protocol(embeddings)
    settings = {"trained": False, "seed": seed, "model": asdict(config), "protocol": protocol}
    inputs = {"embeddings": embeddings_hash(embeddings)}
    if reuse(out, "rqvae", settings, inputs, force=force, how_to_replace=how_to_replace):
        return out
    check_memory(lambda: RqVae(config))
    torch.manual_seed(seed)
    model = RqVae(config)
    model.fit_normalizer(vectors_ND)
    model.initialize_codebooks(vectors_ND, torch.Generator().manual_seed(seed))
    with create(out, "rqvae", settings=settings, inputs=inputs) as target:
        model.save_pretrained(target)
    return out


def _load_weights(model: RqVae, folder: Path) -> None:
    """Load the tensors of another RQ-VAE; its gradient estimator and loss weights may differ."""
    other = RqVae.from_pretrained(folder)
    may_differ = ("mode", "quantization_weight", "commitment_weight")
    wanted, given = (
        {k: v for k, v in asdict(m.config).items() if k not in may_differ} for m in (model, other)
    )
    check_same_model("train.pretrained_rqvae_path", folder, wanted, given, "Use the same settings")
    model.load_state_dict(other.state_dict())
