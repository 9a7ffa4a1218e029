"""One recipe from raw files to test figures, the same for every dataset, within a budget of minutes.

Content and who-took-what together make the items' vectors, balanced RQ-k-means their semantic IDs, and beam search
generates the next one from the hierarchical model and a memory of neighbours. docs/experiments.md tells how each
choice was made, on the validation split of Amazon Beauty; none depends on the dataset.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from rqrec.core.artifact import read_json, read_manifest, write_json
from rqrec.data.dataset import Dataset
from rqrec.data.sources.custom import CustomFiles
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.experiments.run import Stages
from rqrec.models.architectures import name_of
from rqrec.models.hierarchical import HierarchicalConfig
from rqrec.stages.embed import Collaborative, embed_catalog
from rqrec.stages.evaluate import evaluate_artifact
from rqrec.stages.fit_rqkmeans import fit_rqkmeans
from rqrec.stages.prepare import Settings, prepare
from rqrec.stages.tokenize import tokenize
from rqrec.stages.train_decoder import train_decoder
from rqrec.tokenizer.rqkmeans import RqKMeansConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop import LoopConfig

RESULT_FILE = "reproduction.json"
SOURCES = {
    "amazon-beauty": Settings("amazon", "beauty"),
    "amazon-sports": Settings("amazon", "sports"),
    "amazon-toys": Settings("amazon", "toys"),
    "movielens-100k": Settings("movielens", "100k"),
    "movielens-1m": Settings("movielens", "1m"),
    "movielens-latest-small": Settings("movielens", "latest-small"),
    "custom": Settings("custom"),
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
SPLITS = ("validation", "test")
FIGURES = (*SPLITS, *(f"{split}_without_memory" for split in SPLITS))

ENCODER = "all-MiniLM-L6-v2"
COLLABORATIVE_WIDTH = 64
CODEBOOK_SIZE = 256
ITEMS_PER_CODE = 4  # at least, on average: a small catalogue gets narrower vectors and smaller codebooks
TOKENIZER: dict[str, Any] = {"n_layers": 3, "balance": 1.1}
MODEL: dict[str, Any] = {"decoder_embed_dim": 192, "attn_embed_dim": 192, "label_smoothing": 0.1}
EPOCHS = 25
TARGETS_PER_BATCH = 1500  # items to predict; the number of sequences follows from their length
FEWEST_STEPS = 1500  # for a small log, whose epochs are short
VALIDATIONS = 5
VALIDATION_USERS = 8000  # who choose the best weights and the memory's share; the figures are of all users
TRAINING_SHARE = 0.7  # of what the stages before it leave of the budget; the rest is for the evaluations
FEWEST_LEFT = 0.2  # of the budget, where long texts took most of it
BEFORE_TRAINING = ("dataset", "embeddings", "rqkmeans", "semantic_ids")


class Reproduction:
    """The stages in the folder `output`, with one training for each seed 0, 1, ..., `seeds` - 1.

    `raw` is the folder of the raw files, or one's own files; `tie_break` is that of `rqrec.stages.prepare.Settings`.
    `max_minutes` is meant for all of it: training gets seven tenths of what the stages before it leave, evenly
    among the seeds, and ends then, its schedule fitted.
    """

    def __init__(
        self,
        source: str,
        raw: Path | CustomFiles,
        output: Path,
        *,
        seeds: int = 1,
        max_minutes: float = 30.0,
        encoder: str = ENCODER,
        tie_break: str = "keep",
    ) -> None:
        if source not in SOURCES:
            raise ValueError(f"There is no recipe for {source!r}; allowed are {', '.join(SOURCES)}.")
        if seeds < 1 or not max_minutes > 0:
            raise ValueError(f"seeds is {seeds} and max_minutes {max_minutes}: both must be above 0.")
        self.source, self.raw, self.encoder = source, raw, encoder
        self.settings = replace(SOURCES[source], tie_break=tie_break)
        self.seeds, self.max_minutes = seeds, max_minutes
        self.stages = Stages(output)
        self.output = self.stages.output

    def run(self) -> dict[str, Any]:
        """Make or find every stage; returns the figures, which `reproduction.json` holds too."""
        vectors = self.raw.embeddings if isinstance(self.raw, CustomFiles) else None
        # The two stages that read raw files know by themselves whether they are up to date.
        self.stages.update("dataset", lambda folder: prepare(self.settings, self.raw, folder))
        n_items = len(Dataset.read(self.output / "dataset").catalog)
        at_most = max(2, n_items // ITEMS_PER_CODE)
        collaborative = Collaborative(width=min(COLLABORATIVE_WIDTH, at_most))
        self.stages.update(
            "embeddings",
            lambda folder: embed_catalog(
                self.output / "dataset", folder, self.encoder, collaborative=collaborative, vectors=vectors
            ),
        )
        dim = read_manifest(self.output / "embeddings", "embeddings").metrics["dim"]
        sizes = {**TOKENIZER, "codebook_size": min(CODEBOOK_SIZE, at_most)}
        tokenizer = {"model": asdict(RqKMeansConfig(dim, **sizes)), "seed": 0}
        make = self.stages.make
        make(
            "rqkmeans",
            "rqkmeans",
            tokenizer,
            ("embeddings",),
            lambda folder: fit_rqkmeans(self.output / "embeddings", folder, **sizes),
        )
        make("semantic_ids", "semantic_ids", {}, ("rqkmeans", "embeddings"), self._tokenize)
        runs = [self._train_and_judge(seed) for seed in range(self.seeds)]
        facts = {
            "source": self.source,
            "tie_break": self.settings.tie_break,
            "seeds": runs,
            **{figures: _over_seeds([run[figures] for run in runs]) for figures in FIGURES},
            "parameters": runs[0]["parameters"],
            "collision_rate": read_manifest(self.output / "semantic_ids").metrics["collision_rate"],
            "seconds": self.stages.seconds,
        }
        write_json(self.output / RESULT_FILE, facts)
        return facts

    def training_minutes(self) -> float:
        """Of one seed, in minutes; the same whenever it is asked, since a stage's seconds are kept."""
        # A run that was killed may have made a stage and not kept its seconds.
        before = sum(self.stages.seconds.get(name, 0.0) for name in BEFORE_TRAINING) / 60
        left = max(self.max_minutes - before, FEWEST_LEFT * self.max_minutes)
        return round(TRAINING_SHARE * left / self.seeds, 3)

    def _tokenize(self, folder: Path) -> None:
        item_ids = Dataset.read(self.output / "dataset").catalog.id_map
        tokenize(self.output / "rqkmeans", self.output / "embeddings", item_ids, folder)

    def _train_and_judge(self, seed: int) -> dict[str, Any]:
        """Train with one seed, evaluate on both splits."""
        name, inputs = f"seed_{seed}", ("dataset", "semantic_ids", "embeddings")
        level_sizes = SemanticIdTable.read(self.output / "semantic_ids").level_sizes
        config = HierarchicalConfig(level_sizes, **MODEL)
        batch_size, per_epoch = self._batches(config.max_items)
        iterations = max(EPOCHS * per_epoch, FEWEST_STEPS)
        training = LoopConfig(
            iterations=iterations,
            learning_rate=2e-3,
            weight_decay=0.05,
            warmup=min(200, iterations // 10),
            max_minutes=self.training_minutes(),
            full_eval_every=max(iterations // VALIDATIONS, 1),
            seed=seed,
        )
        model = self.stages.make(
            f"{name}/retrieval",
            "retrieval",
            {
                "model": {"architecture": name_of(config), **asdict(config)},
                "training": asdict(training),
                "batch_size": batch_size,
                "memory": True,
            },
            inputs,
            lambda folder: train_decoder(
                self.output / "dataset",
                self.output / "semantic_ids",
                folder,
                config,
                training,
                batch_size=batch_size,
                validation_users=VALIDATION_USERS,
                memory=True,
                embeddings=self.output / "embeddings",
                checkpoints=CheckpointConfig(self.output / name, save_model_every=500),
            ),
        )
        facts: dict[str, Any] = {"seed": seed, "parameters": read_manifest(model).metrics["parameters"]}
        for figures in FIGURES:
            facts[figures] = self._judge(model, name, figures)
        return facts

    def _judge(self, model: Path, run: str, figures: str) -> dict[str, float]:
        split, _, without_memory = figures.partition("_")
        folder = self.stages.make(
            f"{run}/evaluation_{figures}",
            "evaluation",
            {"split": split},
            ("dataset", model.relative_to(self.output).as_posix()),
            lambda folder: evaluate_artifact(
                model, self.output / "dataset", split=split, memory=not without_memory, out=folder
            ),
        )
        metrics = read_json(folder / EVALUATION_FILE)["metrics"]
        return {metric: metrics[metric] for metric in METRICS}

    def _batches(self, max_items: int) -> tuple[int, int]:
        """Sequences of a batch, and batches of an epoch."""
        train = leave_one_out(Dataset.read(self.output / "dataset").sequences).train
        windows = np.ceil(train.lengths / (max_items + 1)).sum()
        batch_size = max(8, round(TARGETS_PER_BATCH * windows / max(len(train.items), 1)))
        return batch_size, int(-(-windows // batch_size))


def _over_seeds(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample deviation of each metric; a single seed deviates by nothing that is known."""
    found = {}
    for name in METRICS:
        values = [measured[name] for measured in metrics]
        found[name] = {"mean": statistics.fmean(values)}
        if len(values) > 1:
            found[name]["deviation"] = statistics.stdev(values)
    return found
