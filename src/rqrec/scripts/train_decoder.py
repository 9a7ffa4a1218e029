"""`python train_decoder.py configs/decoder_amazon.gin`: the retrieval model."""

from pathlib import Path
from typing import Any

import torch

from rqrec.artifact import create, find, read_manifest
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.data.text import DEFAULT_MODEL
from rqrec.progress import say
from rqrec.retrieval.architectures import architecture as architecture_named
from rqrec.scripts.inputs import Inputs, inputs_of
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.tokenize import tokenize
from rqrec.training.decoder import train_decoder
from rqrec.training.loop import LoopSettings


def train(
    iterations: int = 10_000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup: int = 100,
    max_grad_norm: float | None = 1.0,
    gradient_accumulate_every: int = 1,
    amp: bool = False,
    mixed_precision_type: str = "bf16",
    dataset: str = "amazon",
    dataset_folder: str = "dataset/amazon",
    dataset_split: str = "beauty",
    text_encoder: str = DEFAULT_MODEL,
    force_dataset_process: bool = False,
    pretrained_rqvae_path: str | None = None,
    save_dir_root: str = "out/decoder",
    full_eval_every: int = 1000,
    architecture: str = "decoder_only",
    model_type: str | None = None,
    max_items: int | None = None,
    attn_dropout: float | None = None,
    attn_heads: int | None = None,
    attn_embed_dim: int | None = None,
    attn_layers: int | None = None,
    decoder_embed_dim: int | None = None,
    label_smoothing: float | None = None,
    vae_embed_dim: int = 32,
    vae_codebook_size: int = 256,
    vae_n_layers: int = 3,
    seed: int = 0,
) -> Path:
    """Train a retrieval model on semantic IDs of a frozen RQ-VAE; returns the folder of the artefact.

    `architecture` is "decoder_only", "encoder_decoder" or "hierarchical"; `model_type` is the name that
    older configurations have for it. Its sizes that are not given (`max_items`, `attn_`,
    `decoder_embed_dim`, `label_smoothing`) are the architecture's own defaults.

    The artefact is `save_dir_root/retrieval`, its semantic IDs `save_dir_root/semantic_ids`, the log for
    TensorBoard `save_dir_root/logs`. Without `pretrained_rqvae_path` the RQ-VAE is initialised at random and
    only the `vae_` sizes shape it; with it, the checkpoint knows them.
    """
    config_class = architecture_named(architecture if model_type is None else model_type).config
    inputs = inputs_of(
        dataset, Path(dataset_folder), dataset_split, text_encoder, force=force_dataset_process
    )
    if inputs.dataset is None:
        raise ValueError(
            f"{dataset_folder} holds embeddings alone; a retrieval model needs interactions too: put "
            "log.parquet (user_id, item_id, timestamp) beside them."
        )
    root = Path(save_dir_root)
    if pretrained_rqvae_path is None:
        config = RqVaeConfig(
            input_dim=read_embeddings(inputs.embeddings).vectors.shape[1],
            embed_dim=vae_embed_dim,
            codebook_size=vae_codebook_size,
            n_layers=vae_n_layers,
        )
        rqvae = _random_rqvae(inputs, config, root / "rqvae", seed)
    else:
        rqvae = find(Path(pretrained_rqvae_path), "rqvae")
    tokenize(rqvae, inputs.embeddings, inputs.item_ids(), root / "semantic_ids")
    settings = LoopSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        max_grad_norm=max_grad_norm,
        gradient_accumulate_every=gradient_accumulate_every,
        eval_every=full_eval_every,
        mixed_precision=mixed_precision_type if amp else "no",
        seed=seed,
    )
    sizes: dict[str, Any] = {
        "max_items": max_items,
        "decoder_embed_dim": decoder_embed_dim,
        "attn_embed_dim": attn_embed_dim,
        "attn_heads": attn_heads,
        "attn_layers": attn_layers,
        "attn_dropout": attn_dropout,
        "label_smoothing": label_smoothing,
    }
    config_of_decoder = config_class(
        level_sizes=SemanticIdTable.read(root / "semantic_ids").level_sizes,
        **{name: size for name, size in sizes.items() if size is not None},
    )
    train_decoder(
        inputs.dataset,
        root / "semantic_ids",
        root / "retrieval",
        config_of_decoder,
        settings,
        batch_size=batch_size,
        log_folder=root / "logs",
    )
    best = read_manifest(root / "retrieval", "retrieval").facts["validation"]
    say(f"The retrieval model is in {root / 'retrieval'}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return root / "retrieval"


def _random_rqvae(inputs: Inputs, config: RqVaeConfig, folder: Path, seed: int) -> Path:
    """An RQ-VAE as it is before training: its codes are those of a random projection."""
    torch.manual_seed(seed)
    model = RqVae(config)
    vectors = read_embeddings(inputs.embeddings).vectors
    model.fit_normalizer(vectors)
    model.initialize_codebooks(vectors, torch.Generator().manual_seed(seed))
    made_from = {"embeddings": embeddings_hash(inputs.embeddings)}
    with create(folder, "rqvae", settings={"trained": False, "seed": seed}, made_from=made_from) as target:
        model.save_pretrained(target)
    return folder
