"""Settings of a comparison, with their defaults. In gin files they are all `compare.NAME`."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rqrec.core.values import (
    CodebookSize,
    Config,
    Depth,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Threads,
    Width,
)
from rqrec.evaluation.registry import BASELINES
from rqrec.models.architectures import ARCHITECTURES, architecture
from rqrec.stages.raw_data import DataConfig
from rqrec.tokenizer.rqvae import RqVaeConfig

SEMANTIC_ID_KINDS = ("trained", "untrained", "random")


@dataclass(frozen=True)
class SizeConfig(Config):
    """What all models have in common: parameters, compute and shape."""

    parameters: PositiveInt = 500_000
    """Trained parameters of every model, code embeddings included; its width follows from it."""
    tolerance: PositiveFloat = 0.05
    """Largest relative deviation of a model's parameter count from `parameters`."""
    teraflops: PositiveFloat = 3.5
    """Training compute of every model, in 10^12 floating-point operations."""
    max_items: Width = 20
    """Number of most recent items of the history that a model reads."""
    attn_heads: Width = 4
    """Attention heads of every transformer."""
    attn_dropout: Probability = 0.2
    """Dropout of every transformer."""
    attn_layers: Mapping[str, Depth] = field(
        default_factory=lambda: {"decoder_only": 3, "encoder_decoder": 2, "hierarchical": 2}
    )
    """Number of layers for each architecture."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.attn_layers:
            architecture(name)  # raises ValueError if there is none


@dataclass(frozen=True)
class TrainingConfig(Config):
    """How every model is trained, selected and tested."""

    batch_size: PositiveInt = 128
    """Sequences in a training step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of the cosine schedule."""
    weight_decay: NonNegativeFloat = 0.05
    """Weight decay of AdamW."""
    warmup: Probability = 0.05
    """Share of the training steps that are warm-up, from 0 to below 1."""
    validations: PositiveInt = 4
    """Number of validations, evenly spaced over training."""
    validation_users: PositiveInt = 4096
    """Largest number of users in a validation; every model is validated on the same ones."""
    beam_width: PositiveInt = 20
    """Beam width in validations and in the test."""
    save_model_every: PositiveInt = 200
    """Steps between checkpoints."""


@dataclass(frozen=True)
class TokenizerConfig(Config):
    """Shape and training of the RQ-VAEs; random codes have the same shape."""

    iterations: PositiveInt = 2000
    """Training steps of an RQ-VAE."""
    batch_size: PositiveInt = 512
    """Items in a training step."""
    learning_rate: PositiveFloat = 5e-3
    """Peak learning rate of the cosine schedule."""
    embed_dim: Width = RqVaeConfig.embed_dim
    """Width of the latent vectors that are quantised."""
    hidden_dims: tuple[Width, ...] = RqVaeConfig.hidden_dims
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    codebook_size: CodebookSize = 256
    """Codes of each level."""
    n_layers: Depth = RqVaeConfig.n_layers
    """Number of levels, without the deduplication level."""


@dataclass(frozen=True)
class CompareConfig(Config):
    """A comparison of architectures and kinds of semantic IDs.

    Raises ValueError if a name is unknown or a number is out of range.
    """

    data: DataConfig = field(default_factory=DataConfig)
    sizes: SizeConfig = SizeConfig()
    training: TrainingConfig = TrainingConfig()
    tokenizer: TokenizerConfig = field(default=TokenizerConfig(), metadata={"prefix": "vae_"})
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)
    """Architectures to compare: decoder_only, encoder_decoder, hierarchical."""
    semantic_ids: tuple[str, ...] = SEMANTIC_ID_KINDS
    """Kinds of semantic IDs to compare: trained, untrained, random."""
    seeds: tuple[NonNegativeInt, ...] = (0, 1)
    """Seeds; each is used for the semantic IDs and for the models trained on them."""
    baselines: tuple[str, ...] = ()
    """Baselines to test too: popularity, item_knn, content_knn, hybrid_knn."""
    jobs: Threads = 1
    """Number of training runs in parallel, each in a process with one thread."""
    save_dir_root: Path = Path("out/compare")
    """Folder of the results, the runs and their logs."""
    findings: Path | None = None
    """Text file whose paragraphs are the last section of the report."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_names("architectures", self.architectures, ARCHITECTURES)
        for name in self.architectures:
            if name not in self.sizes.attn_layers:
                raise ValueError(f"compare.attn_layers has no entry for {name}: add its number of layers.")
        _check_names("semantic_ids", self.semantic_ids, SEMANTIC_ID_KINDS)
        if self.baselines:
            _check_names("baselines", self.baselines, BASELINES)
        if not self.seeds:
            raise ValueError("compare.seeds is empty, but needs at least one seed.")
        for name in ("architectures", "semantic_ids", "seeds", "baselines"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ValueError(f"compare.{name} is {list(getattr(self, name))}: name each one only once.")


def _check_names(field_name: str, names: tuple[str, ...], allowed: Collection[str]) -> None:
    if not names:
        raise ValueError(f"compare.{field_name} is empty; allowed are {', '.join(allowed)}.")
    for name in names:
        if name not in allowed:
            raise ValueError(f"compare.{field_name} has {name!r}; allowed are {', '.join(allowed)}.")
