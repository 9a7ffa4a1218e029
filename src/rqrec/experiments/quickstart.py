"""From two files to a recommender that can be served, within a few minutes.

The stages and settings are those of the recipe (`rqrec.experiments.reproduce`), with one model of each kind: one that
generates semantic IDs and one SASRec, trained side by side, joined with the neighbours of the history's items.
"""

from pathlib import Path
from typing import Any, NamedTuple

from rqrec.core.artifact import MANIFEST, read_json, read_manifest, write_json
from rqrec.core.config import configured
from rqrec.core.progress import duration, log
from rqrec.core.replace import remove
from rqrec.core.workers import cores
from rqrec.data.sources.custom import CustomFiles
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.experiments.quickstart_config import QuickstartConfig
from rqrec.experiments.reproduce import (
    RECIPE,
    Inputs,
    Training,
    make_inputs,
    minutes_of_each,
    part_of,
    train_experts,
    training_minutes,
)
from rqrec.experiments.run import Run, only_run, read_numbers
from rqrec.stages.evaluate import EvaluateConfig, evaluate, evaluate_baseline
from rqrec.stages.join import JoinConfig, join
from rqrec.stages.prepare import PrepareConfig
from rqrec.stages.train_decoder import TrainDecoderConfig
from rqrec.stages.train_sasrec import TrainSasRecConfig

N_TRAINED = 2
BUDGET_FILE = "minutes.json"
MODEL, MEASURED, BASELINE = "retrieval", "evaluation", "evaluation_popularity"


class Quickstart(NamedTuple):
    """What a quickstart has made."""

    model: Path
    """The "retrieval" artefact."""
    facts: dict[str, Any]
    """Counts of the data, and test metrics of the model and of popularity."""


def quickstart(config: QuickstartConfig, files: CustomFiles, out: Path) -> Quickstart:
    """Run or reuse every stage in the folder `out`, from the files to a tested model.

    Raises ValueError if a file is not valid, or if `out` holds what was made from other files or with other settings.
    """
    with only_run(out) as run:
        prepared = PrepareConfig("custom", "", config.prepare)
        inputs = make_inputs(run, prepared, files, config.encoder, tables=1)
        minutes, anew = _budget(run, config, inputs)
        trainings = _trainings(config, inputs, run.folder / "experts", minutes)
        if anew:  # the joined model stays until the new one takes its place
            for training in trainings:
                remove(training.config.checkpoints.save_dir_root)
        train_experts(run, "experts", trainings, config.jobs or cores())
        joining = configured(JoinConfig(), ["join"], [RECIPE])
        models = [training.folder for training in trainings]
        trained = {read_manifest(folder).hash for folder in models}
        model = run.stage(
            MODEL,
            lambda folder: join(
                joining,
                models,
                inputs.dataset,
                folder,
                embeddings=inputs.embeddings,
                force=_is_outdated(folder, trained),
            ),
        )
        joined = {read_manifest(model).hash}
        run.stage(
            MEASURED,
            lambda folder: evaluate(
                EvaluateConfig(), model, inputs.dataset, out=folder, force=_is_outdated(folder, joined)
            ),
        )
        run.stage(
            BASELINE,
            lambda folder: evaluate_baseline(EvaluateConfig(), "popularity", inputs.dataset, out=folder),
        )
        return Quickstart(model, _facts(run))


def _budget(run: Run, config: QuickstartConfig, inputs: Inputs) -> tuple[float, bool]:
    """The minutes of training, and whether it begins anew because more or fewer minutes are asked for than before.

    The same command gets the minutes that it had, so that it finds its models.
    """
    path = run.folder / BUDGET_FILE
    before = read_numbers(path)
    if before is not None and not {"minutes", "training"} <= before.keys():
        raise ValueError(f"{path} must hold minutes and training. Remove {run.folder} to begin again.")
    if before is not None and before["minutes"] == config.minutes:
        return before["training"], False
    minutes = training_minutes(inputs.seconds, config.minutes)
    if before is not None:
        log(f"The models here were made with --minutes {before['minutes']:g}: they are trained again.")
    how_long = duration(60 * minutes)
    log(f"Training takes about {how_long}. An interrupted quickstart resumes with the same command.")
    write_json(path, {"minutes": config.minutes, "training": minutes})
    return minutes, before is not None


def _is_outdated(folder: Path, parents: set[str]) -> bool:
    """Whether an artefact was made from others than these (by hash): they were made again since."""
    return (folder / MANIFEST).is_file() and not parents <= set(read_manifest(folder).inputs.values())


def _trainings(config: QuickstartConfig, inputs: Inputs, folder: Path, minutes: float) -> list[Training]:
    """The trainings of the experts."""
    minutes = minutes_of_each(minutes, config.jobs or cores(), N_TRAINED)
    codes = configured(TrainDecoderConfig(), ["train_decoder"], [RECIPE])
    dense = configured(TrainSasRecConfig(), ["train_sasrec"], [RECIPE])
    return [
        Training("codes", part_of(codes, folder / "codes", minutes, seed=0), inputs),
        Training("dense", part_of(dense, folder / "dense", minutes, seed=0), inputs),
    ]


def _facts(run: Run) -> dict[str, Any]:
    counts = read_manifest(run.folder / "dataset").metrics
    return {
        **{name: counts[name] for name in ("users", "items", "interactions")},
        "model": read_json(run.folder / MEASURED / EVALUATION_FILE)["metrics"],
        "popularity": read_json(run.folder / BASELINE / EVALUATION_FILE)["metrics"],
        "seconds": run.seconds,
        "report": str(run.folder / MEASURED / "report.html"),
    }
