"""Three kinds of semantic IDs, to measure what learned IDs gain over IDs that are merely unique.

Shapes: N items, L levels.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rqrec.core.artifact import create, is_current, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import embeddings_hash
from rqrec.data.ids import IdMap
from rqrec.experiments.compare.config import TokenizerConfig
from rqrec.experiments.tasks import run_dir
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_rqvae import TrainRqVaeConfig, make_untrained, train_rqvae
from rqrec.tokenizer.semantic_ids import SemanticIdTable, collision_rate
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig


@dataclass(frozen=True)
class SemanticIds:
    """Semantic IDs of one kind ("trained", "untrained" or "random") and seed, in their own folder."""

    kind: str
    seed: int
    dataset: Path
    embeddings: Path
    tokenizer: TokenizerConfig
    root: Path

    @property
    def name(self) -> str:
        """Such as "trained-0"."""
        return f"{self.kind}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Holds `semantic_ids` and, unless the codes are random, `rqvae`."""
        inputs = {"embeddings": embeddings_hash(self.embeddings)}
        settings = {"seed": self.seed, **asdict(self.tokenizer)}
        return run_dir(self.root / "ids", self.name, settings, inputs)

    @property
    def table(self) -> Path:
        """The "semantic_ids" artefact."""
        return self.folder / "semantic_ids"

    def is_finished(self) -> bool:
        """Whether the table exists."""
        return is_current(self.table, "semantic_ids", {}, None)

    def run(self) -> None:
        """Make the table, and first the RQ-VAE if there is one."""
        _MAKE[self.kind](self)

    def metrics(self) -> dict[str, Any]:
        """The metrics of the finished table, such as `level_sizes` and `collision_rate`."""
        return read_manifest(self.table, "semantic_ids").metrics


def random_table(item_ids: IdMap, codebook_sizes: tuple[int, ...], seed: int) -> SemanticIdTable:
    """Codes drawn uniformly at random, with a deduplication level like that of any other table."""
    codes_NL = np.random.default_rng(seed).integers(codebook_sizes, size=(len(item_ids), len(codebook_sizes)))
    return SemanticIdTable.from_codes(item_ids, codes_NL, codebook_sizes, f"random codes, seed {seed}")


def _make_trained(ids: SemanticIds) -> None:
    _tokenize(ids, train_rqvae(_training_config(ids), embeddings=ids.embeddings))


def _make_untrained(ids: SemanticIds) -> None:
    sizes = _rqvae_sizes(ids.tokenizer)
    _tokenize(ids, make_untrained(ids.embeddings, ids.folder / "rqvae", sizes, ids.seed))


def _make_random(ids: SemanticIds) -> None:
    codebook_sizes = (ids.tokenizer.codebook_size,) * ids.tokenizer.n_layers
    table = random_table(Catalog.read(ids.dataset).id_map, codebook_sizes, ids.seed)
    metrics = {
        "items": len(table),
        "level_sizes": list(table.level_sizes),
        "collision_rate": collision_rate(table.codes_NL[:, :-1]),
    }
    with create(ids.table, "semantic_ids", settings={"random": ids.seed}, metrics=metrics) as target:
        table.write(target)


_MAKE: dict[str, Callable[[SemanticIds], None]] = {
    "trained": _make_trained,
    "untrained": _make_untrained,
    "random": _make_random,
}


def _training_config(ids: SemanticIds) -> TrainRqVaeConfig:
    config = ids.tokenizer
    return TrainRqVaeConfig(
        loop=LoopConfig(
            config.iterations,
            config.learning_rate,
            weight_decay=0.0,
            warmup=config.iterations // 20,
            max_grad_norm=10.0,
            seed=ids.seed,
        ),
        checkpoints=CheckpointConfig(ids.folder, save_model_every=500),
        rqvae=_rqvae_sizes(config),
        batch_size=config.batch_size,
    )


def _tokenize(ids: SemanticIds, rqvae: Path) -> None:
    tokenize(TokenizeConfig(), rqvae, ids.embeddings, ids.table, dataset=ids.dataset)


def _rqvae_sizes(config: TokenizerConfig) -> dict[str, Any]:
    return {
        "embed_dim": config.embed_dim,
        "hidden_dims": config.hidden_dims,
        "codebook_size": config.codebook_size,
        "n_layers": config.n_layers,
    }
