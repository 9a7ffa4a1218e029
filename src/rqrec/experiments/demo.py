"""The demo: MovieLens 100K from raw ratings to recommendations and a report, in one folder.

A stage reuses its artefact if settings and inputs are unchanged, so an interrupted demo resumes where it stopped; an
interrupted training resumes from its last checkpoint.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rqrec.core.artifact import read_json, read_manifest
from rqrec.core.config import configured
from rqrec.data.dataset import Dataset
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.experiments.demo_report import write_report
from rqrec.experiments.run import Run, only_run
from rqrec.serving.recommender import Recommender
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.evaluate import EvaluateConfig, evaluate, evaluate_baseline
from rqrec.stages.prepare import PrepareConfig, prepare
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae

SETTINGS = Path(__file__).with_name("demo.gin")
TOKENIZER = "tokenizer"  # run folder of the RQ-VAE; that of the decoder is the demo's folder itself


def run_demo(out: Path, data_dir: Path, seed: int = 0) -> dict[str, Any]:
    """Run or reuse every stage in `out` and write the report; returns what `rqrec demo --json` prints.

    Raw files are kept in `data_dir`, and downloaded into it if they are missing.
    """
    with only_run(out) as run:
        prepared = configured(PrepareConfig(), ["prepare"], [SETTINGS])
        dataset = run.stage("dataset", lambda folder: prepare(prepared, data_dir / "ml-100k", folder))
        embedded = configured(EmbedConfig(), ["embed"], [SETTINGS])
        embeddings = run.stage("embeddings", lambda folder: embed(embedded, dataset, folder))
        rqvae = configured(TrainRqVaeConfig(), ["train_rqvae"], [SETTINGS], [f"train_rqvae.seed={seed}"])
        rqvae = replace(rqvae, checkpoints=replace(rqvae.checkpoints, save_dir_root=run.folder / TOKENIZER))
        tokenizer = run.stage(f"{TOKENIZER}/rqvae", lambda _: train_rqvae(rqvae, embeddings=embeddings))
        semantic_ids = run.stage(
            "semantic_ids",
            lambda folder: tokenize(TokenizeConfig(), tokenizer, embeddings, folder, dataset=dataset),
        )
        decoder = configured(
            TrainDecoderConfig(), ["train_decoder"], [SETTINGS], [f"train_decoder.seed={seed}"]
        )
        decoder = replace(decoder, checkpoints=replace(decoder.checkpoints, save_dir_root=run.folder))
        model = run.stage(
            "retrieval",
            lambda _: train_decoder(
                decoder, dataset=dataset, semantic_ids=semantic_ids, embeddings=embeddings
            ),
        )
        run.stage("evaluation", lambda folder: evaluate(EvaluateConfig(), model, dataset, out=folder))
        run.stage(
            "evaluation_popularity",
            lambda folder: evaluate_baseline(EvaluateConfig(), "popularity", dataset, out=folder),
        )
        facts = _facts(run)
        write_report(run.folder, facts)
        return facts


def _facts(run: Run) -> dict[str, Any]:
    def metrics(name: str) -> dict[str, float]:
        return read_json(run.folder / name / EVALUATION_FILE)["metrics"]

    codes = read_manifest(run.folder / "semantic_ids", "semantic_ids").metrics
    sequences = Dataset.read(run.folder / "dataset").sequences
    recommender = Recommender.load(run.folder)
    history = recommender.catalog.id_map.ids(sequences.of_user(0))
    (recommendations,) = recommender.recommend([history], k=10)
    model = metrics("evaluation")
    return {
        "recall@10": model["recall@10"],
        "ndcg@10": model["ndcg@10"],
        "popularity": metrics("evaluation_popularity"),
        "model": model,
        "collision_rate": codes["collision_rate"],
        "codebook_usage": codes["codebook_usage"],
        "seconds": run.seconds,
        "sample_user": sequences.user_ids[0],
        "recommendations": [
            {
                "item_id": item.item_id,
                "title": item.title,
                "score": item.score,
                "semantic_id": list(item.semantic_id),
            }
            for item in recommendations
        ],
        "report": str(run.folder / "report.html"),
    }
