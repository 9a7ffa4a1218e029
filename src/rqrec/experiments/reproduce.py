"""One recipe from raw files to test metrics, the same for every dataset, within a time budget.

Item embeddings are content vectors with collaborative vectors appended, balanced RQ-k-means makes the semantic IDs,
and a hierarchical model with a kNN mixture recommends. The settings are in recipe.gin; docs/experiments.md describes
how each was selected, on the validation split of Amazon Beauty. None depends on the dataset.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rqrec.core.artifact import read_json, read_manifest, write_json
from rqrec.core.config import configured
from rqrec.core.values import Config, PositiveFloat, PositiveInt
from rqrec.data.sources.custom import CustomFiles
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.experiments.run import Run
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.evaluate import EvaluateConfig, evaluate
from rqrec.stages.fit_rqkmeans import FitRqKMeansConfig, fit_rqkmeans
from rqrec.stages.prepare import PrepareConfig, PrepareOptions, prepare
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder

RECIPE = Path(__file__).with_name("recipe.gin")
RESULT_FILE = "reproduction.json"
SOURCES = {
    "amazon-beauty": PrepareConfig("amazon", "beauty"),
    "amazon-sports": PrepareConfig("amazon", "sports"),
    "amazon-toys": PrepareConfig("amazon", "toys"),
    "movielens-100k": PrepareConfig("movielens", "100k"),
    "movielens-1m": PrepareConfig("movielens", "1m"),
    "movielens-latest-small": PrepareConfig("movielens", "latest-small"),
    "custom": PrepareConfig("custom"),
}
METRICS = ("recall@5", "ndcg@5", "recall@10", "ndcg@10")
# Name of each evaluation: its split, and whether the kNN mixture is used.
EVALUATIONS = {
    "validation": ("validation", True),
    "test": ("test", True),
    "validation_without_knn": ("validation", False),
    "test_without_knn": ("test", False),
}
# Ending of the name of each result: what it says about items of the history (see docs/evaluation.md).
SEEN_ITEMS = {"": "excluded", "_seen_allowed": "allowed"}
ROWS = tuple(f"{name}{ending}" for ending in SEEN_ITEMS for name in EVALUATIONS)
BEFORE_TRAINING = ("dataset", "embeddings", "rqkmeans", "semantic_ids")
TRAINING_SHARE = 0.7  # of the time that the earlier stages leave; the rest is for the evaluations
MIN_LEFT = (
    0.2  # share of the budget for training and evaluations, even if encoding long texts took most of it
)


@dataclass(frozen=True)
class ReproduceConfig(Config):
    """Options of a reproduction; the recipe sets everything else."""

    seeds: PositiveInt = 1
    """Number of training runs, with seeds 0, 1, ..."""
    max_minutes: PositiveFloat = 30.0
    """Time budget for all stages; training gets 70 % of what the earlier stages leave."""
    encoder: str | None = None
    """A sentence-transformers model, by name or folder; by default that of the recipe."""
    prepare: PrepareOptions = PrepareOptions()


def reproduce(config: ReproduceConfig, source: str, raw: Path | CustomFiles, out: Path) -> dict[str, Any]:
    """Run or reuse every stage in the folder `out`; returns the results, which are also in `reproduction.json`.

    `source` is a key of `SOURCES`, `raw` the folder of its raw files, or the files themselves for "custom". Raises
    ValueError for an unknown source, or if `out` holds artefacts that were made differently.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; allowed are {', '.join(SOURCES)}.")
    vectors = raw.embeddings if isinstance(raw, CustomFiles) else None
    if vectors and config.encoder is not None:
        raise ValueError("encoder has no effect on given embeddings: leave out one of them.")
    run = Run(out)
    prepared = replace(SOURCES[source], options=config.prepare)
    dataset = run.stage("dataset", lambda folder: prepare(prepared, raw, folder))
    encoder = [] if config.encoder is None else [f"embed.encoder={config.encoder!r}"]
    embedded = configured(EmbedConfig(), ["embed"], [RECIPE], encoder)
    embeddings = run.stage("embeddings", lambda folder: embed(embedded, dataset, folder, vectors=vectors))
    fitted = configured(FitRqKMeansConfig(), ["fit_rqkmeans"], [RECIPE])
    tokenizer = run.stage("rqkmeans", lambda folder: fit_rqkmeans(fitted, embeddings, folder))
    semantic_ids = run.stage(
        "semantic_ids",
        lambda folder: tokenize(TokenizeConfig(), tokenizer, embeddings, folder, dataset=dataset),
    )
    runs = []
    for seed in range(config.seeds):
        trained = _training(run, config, seed)
        model = run.stage(
            f"seed_{seed}/retrieval",
            lambda _, trained=trained: train_decoder(  # type: ignore[misc]
                trained, dataset=dataset, semantic_ids=semantic_ids, embeddings=embeddings
            ),
        )
        runs.append(_evaluate(run, model, dataset, seed))
    facts = {
        "source": source,
        "tie_break": config.prepare.tie_break,
        "seeds": runs,
        **{name: _over_seeds([one[name] for one in runs]) for name in ROWS},
        "parameters": runs[0]["parameters"],
        "collision_rate": read_manifest(semantic_ids).metrics["collision_rate"],
        "seconds": run.seconds,
    }
    write_json(run.folder / RESULT_FILE, facts)
    return facts


def training_minutes(seconds: Mapping[str, float], config: ReproduceConfig) -> float:
    """The time budget of one seed's training, from the seconds that the earlier stages took."""
    # A run that was killed may have made a stage without recording its seconds.
    before = sum(seconds.get(name, 0.0) for name in BEFORE_TRAINING) / 60
    left = max(config.max_minutes - before, MIN_LEFT * config.max_minutes)
    return round(TRAINING_SHARE * left / config.seeds, 3)


def _training(run: Run, config: ReproduceConfig, seed: int) -> TrainDecoderConfig:
    recipe = configured(TrainDecoderConfig(), ["train_decoder"], [RECIPE])
    minutes = training_minutes(run.seconds, config)
    return replace(
        recipe,
        loop=replace(recipe.loop, seed=seed, max_minutes=minutes),
        checkpoints=replace(recipe.checkpoints, save_dir_root=run.folder / f"seed_{seed}"),
    )


def _evaluate(run: Run, model: Path, dataset: Path, seed: int) -> dict[str, Any]:
    """The metrics of one seed's model."""
    facts: dict[str, Any] = {"seed": seed, "parameters": read_manifest(model).metrics["parameters"]}
    for name, (split, knn) in EVALUATIONS.items():
        config = EvaluateConfig(split, knn=knn)
        folder = run.stage(
            f"seed_{seed}/evaluation_{name}",
            lambda folder, config=config: evaluate(config, model, dataset, out=folder),  # type: ignore[misc]
        )
        seen_items = read_json(folder / EVALUATION_FILE)["seen_items"]
        for ending, choice in SEEN_ITEMS.items():
            measured = seen_items[choice]["metrics"]
            facts[f"{name}{ending}"] = {metric: measured[metric] for metric in METRICS}
    return facts


def _over_seeds(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of each metric; a single seed has no deviation."""
    summary = {}
    for name in METRICS:
        values = [measured[name] for measured in metrics]
        summary[name] = {"mean": statistics.fmean(values)}
        if len(values) > 1:
            summary[name]["deviation"] = statistics.stdev(values)
    return summary
