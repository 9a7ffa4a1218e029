"""`rqrec compare configs/compare_beauty.gin`: architectures and kinds of semantic IDs on equal terms."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rqrec.core.artifact import read_manifest, write_json
from rqrec.core.progress import log
from rqrec.data.encoders import DEFAULT_MODEL
from rqrec.evaluation.registry import BASELINES
from rqrec.experiments.compare.ids import KINDS, SemanticIds, Tokenizing
from rqrec.experiments.compare.page import write_page
from rqrec.experiments.compare.processes import in_processes
from rqrec.experiments.compare.runs import (
    BaselineRun,
    ModelRun,
    Run,
    Training,
    is_finished,
    result_of,
    work_on,
)
from rqrec.experiments.compare.sizes import Sizes, parameters_of, sized
from rqrec.experiments.compare.summary import summary_of
from rqrec.models.architectures import ARCHITECTURES
from rqrec.stages.inputs import describe, inputs_of
from rqrec.tokenizer.semantic_ids import SemanticIdTable

RESULTS_FILE = "comparison.json"
DEPTHS = {"decoder_only": 3, "encoder_decoder": 2, "hierarchical": 2}


def compare(
    dataset: str = "amazon",
    dataset_folder: str = "dataset/amazon",
    dataset_split: str = "beauty",
    text_encoder: str = DEFAULT_MODEL,
    collaborative: int = 0,
    save_dir_root: str = "out/compare",
    architectures: Sequence[str] = tuple(ARCHITECTURES),
    semantic_ids: Sequence[str] = tuple(KINDS),
    seeds: Sequence[int] = (0, 1),
    baselines: Sequence[str] = (),
    jobs: int = 1,
    parameters: int = 500_000,
    tolerance: float = 0.05,
    teraflops: float = 3.5,
    max_items: int = 20,
    attn_heads: int = 4,
    attn_dropout: float = 0.2,
    attn_layers: Mapping[str, int] = DEPTHS,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    warmup: float = 0.05,
    validations: int = 4,
    validation_users: int = 4096,
    beam_width: int = 20,
    save_model_every: int = 200,
    vae_iterations: int = 2000,
    vae_batch_size: int = 512,
    vae_learning_rate: float = 1e-3,
    vae_embed_dim: int = 32,
    vae_hidden_dims: Sequence[int] = (512, 256, 128),
    vae_codebook_size: int = 256,
    vae_n_layers: int = 3,
    findings: str | None = None,
) -> Path:
    """Train every architecture on every kind of semantic IDs with every seed; returns `save_dir_root`.

    The kinds are "trained" (an RQ-VAE), "untrained" (an RQ-VAE whose encoder is a random map) and "random"
    (codes by chance). A seed is that of the IDs and of the model. Every model has `parameters` and trains for
    `teraflops` (see `rqrec.experiments.compare.sizes`), is selected on validation ndcg@10 and tested once.

    `collaborative` is the width of vectors of who took what together, appended to the text's. `jobs` runs
    train at once, each in a process of one thread. What was finished with the same settings and inputs is
    found and used again, and an interrupted run goes on from its checkpoint.

    The results are `save_dir_root/comparison.json`, told in `report.md` and `report.html`. `findings` is a
    text file whose paragraphs end the report.

    Raises ValueError on unknown names and where an architecture cannot have so many parameters,
    ChildProcessError where a run failed.
    """
    _check("architectures", architectures, ARCHITECTURES)
    _check("semantic_ids", semantic_ids, KINDS)
    if not seeds or jobs < 1:
        raise ValueError(f"compare.seeds ({list(seeds)}) and compare.jobs ({jobs}) must have one at least.")
    if baselines:
        _check("baselines", baselines, BASELINES)
    closing = Path(findings).read_text(encoding="utf-8") if findings else ""
    sizes = Sizes(parameters, tolerance, teraflops, max_items, attn_heads, attn_dropout, dict(attn_layers))
    training = Training(
        batch_size,
        learning_rate,
        weight_decay,
        warmup,
        validations,
        validation_users,
        beam_width,
        save_model_every,
    )
    tokenizing = Tokenizing(
        vae_iterations,
        vae_batch_size,
        vae_learning_rate,
        vae_embed_dim,
        tuple(vae_hidden_dims),
        vae_codebook_size,
        vae_n_layers,
    )
    inputs = inputs_of(
        dataset, Path(dataset_folder), dataset_split, text_encoder, collaborative=collaborative
    )
    if inputs.dataset is None:
        raise ValueError(f"{dataset_folder} holds embeddings alone; a comparison needs interactions too.")
    root = Path(save_dir_root)
    ids = [
        SemanticIds(kind, seed, inputs.dataset, inputs.embeddings, tokenizing, root)
        for kind in semantic_ids
        for seed in seeds
    ]
    missing = {one.name: one for one in ids if not one.is_made()}
    in_processes(make_ids, missing, jobs, root / "logs", "Making semantic IDs")
    runs: list[Run] = [BaselineRun(name, inputs.dataset, inputs.embeddings, root) for name in baselines]
    runs += _model_runs(ids, architectures, sizes, training)
    unfinished = {run.name: run for run in runs if not is_finished(run)}
    log(f"{len(runs) - len(unfinished)} of {len(runs)} runs are finished already.")
    in_processes(work_on, unfinished, jobs, root / "logs", "Comparing")
    found = [result_of(run) for run in runs]
    settings = {"sizes": asdict(sizes), "training": asdict(training), "tokenizer": asdict(tokenizing)}
    results = {
        "data": describe(dataset, dataset_split),
        "dataset": read_manifest(inputs.dataset, "dataset").metrics,
        "embeddings": read_manifest(inputs.embeddings, "embeddings").settings,
        "settings": settings,
        "semantic_ids": [{"kind": one.kind, "seed": one.seed, **one.facts()} for one in ids],
        "runs": found,
        "summary": summary_of(found),
    }
    write_json(root / RESULTS_FILE, results)
    write_page(root, results, closing)
    return root


def _model_runs(
    ids: Sequence[SemanticIds], architectures: Sequence[str], sizes: Sizes, training: Training
) -> list[ModelRun]:
    """A run for each kind, seed and architecture, and what each model has of parameters, told."""
    runs = []
    for one in ids:
        level_sizes = SemanticIdTable.read(one.table).level_sizes
        for name in architectures:
            config = sized(name, level_sizes, sizes)
            run = ModelRun(
                one.kind, one.seed, config, one.dataset, one.table, sizes.teraflops, training, one.root
            )
            runs.append(run)
            log(f"{run.name}: {parameters_of(config):,} parameters, width {config.attn_embed_dim}.")
    return runs


def make_ids(ids: SemanticIds) -> None:
    """Its making, as a function that travels to another process."""
    ids.make()


def _check(name: str, chosen: Sequence[str], allowed: Collection[str]) -> None:
    if not chosen or (unknown := [one for one in chosen if one not in allowed]):
        bad = repr(unknown[0]) if chosen else "nothing"
        raise ValueError(f"compare.{name} has {bad}; allowed are {', '.join(allowed)}.")
