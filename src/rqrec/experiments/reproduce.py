"""One recipe from raw files to test metrics, the same for every dataset, within a time budget.

Item embeddings are content vectors with collaborative vectors appended. Balanced RQ-k-means makes two tables of
semantic IDs, which two hierarchical models learn; two SASRec models learn the items themselves, with and without
their content. These experts are trained side by side, joined with neighbours as validation says, and tested once,
together and apart, beside baselines. The settings are in recipe.gin; docs/experiments.md describes how each was
selected. None depends on the dataset.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rqrec.core.artifact import MANIFEST, read_json, read_manifest, write_json
from rqrec.core.config import configured
from rqrec.core.workers import cores
from rqrec.data.sequences import Sequences
from rqrec.data.sources.custom import CustomFiles
from rqrec.data.splits import get_protocol
from rqrec.evaluation.measure import EvalResult
from rqrec.evaluation.results_io import EVALUATION_FILE, MAIN_METRICS
from rqrec.evaluation.significance import difference
from rqrec.experiments.reproduce_config import ReproduceConfig
from rqrec.experiments.run import Run, only_run, read_numbers
from rqrec.experiments.tasks import run_tasks
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.evaluate import EvaluateConfig, evaluate_baseline, evaluate_parts
from rqrec.stages.fit_rqkmeans import FitRqKMeansConfig, fit_rqkmeans
from rqrec.stages.join import JoinConfig, join
from rqrec.stages.prepare import PrepareConfig, prepare
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec

TrainingT = TypeVar("TrainingT", TrainDecoderConfig, TrainSasRecConfig)

RECIPE = Path(__file__).with_name("recipe.gin")
N_TABLES = 2  # of semantic IDs
# The retrieval models: their name, the file of the settings in which each differs from the recipe, and their table.
CODES: tuple[tuple[str, str | None, int], ...] = (
    ("codes", None, 1),
    ("codes_2", "recipe_codes_2.gin", 0),
)
DENSE: tuple[tuple[str, str | None], ...] = (("dense", None), ("dense_2", "recipe_dense_2.gin"))
N_TRAINED = len(CODES) + len(DENSE)
RESULT_FILE = "reproduction.json"
BUDGET_FILE = "budget.json"  # what the minutes of each training follow from
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
# Name of each row of the test metrics, and the experts that it joins (see `RetrievalArtifact.select`).
EXPERTS = {"codes": ("codes",), "sasrec": ("dense",), "trained": ("trained",), "all": ()}
BASELINES = ("popularity", "item_knn", "hybrid_knn")
ROWS = (*EXPERTS, *BASELINES)
# Name of each table of test metrics: what it says about items of the history (see docs/evaluation.md).
TABLES = {"test": "excluded", "test_seen_allowed": "allowed"}
COMPARED_WITH = "hybrid_knn"  # the baseline that each row is tested against
AGAINST = f"against_{COMPARED_WITH}"
TRAINING_SHARE = 0.6  # of the time that the earlier stages leave; the rest is for weights and evaluations
MIN_LEFT = (
    0.2  # share of the budget for training and evaluations, even if encoding long texts took most of it
)


def reproduce(config: ReproduceConfig, source: str, raw: Path | CustomFiles, out: Path) -> dict[str, Any]:
    """Run or reuse every stage in the folder `out`; returns the results, which are also in `reproduction.json`.

    `source` is a key of `SOURCES`, `raw` the folder of its raw files, or the files themselves for "custom". Raises
    ValueError for an unknown source, or if `out` holds artefacts that were made differently.
    """
    if source not in SOURCES:
        raise ValueError(f"source is {source!r}; allowed are {', '.join(SOURCES)}.")
    config = replace(config, jobs=config.jobs or cores())
    with only_run(out) as run:
        prepared = replace(SOURCES[source], options=config.prepare)
        inputs = make_inputs(run, prepared, raw, config.encoder, N_TABLES)
        _check_budget(run, config)
        runs = [_seed(run, config, inputs, seed) for seed in range(config.seeds)]
        facts = {
            "source": source,
            "tie_break": config.prepare.tie_break,
            "seeds": runs,
            **{
                table: {row: _over_seeds([one[table][row] for one in runs]) for row in ROWS}
                for table in TABLES
            },
            AGAINST: _against(run.folder, config.seeds),
            "parameters": runs[0]["parameters"],
            "collision_rate": read_manifest(inputs.semantic_ids[0]).metrics["collision_rate"],
            "seconds": run.seconds,
        }
        write_json(run.folder / RESULT_FILE, facts)
        return facts


def _check_budget(run: Run, config: ReproduceConfig) -> None:
    """Note what the minutes of a training follow from; raise ValueError if another command noted something else.

    A training that would have had more or fewer minutes may have another result, even if no limit ended it: its
    schedules follow the time, too.
    """
    path = run.folder / BUDGET_FILE
    asked = {"max-minutes": config.max_minutes, "seeds": config.seeds, "jobs": config.jobs or 1}
    before = read_numbers(path)
    if before is None:
        write_json(path, asked)
    elif before != asked:
        options = " ".join(f"--{name} {value:g}" for name, value in before.items())
        raise ValueError(
            f"{run.folder} was made with {options}, and this command has "
            f"{', '.join(f'--{name} {value:g}' for name, value in asked.items() if before.get(name) != value)}, so "
            f"its models would be trained for other times. Repeat it with {options}, choose another folder with "
            f"--out, or remove {path.name} and the folders seed_* in it: what was made before them is reused."
        )


@dataclass(frozen=True)
class Inputs:
    """What all seeds share: folders of artefacts, and the seconds that it took to make them."""

    dataset: Path
    embeddings: Path
    semantic_ids: tuple[Path, ...]
    seconds: float


def make_inputs(
    run: Run, prepared: PrepareConfig, raw: Path | CustomFiles, encoder: str | None, tables: int
) -> Inputs:
    """Run or reuse the stages up to the semantic IDs, of which there are several tables."""
    vectors = raw.embeddings if isinstance(raw, CustomFiles) else None
    if vectors and encoder is not None:
        raise ValueError("encoder has no effect on given embeddings: leave out one of them.")
    dataset = run.stage("dataset", lambda folder: prepare(prepared, raw, folder))
    bindings = [] if encoder is None else [f"embed.encoder={encoder!r}"]
    embedded = configured(EmbedConfig(), ["embed"], [RECIPE], bindings)
    get_protocol(embedded.protocol)(Sequences.read(dataset))  # raises before texts are encoded
    embeddings = run.stage("embeddings", lambda folder: embed(embedded, dataset, folder, vectors=vectors))
    fitted = configured(FitRqKMeansConfig(), ["fit_rqkmeans"], [RECIPE])
    made, names = [], [dataset.name, embeddings.name]
    for number in range(tables):
        ending = f"_{number + 1}" if number else ""
        one = replace(fitted, seed=number)
        tokenizer = run.stage(
            f"rqkmeans{ending}",
            lambda folder, one=one: fit_rqkmeans(one, embeddings, folder),  # type: ignore[misc]
        )
        table = run.stage(
            f"semantic_ids{ending}",
            lambda folder, tokenizer=tokenizer: tokenize(  # type: ignore[misc]
                TokenizeConfig(), tokenizer, embeddings, folder, dataset=dataset
            ),
        )
        made.append(table)
        names += [tokenizer.name, table.name]
    # A run that was killed may have made a stage without recording its seconds.
    return Inputs(dataset, embeddings, tuple(made), sum(run.seconds.get(name, 0.0) for name in names))


def _seed(run: Run, config: ReproduceConfig, inputs: Inputs, seed: int) -> dict[str, Any]:
    """Train, join and test the experts of one seed; returns its metrics."""
    experts = run.folder / f"seed_{seed}" / "experts"
    minutes = training_minutes(inputs.seconds, config.max_minutes) / config.seeds
    trainings = _trainings(config, inputs, seed, experts, minutes)
    train_experts(run, f"seed_{seed}/experts", trainings, config.jobs)
    joining = configured(JoinConfig(), ["join"], [RECIPE])
    names = [*(name for name, _, _ in CODES), *(name for name, _ in DENSE)]
    models = [experts / name for name in names]
    model = run.stage(
        f"seed_{seed}/retrieval",
        lambda folder: join(joining, models, inputs.dataset, folder, embeddings=inputs.embeddings),
    )
    tests = {row: run.folder / f"evaluation_{row}" for row in BASELINES}
    for row in BASELINES:  # first, because the experts are compared with one of them
        vectors = inputs.embeddings if row == "hybrid_knn" else None
        run.stage(
            f"evaluation_{row}",
            lambda out, row=row, vectors=vectors: evaluate_baseline(  # type: ignore[misc]
                EvaluateConfig(), row, inputs.dataset, vectors, out=out
            ),
        )
    parts = {model.parent / f"evaluation_{row}": experts for row, experts in EXPERTS.items()}
    compared = tests[COMPARED_WITH]

    def test() -> None:
        evaluate_parts(EvaluateConfig(), model, inputs.dataset, parts, compare=compared)

    if all((folder / MANIFEST).is_file() for folder in parts):
        test()  # reuses the evaluations, or says in what they differ
    else:
        run.timed(f"seed_{seed}/tests", test)
    tests |= dict(zip(EXPERTS, parts, strict=True))
    found = {row: read_json(folder / EVALUATION_FILE) for row, folder in tests.items()}
    manifest = read_manifest(model)
    return {
        "seed": seed,
        "parameters": manifest.metrics["parameters"],
        "experts": manifest.metrics["experts"],
        "validation": manifest.metrics["validation"],
        **{
            table: {row: _metrics(found[row]["seen_items"][choice]["metrics"]) for row in ROWS}
            for table, choice in TABLES.items()
        },
        AGAINST: {row: found[row]["comparison"]["metrics"] for row in EXPERTS},
    }


def training_minutes(seconds: float, max_minutes: float) -> float:
    """The time budget of all trainings, after stages that took some seconds."""
    left = max(max_minutes - seconds / 60, MIN_LEFT * max_minutes)
    return TRAINING_SHARE * left


@dataclass(frozen=True)
class Training:
    """The training of one expert, in a process of its own."""

    name: str
    config: TrainDecoderConfig | TrainSasRecConfig
    inputs: Inputs
    table: int = 0

    @property
    def minutes(self) -> float:
        """Its time limit."""
        return self.config.loop.max_minutes or 0.0

    @property
    def folder(self) -> Path:
        """The artefact of the expert."""
        kind = "sasrec" if isinstance(self.config, TrainSasRecConfig) else "retrieval"
        return self.config.checkpoints.save_dir_root / kind

    def run(self) -> None:
        """Train, or resume."""
        if isinstance(self.config, TrainSasRecConfig):
            train_sasrec(self.config, dataset=self.inputs.dataset, embeddings=self.inputs.embeddings)
        else:
            train_decoder(
                self.config,
                dataset=self.inputs.dataset,
                semantic_ids=self.inputs.semantic_ids[self.table],
                embeddings=self.inputs.embeddings,
            )


def _trainings(
    config: ReproduceConfig, inputs: Inputs, seed: int, folder: Path, minutes: float
) -> list[Training]:
    """The trainings of a seed's experts; each gets an equal share of `minutes` on `config.jobs` processes."""
    minutes = minutes_of_each(minutes, config.jobs or 1, N_TRAINED)
    trainings = []
    # The models differ in their first weights and order of batches too.
    for number, (name, differing) in enumerate(DENSE):  # first, because they take longest
        sasrec = configured(TrainSasRecConfig(), ["train_sasrec"], _files(differing))
        sasrec = part_of(sasrec, folder / name, minutes, seed=seed * len(DENSE) + number)
        trainings.append(Training(name, sasrec, inputs))
    for number, (name, differing, table) in enumerate(CODES):
        decoder = configured(TrainDecoderConfig(), ["train_decoder"], _files(differing))
        decoder = part_of(decoder, folder / name, minutes, seed=seed * len(CODES) + number + 1)
        trainings.append(Training(name, decoder, inputs, table))
    return trainings


def minutes_of_each(minutes: float, jobs: int, count: int) -> float:
    """The time limit of each training: they share the minutes if there are fewer processes than trainings."""
    return round(minutes * min(1, jobs / count), 3)


def part_of(recipe: TrainingT, folder: Path, minutes: float, *, seed: int) -> TrainingT:
    """A training of the recipe in a folder of its own, with a time limit and a seed."""
    return replace(
        recipe,
        loop=replace(recipe.loop, seed=seed, max_minutes=minutes),
        checkpoints=replace(recipe.checkpoints, save_dir_root=folder),
    )


def _files(differing: str | None) -> list[Path]:
    """The recipe, and the file of the settings in which a model differs from it."""
    return [RECIPE] if differing is None else [RECIPE, RECIPE.with_name(differing)]


def train_experts(run: Run, name: str, trainings: Sequence[Training], jobs: int | None) -> None:
    """Run trainings side by side, and record the seconds that all of them took."""
    missing = []
    for training in trainings:
        if (training.folder / MANIFEST).is_file():
            with run.replaces_nothing():
                training.run()  # reuses the artefact, or says in what it differs
        else:
            missing.append(training)
    if missing:
        logs = run.folder / "logs" / name
        limit = 60 * sum(training.minutes for training in missing) / min(jobs or 1, len(missing))
        run.timed(name, lambda: run_tasks(missing, jobs or 1, logs, "Training the experts", limit))


def _metrics(measured: Mapping[str, float]) -> dict[str, float]:
    return {metric: measured[metric] for metric in METRICS}


def _against(folder: Path, seeds: int) -> dict[str, dict[str, Any]]:
    """How each user's mean over the seeds differs from the baseline in every row, with seen items excluded."""
    baseline_C = EvalResult.read(folder / f"evaluation_{COMPARED_WITH}").ranks_C
    differences = {}
    for row in EXPERTS:
        runs = [EvalResult.read(folder / f"seed_{seed}" / f"evaluation_{row}") for seed in range(seeds)]
        ranks_TC = np.stack([one.ranks_C for one in runs])
        differences[row] = {name: difference(name, ranks_TC, baseline_C)._asdict() for name in MAIN_METRICS}
    return differences


def _over_seeds(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Mean and sample standard deviation of each metric; a single seed has no deviation."""
    summary = {}
    for name in METRICS:
        values = [measured[name] for measured in metrics]
        summary[name] = {"mean": statistics.fmean(values)}
        if len(values) > 1:
            summary[name]["deviation"] = statistics.stdev(values)
    return summary
