"""`rqrec evaluate`: evaluate a trained model or a baseline on one split of a dataset.

Shapes: N items.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import MANIFEST, check_inputs, find, find_input, read_manifest, reuse
from rqrec.core.device import device_of
from rqrec.core.progress import log
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import (
    check_embeddings_of,
    embeddings_hash,
    embeddings_protocol,
    read_content_vectors,
)
from rqrec.data.protocols import check_protocol, protocol_of
from rqrec.data.sequences import Histories
from rqrec.data.splits import Split, get_protocol
from rqrec.evaluation.measure import EvalResult, measure, measure_each
from rqrec.evaluation.registry import fit_baseline
from rqrec.evaluation.results_io import EvalSetup, write_evaluation
from rqrec.retrieval.artifact import CODES, RetrievalArtifact, read_retrieval, read_sasrec
from rqrec.retrieval.changes import current_version
from rqrec.retrieval.defaults import BEAM_WIDTH
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender, Ranked
from rqrec.stages.evaluate_config import EvaluateConfig
from rqrec.tokenizer.semantic_ids import tuple_ranks

MODELS = ("retrieval", "sasrec")  # artefact types that can recommend


@dataclass(frozen=True)
class EvalTarget:
    """What is evaluated."""

    recommender: Callable[[Split, int], ItemRecommender]
    """Returns the recommender, given the split and the number of items; baselines are fitted to it."""
    name: str
    selected: str
    """One sentence on how the recommender was selected."""
    inputs: Mapping[str, str]
    """The hashes of the evaluated artefacts, by artefact type."""
    keys_N: NDArray[np.int64] | None = None
    """See `target_id_ranks`; None if ranks by semantic ID are not reported."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Inference settings such as the beam width."""


def evaluate(
    config: EvaluateConfig,
    artifact: Path,
    dataset: Path | None = None,
    *,
    compare: Path | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Path:
    """Evaluate a "retrieval" or "sasrec" artefact, or the one in a run folder.

    Without `dataset`, the one that the model was trained on is used, if it lies near. `compare` is another evaluation
    of the same examples, to test against. Returns the "evaluation" artefact: `out`, by default `evaluation_<split>`
    next to the model (with the names of the experts, if not all are evaluated). One with the same settings and inputs
    is reused.

    Raises ValueError if the model was trained on another dataset or with another protocol, because its training
    data may then contain test examples.
    """
    model, dataset, setup = _setup(config, artifact, dataset)
    target = _target(model, config)
    name = "_".join(("evaluation", config.split, *config.experts))
    return _evaluate(target, dataset, setup, compare, out or model.parent / name, config.seed, force=force)


def evaluate_parts(
    config: EvaluateConfig,
    artifact: Path,
    dataset: Path,
    parts: Mapping[Path, tuple[str, ...]],
    *,
    compare: Path | None = None,
) -> None:
    """`evaluate` with several choices of a joined model's experts, in one pass over the examples.

    `parts` are the experts by folder of the evaluation; those that exist already are reused.
    """
    model, dataset, setup = _setup(config, artifact, dataset)
    checkpoint = read_retrieval(model)
    targets = {
        out: _target(model, replace(config, experts=experts), checkpoint) for out, experts in parts.items()
    }
    targets = {
        out: target for out, target in targets.items() if not _reuse(target, setup, compare, out, config.seed)
    }
    if not targets:
        return
    ensemble = checkpoint.ensemble(
        checkpoint.retriever(config.beam_width or BEAM_WIDTH, device_of(config.device))
    )
    names = [checkpoint.select(parts[out] or None) for out in targets]
    data = Dataset.read(dataset)
    split = get_protocol(setup.protocol)(data.sequences)

    def recommend(histories: Histories, k: int) -> list[tuple[Ranked, ...]]:
        choices = (setup.exclude_seen, not setup.exclude_seen)
        lists = [ensemble.recommend_parts(histories, k, names, exclude_seen=one) for one in choices]
        return list(zip(*lists, strict=True))

    results = measure_each(
        recommend,
        split.test if setup.split == "test" else split.validation,
        split.train,
        len(data.catalog),
        keys_N=next(iter(targets.values())).keys_N,
        description="Evaluating the experts",
    )
    for (out, target), result in zip(targets.items(), results, strict=True):
        _write(result, target, setup, compare, out, config.seed)


def _setup(config: EvaluateConfig, artifact: Path, dataset: Path | None) -> tuple[Path, Path, EvalSetup]:
    """The folders of the model and its dataset, and what is evaluated."""
    model = find_model(artifact)
    dataset = find(dataset, "dataset") if dataset else _dataset_of(model)
    check_inputs(model, {"dataset": dataset})
    if version := current_version(model):
        log(
            f"The model is evaluated with the catalogue of its training, without the changes up to version {version}."
        )
    trained_with = protocol_of(read_manifest(model)) or "leave_one_out"
    check_protocol(model, trained_with, config.protocol or trained_with)
    exclude_seen = read_manifest(model).settings.get("exclude_seen", True)
    if config.exclude_seen is not None:
        exclude_seen = config.exclude_seen
    return model, dataset, EvalSetup(config.split, trained_with, exclude_seen)


def evaluate_baseline(
    config: EvaluateConfig,
    baseline: str,
    dataset: Path,
    embeddings: Path | None = None,
    *,
    compare: Path | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Path:
    """Fit a baseline (see `rqrec.evaluation.registry`) to the training sequences and evaluate it.

    Returns the "evaluation" artefact: `out`, by default `evaluation_<baseline>_<split>` next to the dataset (with
    the protocol if it is not leave_one_out).
    """
    dataset = find(dataset, "dataset")
    protocol = config.protocol or "leave_one_out"
    inputs = {"dataset": read_manifest(dataset, "dataset").hash}
    vectors = None
    if embeddings is not None:
        check_embeddings_of(embeddings, dataset)
        check_protocol(embeddings, embeddings_protocol(embeddings), protocol)
        vectors = read_content_vectors(embeddings)
        inputs["embeddings"] = embeddings_hash(embeddings)

    exclude_seen = config.exclude_seen is not False

    def fit(split: Split, n_items: int) -> ItemRecommender:
        return fit_baseline(baseline, split, n_items, vectors, exclude_seen=exclude_seen)

    target = EvalTarget(fit, baseline, "A baseline with its default settings.", inputs)
    ending = config.split if protocol == "leave_one_out" else f"{config.split}_{protocol}"
    out = out or dataset.parent / f"evaluation_{baseline}_{ending}"
    setup = EvalSetup(config.split, protocol, exclude_seen)
    return _evaluate(target, dataset, setup, compare, out, config.seed, force=force)


def find_model(artifact: Path) -> Path:
    """The folder of a "retrieval" or "sasrec" artefact: `artifact` itself, or the one in a run folder."""
    artifact = Path(artifact)
    if (artifact / MANIFEST).is_file():
        if (found := read_manifest(artifact).artifact_type) not in MODELS:
            raise ValueError(
                f"{artifact} is an artefact of type {found!r}, which cannot recommend: use {', '.join(MODELS)}."
            )
        return artifact
    try:
        return find(artifact, "retrieval")
    except FileNotFoundError as error:
        try:
            return find(artifact, "sasrec")
        except FileNotFoundError:
            raise error from None


def _dataset_of(model: Path) -> Path:
    """The dataset that a model was trained on, if it lies near."""
    dataset = find_input(model, "dataset")
    if dataset is None:
        raise FileNotFoundError(
            f"The dataset that {model} was made from is not in the folders around it: give it with --dataset."
        )
    return dataset


def _target(model: Path, config: EvaluateConfig, checkpoint: RetrievalArtifact | None = None) -> EvalTarget:
    """What is evaluated of an artefact; `checkpoint` is a "retrieval" artefact that was read before."""
    manifest = read_manifest(model)
    best = manifest.metrics["validation"]
    ending = {
        "test": ", tested once.",
        "validation": "; metrics on the validation split therefore flatter the model.",
    }
    # A joined model was chosen by its weights, not by the step of a training.
    step = f" at step {best['step']:.0f}" if "step" in best else ""
    selected = (
        f"Selected on validation NDCG@10 ({best['ndcg@10']:.4f}{step}"
        f"{_selection(manifest.settings)}){ending[config.split]} "
        f"One seed ({manifest.settings['training']['seed']})."
    )
    inputs = {"dataset": manifest.inputs["dataset"], manifest.artifact_type: manifest.hash}
    device = device_of(config.device)
    if manifest.artifact_type == "sasrec":
        if config.beam_width is not None:
            raise ValueError("SASRec scores every item: it has no beam, so leave --beam-width out.")
        if config.experts:
            raise ValueError("SASRec is a single model, so leave --experts out.")
        sasrec = ExhaustiveRecommender(read_sasrec(model).model.to(device))
        return EvalTarget(lambda *_: sasrec, "SASRec", selected, inputs)
    found = checkpoint or read_retrieval(model)
    beam_width, names = config.beam_width or BEAM_WIDTH, found.select(config.experts or None)
    # Reassigned codes are unique without a deduplication code, so ranks by ID would equal ranks by item.
    table = found.table
    keys_N = tuple_ranks(table.content_codes) if table.has_extra_code else None
    name = manifest.settings["model"]["architecture"]
    settings: dict[str, Any] = {"beam_width": beam_width}
    if len(found.types) > 1:
        name = f"{name}: {', '.join(names)}" if names == [CODES] else ", ".join(names)
        settings["experts"] = {expert: asdict(found.settings[expert]) for expert in names}
    return EvalTarget(
        lambda *_: found.ensemble(found.retriever(beam_width, device), names),
        name,
        selected,
        inputs,
        keys_N,
        settings,
    )


def _selection(settings: Mapping[str, Any]) -> str:
    """How validations recommended; empty for a model of an earlier version, which does not say."""
    if "exclude_seen" not in settings:
        return ""
    beam = f", with a beam of {settings['beam_width']}" if "beam_width" in settings else ""
    return f"{beam}, seen items {'excluded' if settings['exclude_seen'] else 'allowed'}"


def _evaluate(
    target: EvalTarget,
    dataset: Path,
    setup: EvalSetup,
    compare: Path | None,
    out: Path,
    seed: int,
    *,
    force: bool,
) -> Path:
    if _reuse(target, setup, compare, out, seed, force=force):
        return out
    data = Dataset.read(dataset)
    split = get_protocol(setup.protocol)(data.sequences)
    result = measure(
        target.recommender(split, len(data.catalog)),
        split.test if setup.split == "test" else split.validation,
        split.train,
        len(data.catalog),
        keys_N=target.keys_N,
        exclude_seen=setup.exclude_seen,
        both=True,
        description=f"Evaluating {target.name}",
    )
    _write(result, target, setup, compare, out, seed)
    return out


def _inputs(target: EvalTarget, compare: Path | None) -> dict[str, str]:
    inputs = dict(target.inputs)
    if compare is not None:
        inputs["compared_with"] = read_manifest(find(compare, "evaluation"), "evaluation").hash
    return inputs


def _reuse(
    target: EvalTarget, setup: EvalSetup, compare: Path | None, out: Path, seed: int, *, force: bool = False
) -> bool:
    settings = {"recommender": target.name, **asdict(setup), **target.settings, "seed": seed}
    return reuse(out, "evaluation", settings, _inputs(target, compare), force=force)


def _write(
    result: EvalResult, target: EvalTarget, setup: EvalSetup, compare: Path | None, out: Path, seed: int
) -> None:
    write_evaluation(
        out,
        result,
        setup,
        recommender=target.name,
        selected=target.selected,
        inputs=_inputs(target, compare),
        settings=target.settings,
        compare=compare,
        seed=seed,
    )
