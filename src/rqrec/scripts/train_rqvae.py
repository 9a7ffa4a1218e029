"""`python train_rqvae.py configs/rqvae_amazon.gin`: the item tokenizer."""

from collections.abc import Sequence
from pathlib import Path

from rqrec.data.embeddings import read_embeddings
from rqrec.data.text import DEFAULT_MODEL
from rqrec.progress import say
from rqrec.scripts.inputs import inputs_of
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.training.checkpoint import Keeping
from rqrec.training.loop import LoopSettings
from rqrec.training.rqvae import train_rqvae


def train(
    iterations: int = 10_000,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    warmup: int = 50,
    max_grad_norm: float | None = 1.0,
    gradient_accumulate_every: int = 1,
    amp: bool = False,
    mixed_precision_type: str = "bf16",
    dataset: str = "custom",
    dataset_folder: str = "dataset/custom",
    dataset_split: str = "beauty",
    text_encoder: str = DEFAULT_MODEL,
    force_dataset_process: bool = False,
    save_dir_root: str = "out/rqvae",
    save_model_every: int = 1000,
    keep_last: int = 2,
    resume: str = "auto",
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

    The artefact is `save_dir_root/model`, the log for TensorBoard `save_dir_root/logs`. `do_eval` judges on
    the items that a custom folder's `is_train.npy` leaves out. Sizes that the embeddings know
    (`vae_input_dim`) need not be given. `amp` switches on mixed precision of `mixed_precision_type`.
    """
    inputs = inputs_of(
        dataset, Path(dataset_folder), dataset_split, text_encoder, force=force_dataset_process
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
        max_grad_norm=max_grad_norm,
        gradient_accumulate_every=gradient_accumulate_every,
        eval_every=eval_every,
        mixed_precision=mixed_precision_type if amp else "no",
        seed=seed,
    )
    root = Path(save_dir_root)
    train_rqvae(
        inputs.embeddings,
        root / "model",
        config,
        settings,
        batch_size=batch_size,
        reset_every=reset_dead_codes_every,
        use_kmeans_init=use_kmeans_init,
        do_eval=do_eval and plain,
        keeping=Keeping(root, save_every=save_model_every, keep_last=keep_last, resume=resume),
    )
    say(f"The tokenizer is in {root / 'model'}.")
    return root / "model"
