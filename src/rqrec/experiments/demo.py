"""The demo: from raw ratings to recommendations on MovieLens 100K, one folder, each stage once.

A stage that finds its artefact, made with the same settings from the same inputs, goes on with it; so an
interrupted demo goes on where it stopped, within the training of a model at its last checkpoint.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, read_json, read_manifest, write_json
from rqrec.data.dataset import Dataset
from rqrec.data.splits import Split, leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.experiments.demo_report import write_report
from rqrec.experiments.run import Stages
from rqrec.knn.popularity import Popularity
from rqrec.models.decoder_only import DecoderOnlyConfig
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender
from rqrec.retrieval.retriever import Retriever
from rqrec.serving.recommender import Recommender
from rqrec.stages.embed import Collaborative, embed_catalog
from rqrec.stages.prepare import Settings, prepare
from rqrec.stages.tokenize import tokenize
from rqrec.stages.train_decoder import train_decoder
from rqrec.stages.train_rqvae import train_rqvae
from rqrec.tokenizer.rqvae import RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointManager
from rqrec.training.loop import LoopConfig

ENCODER = "all-MiniLM-L6-v2"
# Titles say little of who likes a film; training interactions say the rest.
COLLABORATIVE = Collaborative(width=64)
RQVAE_BATCH, DECODER_BATCH = 256, 32
EVALUATION_FILE = "evaluation.json"


class Demo:
    """The stages of the demo in the folder `output`; raw files are kept in `data_dir`."""

    def __init__(self, output: Path, data_dir: Path, seed: int) -> None:
        self.output, self.data_dir, self.seed = Path(output), Path(data_dir), seed
        self.stages = Stages(self.output)

    def run(self) -> dict[str, Any]:
        """Run or reuse every stage and write the report. Returns the facts that `--json` prints."""
        make = self.stages.make
        make("dataset", "dataset", {"source": "movielens", "variant": "100k"}, None, self._prepare)
        embedded = {"model": ENCODER, "collaborative": asdict(COLLABORATIVE)}
        make("embeddings", "embeddings", embedded, ("dataset",), self._embed)
        tokenizer = {"model": asdict(self._rqvae_config()), "training": asdict(self._rqvae_settings())}
        make("rqvae", "rqvae", tokenizer, ("embeddings",), self._rqvae)
        make("semantic_ids", "semantic_ids", {}, ("rqvae", "embeddings"), self._tokenize)
        decoder = {
            "model": {"architecture": "decoder_only", **asdict(self._decoder_config())},
            "training": asdict(self._decoder_settings()),
            "batch_size": DECODER_BATCH,
        }
        make("retrieval", "retrieval", decoder, ("dataset", "semantic_ids"), self._decoder)
        make("evaluation", "evaluation", {"exclude_seen": True}, ("dataset", "retrieval"), self._evaluate)
        facts = self._facts()
        write_report(self.output, facts)
        return facts

    def _prepare(self, folder: Path) -> None:
        prepare(Settings("movielens", "100k"), self.data_dir / "ml-100k", folder)

    def _embed(self, folder: Path) -> None:
        embed_catalog(self.output / "dataset", folder, ENCODER, collaborative=COLLABORATIVE)

    def _rqvae_settings(self) -> LoopConfig:
        return LoopConfig(iterations=1500, weight_decay=0.0, warmup=100, max_grad_norm=10.0, seed=self.seed)

    def _rqvae_config(self) -> RqVaeConfig:
        facts = read_manifest(self.output / "embeddings", "embeddings").metrics
        return RqVaeConfig(input_dim=facts["dim"])

    def _rqvae(self, folder: Path) -> None:
        train_rqvae(
            self.output / "embeddings",
            folder,
            self._rqvae_config(),
            self._rqvae_settings(),
            batch_size=RQVAE_BATCH,
            reset_every=50,
            checkpoints=self._keeping("rqvae"),
        )

    def _keeping(self, kind: str) -> CheckpointManager:
        return CheckpointManager(self.output / "training" / kind, save_every=200)

    def _tokenize(self, folder: Path) -> None:
        catalog = Dataset.read(self.output / "dataset").catalog
        tokenize(self.output / "rqvae", self.output / "embeddings", catalog.id_map, folder)

    def _decoder_settings(self) -> LoopConfig:
        return LoopConfig(
            iterations=1200, learning_rate=2e-3, weight_decay=0.05, warmup=50, eval_every=200, seed=self.seed
        )

    def _decoder_config(self) -> DecoderOnlyConfig:
        table = SemanticIdTable.read(self.output / "semantic_ids")
        return DecoderOnlyConfig(table.level_sizes, max_items=50, attn_dropout=0.25)

    def _decoder(self, folder: Path) -> None:
        train_decoder(
            self.output / "dataset",
            self.output / "semantic_ids",
            folder,
            self._decoder_config(),
            self._decoder_settings(),
            batch_size=DECODER_BATCH,
            checkpoints=self._keeping("retrieval"),
        )

    def _evaluate(self, folder: Path) -> None:
        checkpoint = read_retrieval(self.output / "retrieval")
        split = self._split()
        recommenders: dict[str, ItemRecommender] = {
            "model": Retriever(checkpoint.search_model(), checkpoint.table),
            "popularity": ExhaustiveRecommender(Popularity(split.train, len(checkpoint.catalog))),
        }
        metrics = {
            name: evaluate(recommender, split.test, description=f"Evaluating {name}").metrics
            for name, recommender in recommenders.items()
        }
        inputs = self.stages.hashes("dataset", "retrieval")
        settings = {"exclude_seen": True, "split": "test", "protocol": "leave-one-out, full catalogue, items"}
        with create(folder, "evaluation", settings=settings, inputs=inputs) as target:
            write_json(target / EVALUATION_FILE, metrics)

    def _split(self) -> Split:
        return leave_one_out(Dataset.read(self.output / "dataset").sequences)

    def _facts(self) -> dict[str, Any]:
        metrics = read_json(self.output / "evaluation" / EVALUATION_FILE)
        codes = read_manifest(self.output / "semantic_ids", "semantic_ids").metrics
        sequences = Dataset.read(self.output / "dataset").sequences
        recommender = Recommender.load(self.output)
        history = recommender.catalog.id_map.ids(sequences.of_user(0))
        (recommendations,) = recommender.recommend([history], k=10)
        return {
            "recall@10": metrics["model"]["recall@10"],
            "ndcg@10": metrics["model"]["ndcg@10"],
            "popularity": metrics["popularity"],
            "model": metrics["model"],
            "collision_rate": codes["collision_rate"],
            "codebook_usage": codes["codebook_usage"],
            "seconds": self.stages.seconds,
            "sample_user": sequences.user_ids[0],
            "recommendations": [
                {"item_id": item.item_id, "title": item.title, "score": item.score}
                for item in recommendations
            ],
            "report": str(self.output / "report.html"),
        }
