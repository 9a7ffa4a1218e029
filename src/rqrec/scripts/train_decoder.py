"""`python train_decoder.py configs/decoder_amazon.gin`: the retrieval model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rqrec.artifact import read_manifest
from rqrec.data.embeddings import embeddings_hash
from rqrec.data.text import DEFAULT_MODEL
from rqrec.progress import say
from rqrec.retrieval.architectures import architecture as architecture_named
from rqrec.scripts.hub import check_push, find_vae, push_vae
from rqrec.scripts.inputs import Inputs, describe, inputs_of
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.tokenize import open_tokenizer, tokenize
from rqrec.training.checkpoint import Keeping
from rqrec.training.decoder import train_decoder
from rqrec.training.loop import LoopSettings
from rqrec.training.processes import Processes
from rqrec.training.rqvae import write_untrained
from rqrec.training.tracking import check_wandb

VAE_NAMES = {"n_cat_features": "n_cat_feats"}  # where a configuration's word is another one than the model's


def train(
    iterations: int = 10_000,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.05,
    warmup: int = 100,
    schedule: str = "cosine",
    patience: int = 0,
    max_minutes: float | None = None,
    ema_decay: float | None = None,
    max_grad_norm: float | None = 1.0,
    gradient_accumulate_every: int = 1,
    split_batches: bool = True,
    amp: bool = True,
    mixed_precision_type: str = "auto",
    torch_compile: bool = False,
    dataset: str = "amazon",
    dataset_folder: str = "dataset/amazon",
    dataset_split: str = "beauty",
    text_encoder: str = DEFAULT_MODEL,
    force_dataset_process: bool = False,
    train_data_subsample: bool = True,
    split: str = "leave_one_out",
    pretrained_rqvae_path: str | None = None,
    pretrained_decoder_path: str | None = None,
    save_dir_root: str = "out/decoder",
    save_model_every: int = 1000,
    keep_last: int = 2,
    resume: str = "auto",
    wandb_logging: bool = False,
    push_vae_to_hf: bool = False,
    vae_hf_model_name: str | None = None,
    partial_eval_every: int = 0,
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
    user_buckets: int | None = None,
    time_gaps: int | None = None,
    tie_codes: bool | None = None,
    memory: bool = False,
    vae_input_dim: int | None = None,
    vae_n_cat_feats: int | None = None,
    vae_embed_dim: int | None = None,
    vae_hidden_dims: Sequence[int] | None = None,
    vae_codebook_size: int | None = None,
    vae_codebook_normalize: bool | None = None,
    vae_sim_vq: bool | None = None,
    vae_n_layers: int | None = None,
    seed: int = 0,
) -> Path:
    """Train a retrieval model on semantic IDs of a frozen RQ-VAE; returns the folder of the artefact.

    `architecture` is "decoder_only", "encoder_decoder" or "hierarchical"; `model_type` is the name that
    older configurations have for it. Its sizes that are not given (`max_items`, `attn_`,
    `decoder_embed_dim`, `label_smoothing`) are the architecture's own defaults. So is `tie_codes`: whether the
    embeddings of codes are also what generates them (only decoder_only does unless told).

    `user_buckets` (such as 2000) gives each user one of so many tokens, by the hash of the id; `time_gaps`
    (such as 16) tells the model how long before each item the last one was taken, in so many steps from a
    minute to two years. Both are off at 0. `time_gaps` is refused where the source kept no time.

    The artefact is `save_dir_root/retrieval`, its semantic IDs `save_dir_root/semantic_ids`; the logs are in
    `save_dir_root/logs`, and the checkpoints of an unfinished run, which `resume="auto"` goes on with, in
    `save_dir_root/checkpoints`. Without `pretrained_rqvae_path` (a folder, a `.pt` file or a hub repository)
    the RQ-VAE is initialised at random and the `vae_` sizes shape it; with it, the checkpoint knows them, and
    a size that contradicts it is refused. `pretrained_decoder_path` gives the weights to start from.

    `memory=True` joins a memory of which items go together, and are alike, to the trained model: recommendations
    then come from a mixture of both, whose share is chosen on the validation split (docs/retrieval.md).

    `split` is "leave_one_out", or "temporal": one moment for all users parts training from what comes later.
    `partial_eval_every` looks at the validation loss, `full_eval_every` ranks the catalogue for each user.
    `train_data_subsample=False` cuts long sequences at the same places in every epoch. `amp` switches on mixed
    precision of `mixed_precision_type`: "bf16", "fp16", or "auto": bf16 where the machine gains by it. Of several
    processes, `batch_size` is that of all together, or of each with `split_batches=False`.
    """
    config_class = architecture_named(architecture if model_type is None else model_type).config
    check_push(push_vae_to_hf, vae_hf_model_name)
    if wandb_logging:
        check_wandb()
    processes = Processes.join()
    inputs = processes.from_first(
        lambda: inputs_of(
            dataset, Path(dataset_folder), dataset_split, text_encoder, force=force_dataset_process
        )
    )
    if inputs.dataset is None:
        raise ValueError(
            f"{dataset_folder} holds embeddings alone; a retrieval model needs interactions too: put "
            "log.parquet (user_id, item_id, timestamp) beside them."
        )
    root = Path(save_dir_root)
    given = {
        "input_dim": vae_input_dim,
        "n_cat_features": vae_n_cat_feats,
        "embed_dim": vae_embed_dim,
        "hidden_dims": None if vae_hidden_dims is None else tuple(vae_hidden_dims),
        "codebook_size": vae_codebook_size,
        "codebook_normalize": vae_codebook_normalize,
        "sim_vq": vae_sim_vq,
        "n_layers": vae_n_layers,
    }
    if processes.is_first:
        rqvae = _rqvae(pretrained_rqvae_path, inputs, given, root / "rqvae", seed)
        tokenize(rqvae, inputs.embeddings, inputs.item_ids(), root / "semantic_ids")
        if push_vae_to_hf and vae_hf_model_name:
            push_vae(rqvae, vae_hf_model_name, describe(dataset, dataset_split))
    processes.wait()
    settings = LoopSettings(
        iterations=iterations,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        schedule=schedule,
        patience=patience,
        max_minutes=max_minutes,
        ema_decay=ema_decay,
        max_grad_norm=max_grad_norm,
        gradient_accumulate_every=gradient_accumulate_every,
        eval_every=full_eval_every,
        partial_eval_every=partial_eval_every,
        mixed_precision=mixed_precision_type if amp else "no",
        compile=torch_compile,
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
        "user_buckets": user_buckets,
        "time_gaps": time_gaps,
        "tie_codes": tie_codes,
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
        batch_size=processes.global_batch_size(batch_size, split_batches=split_batches),
        moving_windows=train_data_subsample,
        split=split,
        start_from=Path(pretrained_decoder_path) if pretrained_decoder_path else None,
        memory=memory,
        embeddings=inputs.embeddings,
        keeping=Keeping(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
    )
    best = read_manifest(root / "retrieval", "retrieval").facts["validation"]
    say(f"The retrieval model is in {root / 'retrieval'}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return root / "retrieval"


def _rqvae(source: str | None, inputs: Inputs, given: dict[str, Any], folder: Path, seed: int) -> Path:
    """The artefact of the tokenizer at `source`, or of an RQ-VAE as it is before training.

    The codes of the latter are those of a random projection. Raises ValueError where a size that is `given`
    is not that of the checkpoint.
    """
    made_from = {"embeddings": embeddings_hash(inputs.embeddings)}
    given = {name: value for name, value in given.items() if value is not None}
    if source is not None:
        opened = open_tokenizer(source)
        config = opened.model.config
        for name, value in given.items():
            if getattr(config, name, None) != value:
                raise ValueError(
                    f"train.vae_{VAE_NAMES.get(name, name)} is {value}, but the checkpoint {source} has "
                    f"{getattr(config, name, 'none')}. Leave it out: the checkpoint knows it."
                )
        return find_vae(source, made_from, folder) if opened.kind == "rqvae" else Path(source)
    write_untrained(inputs.embeddings, folder, given, seed)
    return folder
