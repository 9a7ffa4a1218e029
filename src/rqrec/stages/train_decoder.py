"""`python train_decoder.py configs/decoder_amazon.gin`: train the retrieval model.

Shapes: N items, C width of a content vector.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from rqrec.core.artifact import find, read_manifest
from rqrec.core.config import check_fields_of
from rqrec.core.progress import log
from rqrec.core.tensors import check_memory
from rqrec.core.values import Config, NonNegativeInt, PositiveInt
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import (
    content_of,
    embeddings_hash,
    embeddings_protocol,
)
from rqrec.data.protocols import check_protocol, protocol_of
from rqrec.data.sequences import Sequences
from rqrec.data.splits import get_protocol
from rqrec.models.architectures import AnyModel, architecture, build_model, name_of
from rqrec.models.retrieval_model import ModelConfig
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval, write_retrieval
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.retrieval.item_vectors import ItemVectors
from rqrec.stages.pretrained import check_push, check_same_model, find_vae, push_vae
from rqrec.stages.raw_data import DataConfig, given, inputs_from_raw, link_dataset
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_rqvae import VAE_NAMES, make_untrained
from rqrec.tokenizer.loading import KeptTokenizer, load_tokenizer
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig, CheckpointManager
from rqrec.training.decoder_task import DecoderTask
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.next_item_task import training_metrics, warn_of_unreachable_targets
from rqrec.training.processes import Processes
from rqrec.training.schedule import scheduled
from rqrec.training.tracking import check_wandb

MIN_BATCH_SIZE = 8  # sequences, if targets_per_batch sets the batch size


@dataclass(frozen=True)
class TrainDecoderConfig(Config):
    """How a retrieval model is trained."""

    # Setting names of earlier versions, and of other versions of the reference implementation.
    ALIASES: ClassVar = {
        "split": "protocol",
        "eval_every": "full_eval_every",
        "model_type": "architecture",
        "dropout_p": "attn_dropout",
        "t5_d_model": "attn_embed_dim",
        "t5_num_heads": "attn_heads",
        "t5_num_layers": "attn_layers",
        "num_user_bins": "user_buckets",
    }
    IGNORED: ClassVar = {
        "t5_d_ff": "the feed-forward layers are four times as wide as attn_embed_dim.",
        "top_k_for_generation": "validation ranks the top 10 items.",
        "top_k_eval_list": "validation reports recall@1, 5, 10 and NDCG@5, 10.",
        "should_add_sep_token": "items need no separator, because each level has its own code embeddings.",
        "model_jagged_mode": "padding is never computed on where that saves time.",
        "knn_mixture": "neighbours are mixed in by `rqrec join`.",
        "should_check_prefix": "only items of the catalogue are ever generated.",
    }

    data: DataConfig = DataConfig()
    loop: LoopConfig = LoopConfig(
        iterations=10_000, weight_decay=0.05, warmup=100, full_eval_every=1000, amp=True
    )
    checkpoints: CheckpointConfig = CheckpointConfig(Path("out/decoder"))
    architecture: str = "decoder_only"
    """decoder_only, encoder_decoder or hierarchical."""
    model: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={"fields_of": ModelConfig, "without": ("level_sizes", "n_items", "content_dim")},
    )
    """Fields of the architecture's config; the others keep the architecture's defaults."""
    rqvae: Mapping[str, Any] = field(
        default_factory=dict, metadata={"fields_of": RqVaeConfig, "prefix": "vae_", "names": VAE_NAMES}
    )
    """Fields of RqVaeConfig for the untrained RQ-VAE; with pretrained_rqvae_path they must equal its settings."""
    content_input: bool = False
    """Let the model read the content of the history's items beside their codes; needs embeddings."""
    batch_size: PositiveInt = 128
    """Sequences per optimizer step over all processes (per process with split_batches=False)."""
    targets_per_batch: NonNegativeInt = 0
    """Choose the batch size so that a batch has about this many items to predict; 0: use batch_size."""
    split_batches: bool = True
    """Whether batch_size counts the sequences of all processes together."""
    epochs: NonNegativeInt = 0
    """Train for about this many passes over the training data, even if they take more than `iterations` steps, and
    limit warm-up to a tenth of the steps; 0: train for `iterations` steps. A pass is counted as if its batches were
    all full (see docs/training.md)."""
    validations: NonNegativeInt = 0
    """Validate this many times, evenly spaced; 0: every full_eval_every steps."""
    validation_users: PositiveInt | None = None
    """Validate on at most this many users, the same ones each time; None: on all."""
    train_data_subsample: bool = True
    """Cut long sequences at random positions that change every epoch; False: always at the same positions."""
    protocol: str = "leave_one_out"
    """leave_one_out, or temporal (training ends at the same point in time for all users)."""
    exclude_seen: bool = True
    """Whether validation, and by default evaluation and recommendation, exclude the items of the history; False for
    logs in which people take an item again."""
    beam_width: PositiveInt = BEAM_WIDTH
    """Prefixes that the beam search of a validation keeps."""
    pretrained_rqvae_path: str | None = None
    """The tokenizer: a folder, a .pt file or a Hugging Face repository; None: an untrained RQ-VAE."""
    pretrained_decoder_path: Path | None = None
    """A retrieval model whose weights to start from."""
    push_vae_to_hf: bool = False
    """Push the tokenizer to Hugging Face."""
    vae_hf_model_name: str | None = None
    """Repository to push to, as owner/name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields_of(self, "model", architecture(self.architecture).config, level_sizes=(2, 1), n_items=1)
        if self.pretrained_rqvae_path is None:  # otherwise they are compared with those of the tokenizer
            check_fields_of(self, "rqvae", RqVaeConfig, input_dim=sys.maxsize)
        get_protocol(self.protocol)
        if self.data.collaborative and self.protocol != "leave_one_out":
            raise ValueError(
                f"collaborative vectors would be learned from leave-one-out training sequences, which with "
                f"protocol={self.protocol!r} contain interactions of the test period. Make the embeddings with "
                f"`rqrec embed --collaborative {self.data.collaborative} --protocol {self.protocol}`, and pass them "
                f"with --embeddings."
            )


def train_decoder(
    config: TrainDecoderConfig,
    *,
    dataset: Path | None = None,
    semantic_ids: Path | None = None,
    embeddings: Path | None = None,
) -> Path:
    """Train a retrieval model; returns the "retrieval" artefact, `save_dir_root/retrieval`.

    The folders are artefacts of earlier stages. Without `dataset`, dataset and embeddings are made from the raw data
    that `config.data` names; without `semantic_ids`, they are made from the embeddings with the tokenizer at
    `pretrained_rqvae_path`. An artefact with the same settings and inputs is reused; an unfinished run is resumed.

    Raises ValueError if the inputs do not belong together, a model that uses time gaps gets a dataset without
    timestamps, or something in `save_dir_root` was made differently.
    """
    check_push(config.push_vae_to_hf, config.vae_hf_model_name)
    if config.checkpoints.wandb_logging:
        check_wandb()
    processes = Processes.join()
    if config.push_vae_to_hf and semantic_ids is not None:
        raise ValueError(
            "push_vae_to_hf has no effect on given semantic IDs: push their tokenizer with `rqrec push`."
        )
    if dataset is None:
        dataset, embeddings = processes.from_first(lambda: _from_raw(config, embeddings))
    if semantic_ids is None:
        semantic_ids = processes.from_first(lambda: _tokenize(config, dataset, embeddings))
    elif config.pretrained_rqvae_path or config.rqvae:
        log(f"Using the semantic IDs in {semantic_ids}: the tokenizer settings in the config have no effect.")
    out = config.checkpoints.save_dir_root / "retrieval"
    _train(config, find(dataset, "dataset"), find(semantic_ids, "semantic_ids"), embeddings, out)
    best = read_manifest(out, "retrieval").metrics["validation"]
    log(f"The retrieval model is in {out}: validation ndcg@10 {best['ndcg@10']:.4f}.")
    return out


def _from_raw(config: TrainDecoderConfig, embeddings: Path | None) -> tuple[Path, Path]:
    """The dataset and, unless they are given, its embeddings, made from raw data."""
    inputs = inputs_from_raw(config.data, embeddings)
    if inputs.dataset is None:
        raise ValueError(
            f"{config.data.dataset_folder} has only embeddings, but a retrieval model needs interactions too: put "
            f"log.parquet (user_id, item_id, timestamp) next to them."
        )
    link_dataset(inputs.dataset, config.checkpoints.save_dir_root)
    return inputs.dataset, inputs.embeddings


def _tokenize(config: TrainDecoderConfig, dataset: Path, embeddings: Path | None) -> Path:
    """Semantic IDs in `save_dir_root`, by the configured tokenizer or an untrained one."""
    if embeddings is None:
        raise ValueError("--dataset needs --semantic-ids, or --embeddings to make semantic IDs from.")
    root, force = config.checkpoints.save_dir_root, config.checkpoints.resume == "never"
    how_to_replace = "train.resume='never'"
    if config.pretrained_rqvae_path is None:
        log(
            "The semantic IDs are those of an untrained RQ-VAE, because train.pretrained_rqvae_path is not set."
        )
        tokenizer = make_untrained(
            embeddings,
            root / "rqvae",
            config.rqvae,
            config.loop.seed,
            force=force,
            how_to_replace=how_to_replace,
        )
    else:
        tokenizer = _pretrained(
            config.pretrained_rqvae_path, config.rqvae, embeddings, root / "start" / "rqvae"
        )
    if config.push_vae_to_hf and config.vae_hf_model_name:
        push_vae(tokenizer, config.vae_hf_model_name, config.data.describe())
    return tokenize(
        TokenizeConfig(),
        tokenizer,
        embeddings,
        root / "semantic_ids",
        dataset=dataset,
        force=force,
        how_to_replace=how_to_replace,
    )


def _pretrained(source: str, sizes: Mapping[str, Any], embeddings: Path, out: Path) -> Path:
    """The tokenizer at `source`. Raises ValueError if one of `sizes` differs from its settings."""
    loaded = load_tokenizer(source)
    for name, value in sizes.items():
        actual = getattr(loaded.model.config, name, "none")
        if (tuple(value) if isinstance(value, list) else value) != actual:
            raise ValueError(
                f"train.{VAE_NAMES.get(name, f'vae_{name}')} is {value}, but the checkpoint {source} has {actual}. "
                f"Leave the setting out to use that of the checkpoint."
            )
    if loaded.artifact_type != "rqvae":
        return Path(source)
    return find_vae(source, {"embeddings": embeddings_hash(embeddings)}, out)


def _train(
    config: TrainDecoderConfig, dataset: Path, semantic_ids: Path, embeddings: Path | None, out: Path
) -> None:
    start = config.pretrained_decoder_path and find(config.pretrained_decoder_path, "retrieval")
    _check_protocols(config.protocol, semantic_ids, embeddings, start)
    data, table = Dataset.read(dataset), SemanticIdTable.read(semantic_ids)
    _check_same_items(dataset, data, semantic_ids, table)
    content_NC = None
    if config.content_input:
        content_NC = content_of(given(embeddings), dataset, config.protocol, len(table))
    reads_items = content_NC is not None or config.model.get("item_embed_dim")
    model_config = architecture(config.architecture).config(
        table.level_sizes,
        **config.model,
        content_dim=0 if content_NC is None else content_NC.shape[1],
        n_items=len(table) if reads_items else 0,
    )
    if model_config.time_gaps and data.sequences.times is None:
        raise ValueError(
            f"time_gaps is {model_config.time_gaps}, but the source of {dataset} has no timestamps, only each user's "
            f"order. Set it to 0, or prepare the dataset from files with timestamps."
        )
    processes = Processes.join()
    split = get_protocol(config.protocol)(data.sequences)
    batch_size, loop = schedule(config, model_config, split.train)
    batch_size = processes.global_batch_size(batch_size, split_batches=config.split_batches)
    settings = {
        "model": {"architecture": name_of(model_config), **asdict(model_config)},
        "training": asdict(loop),
        "batch_size": batch_size,
        "train_data_subsample": config.train_data_subsample,
        "protocol": config.protocol,
        "exclude_seen": config.exclude_seen,
        "beam_width": config.beam_width,
        "validation_users": config.validation_users,
    }
    inputs = {
        "dataset": read_manifest(dataset, "dataset").hash,
        "semantic_ids": read_manifest(semantic_ids, "semantic_ids").hash,
    }
    if config.content_input and embeddings:
        inputs["embeddings"] = embeddings_hash(embeddings)
    if start:
        inputs["start"] = read_manifest(start, "retrieval").hash
    checkpoints = CheckpointManager(config.checkpoints, settings, inputs)
    if processes.from_first(lambda: checkpoints.finished(out, "retrieval")):
        return
    warn_of_unreachable_targets(split.validation, exclude_seen=config.exclude_seen)
    check_memory(lambda: build_model(model_config))
    torch.manual_seed(loop.seed)
    model = build_model(model_config)
    if content_NC is not None and model.item_input.content is not None:
        model.item_input.content.set(content_NC)
    if start:
        _load_weights(model, start)
    task = DecoderTask(
        model,
        table,
        split,
        batch_size,
        loop.seed,
        config.train_data_subsample,
        beam_width=config.beam_width,
        exclude_seen=config.exclude_seen,
        validation_users=config.validation_users,
    )
    history = fit(task, loop, "Training the retrieval model", checkpoints)
    if processes.is_first:
        # Content is read from the given embeddings, so only the semantic IDs may be of others.
        sources = {str(semantic_ids): read_manifest(semantic_ids, "semantic_ids").inputs.get("embeddings")}
        with checkpoints.finish(out, "retrieval", training_metrics(model, history)) as target:
            artifact = RetrievalArtifact(
                model,
                table,
                data.catalog,
                tokenizer=KeptTokenizer.read(semantic_ids),
                vectors=ItemVectors.common(embeddings, sources),
            )
            write_retrieval(target, artifact)
            history.write(target)
    processes.wait()


def _check_protocols(protocol: str, semantic_ids: Path, embeddings: Path | None, start: Path | None) -> None:
    """Raise ValueError if an input has learned from interactions that this protocol may hold out."""
    check_protocol(semantic_ids, protocol_of(read_manifest(semantic_ids, "semantic_ids")), protocol)
    if embeddings:
        check_protocol(embeddings, embeddings_protocol(embeddings), protocol)
    if start:
        check_protocol(start, protocol_of(read_manifest(start, "retrieval")), protocol)


def _check_same_items(dataset: Path, data: Dataset, semantic_ids: Path, table: SemanticIdTable) -> None:
    if table.item_ids != data.catalog.id_map:
        raise ValueError(
            f"The {len(table)} items of {semantic_ids} are not the {len(data.catalog)} items of {dataset}. Recreate "
            f"the semantic IDs with `rqrec tokenize --dataset {dataset}`."
        )


def schedule(config: TrainDecoderConfig, model: ModelConfig, train: Sequences) -> tuple[int, LoopConfig]:
    """The batch size and the loop's settings, adapted to the number of training sequences."""
    windows = int(np.ceil(train.lengths / (model.max_items + 1)).sum())
    batch_size = config.batch_size
    if config.targets_per_batch:
        per_window = windows / max(len(train.items), 1)
        batch_size = max(MIN_BATCH_SIZE, round(config.targets_per_batch * per_window))
    loop = scheduled(config.loop, config.epochs, config.validations, -(-windows // batch_size))
    return batch_size, loop


def _load_weights(model: AnyModel, folder: Path) -> None:
    other = read_retrieval(folder).model
    advice = "Use its sizes and the tokenizer that it was trained with"
    wanted, given = asdict(model.config), asdict(other.config)
    check_same_model("train.pretrained_decoder_path", folder, wanted, given, advice)
    model.load_state_dict(other.state_dict())
