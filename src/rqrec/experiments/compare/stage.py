"""`rqrec compare configs/compare_beauty.gin`: architectures and kinds of semantic IDs on equal terms."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rqrec.core.artifact import read_manifest, write_json
from rqrec.core.progress import log
from rqrec.core.regular_file import regular_file
from rqrec.experiments.compare.config import CompareConfig
from rqrec.experiments.compare.ids import SemanticIds
from rqrec.experiments.compare.report import write_report
from rqrec.experiments.compare.runs import BaselineRun, ModelRun, Run, is_finished, result_of
from rqrec.experiments.compare.sizes import config_with_parameters, parameters_of
from rqrec.experiments.compare.summary import summary_of
from rqrec.experiments.tasks import run_tasks
from rqrec.stages.raw_data import inputs_from_raw
from rqrec.tokenizer.semantic_ids import SemanticIdTable

RESULTS_FILE = "comparison.json"


def compare(config: CompareConfig) -> Path:
    """Train every architecture on every kind of semantic IDs with every seed; returns `save_dir_root`.

    The kinds are "trained" (an RQ-VAE), "untrained" (an RQ-VAE whose encoder is a random projection) and
    "random" (codes drawn at random). All models have the same number of parameters and the same training
    compute (see `rqrec.experiments.compare.sizes`), are selected on validation ndcg@10 and tested once.

    Results with the same settings and inputs are reused, and interrupted runs resume from their checkpoints.
    Writes `comparison.json` and the report, `report.md` and `report.html`.

    Raises ValueError if the dataset is unknown or has no interactions, or if an architecture cannot have that
    many parameters, and ChildProcessError if a run failed.
    """
    root, findings = (
        config.save_dir_root,
        regular_file(config.findings).read_text(encoding="utf-8") if config.findings else "",
    )
    embeddings, dataset = inputs_from_raw(config.data)
    if dataset is None:
        raise ValueError(
            f"{config.data.dataset_folder} has only embeddings, but a comparison needs interactions too: put "
            f"log.parquet (user_id, item_id, timestamp) next to them."
        )
    ids = [
        SemanticIds(kind, seed, dataset, embeddings, config.tokenizer, root)
        for kind in config.semantic_ids
        for seed in config.seeds
    ]
    missing = [each for each in ids if not each.is_finished()]
    run_tasks(missing, config.jobs, root / "logs", "Making semantic IDs")
    runs: list[Run] = [BaselineRun(name, dataset, embeddings, root) for name in config.baselines]
    runs += _model_runs(ids, config)
    unfinished = [run for run in runs if not is_finished(run)]
    log(f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished already.")
    run_tasks(unfinished, config.jobs, root / "logs", "Comparing")
    run_results = [result_of(run) for run in runs]
    results = {
        "data": config.data.describe(),
        "dataset": read_manifest(dataset, "dataset").metrics,
        "embeddings": read_manifest(embeddings, "embeddings").settings,
        "settings": {name: asdict(getattr(config, name)) for name in ("sizes", "training", "tokenizer")},
        "semantic_ids": [{"kind": each.kind, "seed": each.seed, **each.metrics()} for each in ids],
        "runs": run_results,
        "summary": summary_of(run_results),
    }
    write_json(root / RESULTS_FILE, results)
    write_report(root, results, findings)
    return root


def _model_runs(ids: Sequence[SemanticIds], config: CompareConfig) -> list[ModelRun]:
    """A run for each kind, seed and architecture; logs the parameters of each model."""
    runs = []
    for each in ids:
        level_sizes = SemanticIdTable.read(each.table).level_sizes
        for architecture in config.architectures:
            model = config_with_parameters(architecture, level_sizes, config.sizes)
            run = ModelRun(
                kind=each.kind,
                seed=each.seed,
                config=model,
                dataset=each.dataset,
                table=each.table,
                teraflops=config.sizes.teraflops,
                training=config.training,
                root=each.root,
            )
            log(f"{run.name}: {parameters_of(model):,} parameters, width {model.attn_embed_dim}.")
            runs.append(run)
    return runs
