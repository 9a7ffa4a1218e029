"""`python train_rqvae.py configs/rqvae_amazon.gin`: the item tokenizer."""

from collections.abc import Sequence
from pathlib import Path

from rqrec.data.embeddings import read_embeddings
from rqrec.data.text import DEFAULT_MODEL
from rqrec.progress import say
from rqrec.scripts.hub import check_push, find_vae, push_vae
from rqrec.scripts.inputs import describe, inputs_of
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.training.checkpoint import Keeping
from rqrec.training.loop import LoopSettings
from rqrec.training.processes import Processes
from rqrec.training.rqvae import train_rqvae
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
    settings = LoopSettings(
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
        keeping=Keeping(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
    )
    say(f"The tokenizer is in {root / 'model'}.")
    if push_vae_to_hf and vae_hf_model_name and processes.is_first:
        push_vae(root / "model", vae_hf_model_name, describe(dataset, dataset_split))
    return root / "model"
