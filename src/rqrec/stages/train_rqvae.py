"""`python train_rqvae.py configs/rqvae_amazon.gin`: the item tokenizer."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rqrec.core.artifact import create, read_manifest
from rqrec.core.progress import log
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.data.encoders import DEFAULT_MODEL
from rqrec.stages.inputs import describe, inputs_of
from rqrec.stages.pretrained import check_push, find_vae, push_vae
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.training.checkpoint import CheckpointManager
from rqrec.training.loop import LoopConfig, fit
from rqrec.training.processes import Processes
from rqrec.training.rqvae import RqVaeTask
from rqrec.training.tracking import check_wandb


def train(
    iterations: int = 10_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    warmup: int = 50,
    schedule: str = "cosine",
    max_minutes: float | None = None,
    ema_decay: float | None = None,
    max_grad_norm: float | None = 1.0,
    gradient_accumulate_every: int = 1,
    split_batches: bool = True,
    amp: bool = True,
    mixed_precision_type: str = "auto",
    torch_compile: bool = False,
    dataset: str = "custom",
    dataset_folder: str = "dataset/custom",
    dataset_split: str = "beauty",
    text_encoder: str = DEFAULT_MODEL,
    force_dataset_process: bool = False,
    save_dir_root: str = "out/rqvae",
    save_model_every: int = 1000,
    keep_last: int = 2,
    resume: str = "auto",
    wandb_logging: bool = False,
    pretrained_rqvae_path: str | None = None,
    push_vae_to_hf: bool = False,
    vae_hf_model_name: str | None = None,
    use_kmeans_init: bool = True,
    reset_dead_codes_every: int = 50,
    do_eval: bool = True,
    eval_every: int = 0,
    commitment_weight: float = 0.25,
    vae_input_dim: int | None = None,
    vae_n_cat_feats: int = 0,
    vae_embed_dim: int = 32,
    vae_hidden_dims: Sequence[int] = (512, 256, 128),
    vae_codebook_size: int = 256,
    vae_codebook_normalize: bool = False,
    vae_codebook_mode: str = "ROTATION_TRICK",
    vae_sim_vq: bool = False,
    vae_n_layers: int = 3,
    seed: int = 0,
) -> Path:
    """Train an RQ-VAE on a dataset's item embeddings; returns the folder of the artefact.

    The artefact is `save_dir_root/model`, the logs are in `save_dir_root/logs`, and the checkpoints of an
    unfinished run, which `resume="auto"` goes on with, in `save_dir_root/checkpoints`. `do_eval` judges on the
    items that a custom folder's `is_train.npy` leaves out. Sizes that the embeddings know (`vae_input_dim`)
    need not be given. `amp` switches on mixed precision of `mixed_precision_type`: "bf16", "fp16",
    or "auto": bf16 where the machine gains by it.
    Of several processes, `batch_size` is that of all together, or of each with `split_batches=False`.
    `pretrained_rqvae_path` gives the weights to start from: a folder, a `.pt` file or a hub repository.
    """
    check_push(push_vae_to_hf, vae_hf_model_name)
    if wandb_logging:
        check_wandb()
    processes = Processes.join()
    inputs = processes.from_first(
        lambda: inputs_of(
            dataset, Path(dataset_folder), dataset_split, text_encoder, force=force_dataset_process
        )
    )
    plain = inputs.dataset is None
    dim = read_embeddings(inputs.embeddings, do_eval=do_eval and plain).vectors.shape[1]
    config = RqVaeConfig(
        input_dim=vae_input_dim or dim,
        embed_dim=vae_embed_dim,
        hidden_dims=tuple(vae_hidden_dims),
        codebook_size=vae_codebook_size,
        n_layers=vae_n_layers,
        commitment_weight=commitment_weight,
        mode=vae_codebook_mode,  # type: ignore[arg-type]  # checked and turned into the enum
        codebook_normalize=vae_codebook_normalize,
        sim_vq=vae_sim_vq,
        n_cat_features=vae_n_cat_feats,
    )
    settings = LoopConfig(
        iterations=iterations,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule=schedule,
        max_minutes=max_minutes,
        ema_decay=ema_decay,
        max_grad_norm=max_grad_norm,
        gradient_accumulate_every=gradient_accumulate_every,
        eval_every=eval_every,
        mixed_precision=mixed_precision_type if amp else "no",
        compile=torch_compile,
        seed=seed,
    )
    root = Path(save_dir_root)
    start_from = None
    if pretrained_rqvae_path is not None:
        path = pretrained_rqvae_path
        start_from = processes.from_first(lambda: find_vae(path, {}, root / "start" / "rqvae"))
    train_rqvae(
        inputs.embeddings,
        root / "model",
        config,
        settings,
        batch_size=processes.global_batch_size(batch_size, split_batches=split_batches),
        reset_every=reset_dead_codes_every,
        use_kmeans_init=use_kmeans_init,
        do_eval=do_eval and plain,
        start_from=start_from,
        checkpoints=CheckpointManager(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
    )
    log(f"The tokenizer is in {root / 'model'}.")
    if push_vae_to_hf and vae_hf_model_name and processes.is_first:
        push_vae(root / "model", vae_hf_model_name, describe(dataset, dataset_split))
    return root / "model"


def train_rqvae(
    embeddings_folder: Path,
    folder: Path,
    config: RqVaeConfig,
    settings: LoopConfig,
    *,
    batch_size: int,
    reset_every: int = 0,
    use_kmeans_init: bool = True,
    do_eval: bool = False,
    start_from: Path | None = None,
    checkpoints: CheckpointManager | None = None,
) -> RqVae:
    """Train an RQ-VAE on an embeddings folder and write the artefact of kind "rqvae".

    With `do_eval` the folder's `is_train.npy` says which items train; the others only judge. `batch_size`
    counts the rows of all processes. `start_from` is an "rqvae" artefact whose weights, input standardisation
    included, are the first ones. `checkpoints` says where the run is kept until it is finished; its settings
    and inputs are filled in here.
    """
    embeddings = read_embeddings(embeddings_folder, do_eval=do_eval)
    train_ND, judged_ND = embeddings.train_and_eval() if do_eval else (embeddings.vectors, None)
    if train_ND.shape[1] != config.input_dim:
        raise ValueError(
            f"vae_input_dim is {config.input_dim}, but the embeddings in {embeddings_folder} have "
            f"{train_ND.shape[1]} dimensions. Leave vae_input_dim out, or make it equal."
        )
    processes = Processes.join()
    if max(config.codebook_sizes) > len(train_ND):
        log(
            f"A level has {max(config.codebook_sizes)} codes for {len(train_ND)} items: some codes will stay empty. "
            f"A smaller vae_codebook_size would do."
        )
    torch.manual_seed(settings.seed)
    model = RqVae(config)
    task = RqVaeTask(model, train_ND, settings.iterations, batch_size, settings.seed, reset_every, judged_ND)
    made_with = {"model": asdict(config), "training": asdict(settings), "batch_size": batch_size}
    made_with |= {"reset_every": reset_every, "use_kmeans_init": use_kmeans_init, "do_eval": do_eval}
    inputs = {"embeddings": embeddings_hash(embeddings_folder)}
    if start_from:
        _load_weights(model, start_from)
        inputs["start"] = read_manifest(start_from, "rqvae").hash
    else:
        task.start(use_kmeans_init=use_kmeans_init)
    if checkpoints:
        checkpoints = replace(checkpoints, settings=made_with, inputs=inputs)
    history = fit(task, settings, "Training the RQ-VAE", checkpoints)
    facts = {
        "items": len(train_ND),
        **history.validation[-1],
        "stopped": history.stopped,
        "processes": processes.count,
    }
    if processes.is_first:
        with create(folder, "rqvae", settings=made_with, inputs=inputs, metrics=facts) as target:
            model.save_pretrained(target)
            history.write(target)
        if checkpoints:
            checkpoints.clear()
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
    inputs = {"embeddings": embeddings_hash(embeddings_folder)}
    with create(folder, "rqvae", settings={"trained": False, "seed": seed}, inputs=inputs) as target:
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
