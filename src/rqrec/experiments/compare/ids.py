"""Three kinds of semantic IDs, so that what learning them gains can be told from what any ID gives."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rqrec.core.artifact import create, is_current, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import embeddings_hash, read_embeddings
from rqrec.data.ids import IdMap
from rqrec.experiments.compare.run_dirs import run_dir
from rqrec.stages.tokenize import tokenize
from rqrec.stages.train_rqvae import train_rqvae, write_untrained
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable, collision_rate
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop import LoopConfig


@dataclass(frozen=True)
class Tokenizing:
    """How the RQ-VAEs are shaped and trained; see RqVaeConfig and LoopConfig."""

    iterations: int
    batch_size: int
    learning_rate: float
    embed_dim: int
    hidden_dims: tuple[int, ...]
    codebook_size: int
    n_layers: int

    @property
    def sizes(self) -> dict[str, Any]:
        """Those of RqVaeConfig, without the width of the embeddings."""
        return {
            name: getattr(self, name) for name in ("embed_dim", "hidden_dims", "codebook_size", "n_layers")
        }

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Codes of each level, without the one that tells collisions apart."""
        return (self.codebook_size,) * self.n_layers


@dataclass(frozen=True)
class SemanticIds:
    """Semantic IDs of one kind and seed, to be made in a folder of their own."""

    kind: str
    seed: int
    dataset: Path
    embeddings: Path
    tokenizing: Tokenizing
    root: Path

    @property
    def name(self) -> str:
        """Of the folder, but for its settings."""
        return f"{self.kind}-{self.seed}"

    @property
    def folder(self) -> Path:
        """Where `rqvae` and `semantic_ids` are."""
        inputs = {"embeddings": embeddings_hash(self.embeddings)}
        settings = {"seed": self.seed, **asdict(self.tokenizing)}
        return run_dir(self.root / "ids", self.name, settings, inputs)

    @property
    def table(self) -> Path:
        """The artefact of kind "semantic_ids"."""
        return self.folder / "semantic_ids"

    def item_ids(self) -> IdMap:
        """The items, in the order of their embeddings."""
        return Catalog.read(self.dataset).id_map

    def is_made(self) -> bool:
        """Whether nothing is left to do."""
        return is_current(self.table, "semantic_ids", {}, None)

    def make(self) -> None:
        """Make the table, by an RQ-VAE or by chance."""
        KINDS[self.kind](self)

    def facts(self) -> dict[str, Any]:
        """What the table's manifest tells."""
        return read_manifest(self.table, "semantic_ids").metrics


def _trained(ids: SemanticIds) -> None:
    rqvae, how = ids.folder / "rqvae", ids.tokenizing
    if not is_current(rqvae, "rqvae", {}, None):
        dim = read_embeddings(ids.embeddings).vectors.shape[1]
        train_rqvae(
            ids.embeddings,
            rqvae,
            RqVaeConfig(input_dim=dim, **how.sizes),
            LoopConfig(
                how.iterations,
                how.learning_rate,
                weight_decay=0.0,
                warmup=how.iterations // 20,
                max_grad_norm=10.0,
                seed=ids.seed,
            ),
            batch_size=how.batch_size,
            reset_every=50,
            checkpoints=CheckpointConfig(ids.folder, save_model_every=500),
        )
    tokenize(rqvae, ids.embeddings, ids.item_ids(), ids.table)


def _untrained(ids: SemanticIds) -> None:
    write_untrained(ids.embeddings, ids.folder / "rqvae", ids.tokenizing.sizes, ids.seed)
    tokenize(ids.folder / "rqvae", ids.embeddings, ids.item_ids(), ids.table)


def _random(ids: SemanticIds) -> None:
    table = random_table(ids.item_ids(), ids.tokenizing.codebook_sizes, ids.seed)
    facts = {
        "items": len(table),
        "level_sizes": list(table.level_sizes),
        "collision_rate": collision_rate(table.codes_NL[:, :-1]),
    }
    with create(ids.table, "semantic_ids", settings={"random": ids.seed}, metrics=facts) as target:
        table.write(target)


KINDS: dict[str, Callable[[SemanticIds], None]] = {
    "trained": _trained,
    "untrained": _untrained,
    "random": _random,
}


def random_table(item_ids: IdMap, codebook_sizes: tuple[int, ...], seed: int) -> SemanticIdTable:
    """Codes drawn at random, evenly and regardless of the items; collisions are told apart as ever."""
    codes_NL = np.random.default_rng(seed).integers(codebook_sizes, size=(len(item_ids), len(codebook_sizes)))
    return SemanticIdTable.from_codes(item_ids, codes_NL, codebook_sizes, f"random codes, seed {seed}")
