"""`python train_decoder.py configs/decoder_amazon.gin`: the retrieval model."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from rqrec.core.artifact import create, find, read_manifest
from rqrec.core.progress import log
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import content_vectors, embeddings_hash
from rqrec.data.encoders import DEFAULT_MODEL
from rqrec.data.splits import split_named
from rqrec.models.architectures import AnyModel, build_model, name_of
from rqrec.models.architectures import architecture as architecture_named
from rqrec.models.retrieval_model import ModelConfig, parameter_count
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval, write_retrieval
from rqrec.retrieval.retriever import Retriever
from rqrec.stages.inputs import Inputs, describe, inputs_of
from rqrec.stages.pretrained import check_push, find_vae, push_vae
from rqrec.stages.tokenize import tokenize
from rqrec.stages.train_rqvae import write_untrained
from rqrec.tokenizer.opening import open_tokenizer
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointManager
from rqrec.training.decoder import DecoderTask
from rqrec.training.loop import LoopConfig, fit
from rqrec.training.processes import Processes
from rqrec.training.tracking import check_wandb
from rqrec.training.tune_knn import tune_knn_mixture

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
    settings = LoopConfig(
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
        checkpoints=CheckpointManager(
            root, save_every=save_model_every, keep_last=keep_last, resume=resume, wandb=wandb_logging
        ),
    )
    best = read_manifest(root / "retrieval", "retrieval").metrics["validation"]
    log(f"The retrieval model is in {root / 'retrieval'}: validation ndcg@10 {best['ndcg@10']:.4f}.")
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
        return find_vae(source, made_from, folder) if opened.artifact_type == "rqvae" else Path(source)
    write_untrained(inputs.embeddings, folder, given, seed)
    return folder


def train_decoder(
    dataset_folder: Path,
    table_folder: Path,
    folder: Path,
    config: ModelConfig,
    settings: LoopConfig,
    *,
    batch_size: int,
    moving_windows: bool = True,
    split: str = "leave_one_out",
    validation_users: int | None = None,
    start_from: Path | None = None,
    memory: bool = False,
    embeddings: Path | None = None,
    checkpoints: CheckpointManager | None = None,
) -> RetrievalArtifact:
    """Train a retrieval model on a dataset's training split and write the artefact of kind "retrieval".

    `batch_size` counts the sequences of all processes. With `validation_users` a validation ranks for every
    n-th user, so many at most and the same ones each time; without, for all. `start_from` is a "retrieval"
    artefact whose weights are the first ones. `memory` joins a memory of neighbours to the trained model, with
    the share that does best on those validation users (`rqrec.retrieval.knn_mixture`); the items' `embeddings`, where
    they are given, tell it what is alike in content. `checkpoints` says where the run is kept until it is finished;
    its settings and inputs are filled in here.

    Raises ValueError where the semantic-ID table was made for another catalogue, `start_from` is of another
    model, the model reads times and the dataset kept none, or the embeddings are of other items.
    """
    dataset_folder, table_folder = find(dataset_folder, "dataset"), find(table_folder, "semantic_ids")
    dataset, table = Dataset.read(dataset_folder), SemanticIdTable.read(table_folder)
    if table.item_ids != dataset.catalog.id_map:
        raise ValueError(
            f"{table_folder} has the semantic IDs of other items than {dataset_folder} has "
            f"({len(table)} and {len(dataset.catalog)}). Make them again with `rqrec tokenize`."
        )
    contents_ND = content_vectors(embeddings) if memory and embeddings else None
    if contents_ND is not None and len(contents_ND) != len(table):
        raise ValueError(
            f"{embeddings} has embeddings of {len(contents_ND)} items, but {table_folder} has semantic IDs of "
            f"{len(table)}. Make both from the same dataset."
        )
    if config.time_gaps and dataset.sequences.times is None:
        raise ValueError(
            f"time_gaps is {config.time_gaps}, but the source of {dataset_folder} kept no time, only each "
            "user's order. Set it to 0, or prepare the dataset from files that keep the time."
        )
    processes = Processes.join()
    torch.manual_seed(settings.seed)
    model = build_model(config)
    task = DecoderTask(
        model,
        table,
        split_named(split)(dataset.sequences),
        batch_size,
        settings.seed,
        moving_windows,
        validation_users=validation_users,
    )
    made_with = {
        "model": {"architecture": name_of(config), **asdict(config)},
        "training": asdict(settings),
        "batch_size": batch_size,
        "moving_windows": moving_windows,
        "split": split,
        "validation_users": validation_users,
        "memory": memory,
    }
    inputs = {
        "dataset": read_manifest(dataset_folder, "dataset").hash,
        "semantic_ids": read_manifest(table_folder, "semantic_ids").hash,
    }
    if memory and embeddings:
        inputs["embeddings"] = embeddings_hash(embeddings)
    if start_from:
        start_from = find(start_from, "retrieval")
        _load_weights(model, start_from)
        inputs["start"] = read_manifest(start_from, "retrieval").hash
    if checkpoints:
        checkpoints = replace(checkpoints, settings=made_with, inputs=inputs)
    history = fit(task, settings, "Training the retrieval model", checkpoints)
    best = max(history.validation, key=lambda record: record["ndcg@10"])
    facts = {
        "parameters": parameter_count(model),
        "validation": best,
        "stopped": history.stopped,
        "processes": processes.count,
        "collisions": read_manifest(table_folder, "semantic_ids").settings.get("collisions", "extra_code"),
    }
    checkpoint = RetrievalArtifact(model, table, dataset.catalog)
    if processes.is_first:
        if memory:
            retriever = Retriever(model.eval(), table, device=next(model.parameters()).device)
            chosen = tune_knn_mixture(
                retriever, task.split, contents_ND=contents_ND, validation_users=validation_users
            )
            checkpoint = checkpoint._replace(knn=chosen)
            facts["memory"] = asdict(chosen.settings)
        with create(folder, "retrieval", settings=made_with, inputs=inputs, metrics=facts) as target:
            write_retrieval(target, checkpoint)
            history.write(target)
        if checkpoints:
            checkpoints.clear()
    processes.wait()
    return checkpoint


def _load_weights(model: AnyModel, folder: Path) -> None:
    other = read_retrieval(folder).model
    wanted, found = asdict(model.config), asdict(other.config)
    if differing := [f"{k} is {wanted[k]} and was {found[k]}" for k in wanted if wanted[k] != found.get(k)]:
        raise ValueError(
            f"train.pretrained_decoder_path: {folder} is of another model: {'; '.join(differing)}. Give it the "
            f"same sizes and the tokenizer that it was trained with, or leave the path out."
        )
    model.load_state_dict(other.state_dict())
