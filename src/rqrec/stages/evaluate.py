"""`rqrec evaluate`: a trained model or a baseline on a split of a dataset, to an artefact."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import MANIFEST, check_inputs, find, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import content_vectors, embeddings_hash
from rqrec.data.splits import split_named
from rqrec.evaluation.measure import measure
from rqrec.evaluation.registry import fit_baseline
from rqrec.evaluation.results_io import EvalSetup, write_evaluation
from rqrec.retrieval.artifact import read_checkpoint, read_sasrec
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import tuple_ranks

MODELS = ("retrieval", "sasrec")  # kinds of artefacts that recommend


@dataclass(frozen=True)
class EvalTarget:
    """What is evaluated: a recommender, its name, how it was chosen, and what it was made from.

    `keys_N`: see `target_id_ranks`; None where items have no semantic IDs. `settings`: what it is asked with.
    """

    recommender: ItemRecommender
    name: str
    selected: str
    inputs: Mapping[str, str]
    keys_N: NDArray[np.int64] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def evaluate_artifact(
    artifact: Path,
    dataset: Path | None = None,
    *,
    split: str = "test",
    protocol: str | None = None,
    beam_width: int | None = None,
    memory: bool = True,
    exclude_seen: bool = True,
    compare: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Evaluate a "retrieval" or "sasrec" artefact, or the one inside the folder of a run.

    Without `dataset`, that of the same run. `protocol` is the one that the model was trained with, unless
    given. With `memory` False the memory of a model that has one is left out. The result goes to `out`, by
    default `evaluation_<split>` beside the model. Returns its facts.

    Raises ValueError where the model was made from another dataset, or trained with another protocol: it
    would have seen what it is tested on.
    """
    model = find_model(artifact)
    dataset = find(dataset if dataset else _run_of(artifact), "dataset")
    check_inputs(model, {"dataset": dataset})
    trained_with = read_manifest(model).settings.get("split", "leave_one_out")
    if protocol not in (None, trained_with):
        raise ValueError(
            f"{model} was trained with the protocol {trained_with}: under {protocol} it may have trained on "
            f"what it would be tested on. Train with train.split={protocol!r}, or use {trained_with}."
        )
    judged = EvalSetup(split, trained_with, exclude_seen)
    subject = _eval_target(model, split, beam_width, memory)
    out = out or model.parent / f"evaluation_{split}"
    return _evaluate(subject, Dataset.read(dataset), judged, compare, out, seed)


def evaluate_baseline(
    name: str,
    dataset: Path,
    embeddings: Path | None = None,
    *,
    split: str = "test",
    protocol: str | None = None,
    exclude_seen: bool = True,
    compare: Path | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Fit a baseline (see `rqrec.evaluation.registry`) to the training split and evaluate it.

    The result goes to `out`, by default `evaluation_<name>_<split>` beside the dataset (with the protocol
    where it is not leave_one_out). Returns its facts.
    """
    dataset = find(dataset, "dataset")
    protocol = protocol or "leave_one_out"
    data = Dataset.read(dataset)
    inputs = {"dataset": read_manifest(dataset, "dataset").hash}
    vectors = None
    if embeddings is not None:
        vectors = content_vectors(embeddings)
        inputs["embeddings"] = embeddings_hash(embeddings)
    baseline = fit_baseline(name, split_named(protocol)(data.sequences).train, len(data.catalog), vectors)
    selected = "A baseline with its default settings."
    judged = EvalSetup(split, protocol, exclude_seen)
    ending = split if protocol == "leave_one_out" else f"{split}_{protocol}"
    out = out or dataset.parent / f"evaluation_{name}_{ending}"
    return _evaluate(EvalTarget(baseline, name, selected, inputs), data, judged, compare, out, seed)


def find_model(artifact: Path) -> Path:
    """The folder of a model that recommends: `artifact` itself, or the one inside the folder of a run."""
    artifact = Path(artifact)
    if (artifact / MANIFEST).is_file():
        if (kind := read_manifest(artifact).artifact_type) not in MODELS:
            raise ValueError(f"{artifact} holds {kind!r}, which recommends nothing: use {', '.join(MODELS)}.")
        return artifact
    try:
        return find(artifact, "retrieval")
    except FileNotFoundError as error:
        try:
            return find(artifact, "sasrec")
        except FileNotFoundError:
            raise error from None


def _run_of(artifact: Path) -> Path:
    if (Path(artifact) / MANIFEST).is_file():
        raise ValueError(f"{artifact} is a model alone: name the dataset that it was made from (--dataset).")
    return artifact


def _eval_target(model: Path, split: str, beam_width: int | None, memory: bool) -> EvalTarget:
    manifest = read_manifest(model)
    best = manifest.metrics["validation"]
    chosen = f"Selected on validation NDCG@10 ({best['ndcg@10']:.4f} at step {best['step']:.0f})"
    ending = {
        "test": ", tested once.",
        "validation": ", which these figures are of too: they flatter the model.",
    }
    if split not in ending:
        raise ValueError(f"There is no split {split!r} to evaluate on; use {' or '.join(ending)}.")
    selected = f"{chosen}{ending[split]} One seed ({manifest.settings['training']['seed']})."
    inputs = {"dataset": manifest.inputs["dataset"], manifest.artifact_type: manifest.hash}
    if manifest.artifact_type == "sasrec":
        if beam_width is not None:
            raise ValueError("SASRec scores every item: it has no beam, so leave --beam-width out.")
        return EvalTarget(ExhaustiveRecommender(read_sasrec(model).model), "SASRec", selected, inputs)
    checkpoint = read_checkpoint(model)
    if not memory:
        checkpoint = checkpoint._replace(memory=None)
    retriever = Retriever(checkpoint.generator(), checkpoint.table, beam_width or 50)
    # Codes that were reassigned are unique without a deduplication code: by ID is by item.
    shared = manifest.metrics.get("collisions", "extra_code") == "extra_code"
    keys_N = tuple_ranks(checkpoint.table.codes_NL[:, :-1]) if shared else None
    name = manifest.settings["model"]["architecture"]
    settings: dict[str, Any] = {"beam_width": retriever.beam_width}
    if checkpoint.memory:
        name += " with a memory"
        settings["memory"] = asdict(checkpoint.memory.settings)
    return EvalTarget(retriever, name, selected, inputs, keys_N, settings)


def _evaluate(
    subject: EvalTarget, data: Dataset, judged: EvalSetup, compare: Path | None, out: Path, seed: int
) -> dict[str, Any]:
    split = split_named(judged.protocol)(data.sequences)
    measured = measure(
        subject.recommender,
        split.test if judged.split == "test" else split.validation,
        split.train,
        len(data.catalog),
        keys_N=subject.keys_N,
        exclude_seen=judged.exclude_seen,
        description=f"Evaluating {subject.name}",
    )
    facts = write_evaluation(
        out,
        measured,
        judged,
        recommender=subject.name,
        selected=subject.selected,
        inputs=subject.inputs,
        settings=subject.settings,
        compare=compare,
        seed=seed,
    )
    return {"artifact": str(out), **facts}
