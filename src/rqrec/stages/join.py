"""`rqrec join`: join trained models and neighbours to one recommender, as validation says.

Shapes: N items, C width of a content vector.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rqrec.core.artifact import Manifest, create, find, read_manifest, reuse
from rqrec.core.progress import log
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import content_of, embeddings_hash
from rqrec.data.protocols import protocol_of
from rqrec.data.splits import get_protocol
from rqrec.knn.fit import fit_knn_index
from rqrec.models.retrieval_model import parameter_count
from rqrec.retrieval.artifact import (
    CODES,
    OtherExpert,
    RetrievalArtifact,
    read_retrieval,
    read_sasrec,
    write_retrieval,
)
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.retrieval.item_vectors import ItemVectors
from rqrec.stages.evaluate import find_model
from rqrec.stages.join_config import JoinConfig
from rqrec.training.fit_ensemble import fit_ensemble
from rqrec.training.fit_new_items import fit_new_items
from rqrec.training.processes import Processes

NEIGHBOURS = "neighbours"


def join(
    config: JoinConfig,
    models: Sequence[Path],
    dataset: Path,
    out: Path,
    *,
    embeddings: Path | None = None,
    force: bool = False,
) -> Path:
    """Join the models of several runs to one "retrieval" artefact, or reuse it; returns `out`.

    The first of `models` is a "retrieval" artefact (or the run folder of one), which becomes the expert "codes"; the
    others are "retrieval" artefacts (experts "codes_2", ...) or "sasrec" artefacts ("dense", ...). All must come from
    this dataset, with the same protocol and the same choice about seen items. With `config.neighbours`, the expert
    "neighbours" is fitted to the training interactions and, if given, the content of `embeddings`. The powers and the
    share of each expert are those with the highest NDCG@10 on the validation split.

    Raises ValueError if the models do not fit together, or `out` was made differently.
    """
    folders, dataset = [find_model(model) for model in models], find(dataset, "dataset")
    manifests = [read_manifest(folder) for folder in folders]
    protocol, exclude_seen = _check(folders, manifests, dataset)
    settings = {
        "model": manifests[0].settings["model"],
        "training": manifests[0].settings["training"],
        "protocol": protocol,
        "exclude_seen": exclude_seen,
        **asdict(config),
    }
    names = _names(manifests)
    inputs = {"dataset": read_manifest(dataset).hash}
    inputs |= {name: manifest.hash for name, manifest in zip(names, manifests, strict=True)}
    if embeddings is not None:
        inputs["embeddings"] = embeddings_hash(embeddings)
    if reuse(out, "retrieval", settings, inputs, force=force):
        return Path(out)
    data = Dataset.read(dataset)
    split = get_protocol(protocol)(data.sequences)
    artifact = read_retrieval(folders[0])
    others = {name: _read(folder) for name, folder in list(zip(names, folders, strict=True))[1:]}
    if config.neighbours:
        n_items = len(data.catalog)
        content_NC = None if embeddings is None else content_of(embeddings, dataset, protocol, n_items)
        others[NEIGHBOURS] = fit_knn_index(split, n_items, content_NC, exclude_seen=exclude_seen)
    unfitted = {name: ExpertSettings(share=0.5 if name == NEIGHBOURS else None) for name in (CODES, *others)}
    artifact = artifact._replace(others=others, settings=unfitted)
    artifact = artifact._replace(vectors=_vectors(embeddings, artifact, manifests))
    retriever = artifact.retriever(config.beam_width, Processes.join().device)
    fitted = fit_ensemble(
        artifact.ensemble(retriever),
        split.validation,
        exclude_seen=exclude_seen,
        users=config.validation_users,
    )
    artifact = artifact._replace(settings=fitted.settings)
    metrics = {
        "parameters": sum(map(parameter_count, artifact.models)),
        "validation": fitted.metrics,
        "experts": {name: asdict(one) for name, one in fitted.settings.items()},
    }
    if artifact.vectors is not None:
        calibrated = fit_new_items(
            artifact.ensemble(retriever),
            artifact.vectors.content,
            split,
            cost=config.new_item_cost,
            exclude_seen=exclude_seen,
        )
        artifact = artifact._replace(new_items=calibrated.settings)
        metrics["new_items"] = {**asdict(calibrated.settings), "curve": calibrated.curve}
    with create(out, "retrieval", settings=settings, inputs=inputs, metrics=metrics) as target:
        write_retrieval(target, artifact)
    log(f"The joined recommender is in {out}: validation ndcg@10 {fitted.metrics['ndcg@10']:.4f}.")
    return Path(out)


def _vectors(
    embeddings: Path | None,
    artifact: RetrievalArtifact,
    manifests: Sequence[Manifest],
) -> ItemVectors | None:
    """The vectors of the items, if all experts were made from the same ones."""
    kept = {name: one.tokenizer for name, one in artifact.codes_models.items()}
    sources = {name: one and one.embeddings for name, one in kept.items()}
    read = zip(_names(manifests), manifests, strict=True)
    sources |= {
        f"the input of {name}": one.inputs["embeddings"] for name, one in read if "embeddings" in one.inputs
    }
    if embeddings is not None:
        return ItemVectors.common(embeddings, sources)
    vectors = artifact.vectors
    return vectors if vectors is not None and {*sources.values()} == {vectors.settings.source} else None


def _names(manifests: Sequence[Manifest]) -> list[str]:
    """The names of the experts: codes, codes_2, dense, ..."""
    names: list[str] = []
    for manifest in manifests:
        kind = CODES if manifest.artifact_type == "retrieval" else "dense"
        number = 1 + sum(name.split("_")[0] == kind for name in names)
        names.append(kind if number == 1 else f"{kind}_{number}")
    return names


def _check(folders: Sequence[Path], manifests: Sequence[Manifest], dataset: Path) -> tuple[str, bool]:
    """The protocol of the models, and whether they exclude seen items. Raises ValueError if they do not agree."""
    if not folders:
        raise ValueError("There is no model to join: give at least one.")
    if manifests[0].artifact_type != "retrieval":
        raise ValueError(
            f"{folders[0]} is a {manifests[0].artifact_type!r} artefact, but the first model must generate semantic "
            f"IDs: give one that `rqrec train-decoder` made first."
        )
    dataset_hash = read_manifest(dataset, "dataset").hash
    first: tuple[Any, Any] | None = None
    for number, (folder, manifest) in enumerate(zip(folders, manifests, strict=True)):
        if manifest.hash in (one.hash for one in manifests[:number]):
            raise ValueError(f"{folder} is the same model as one before it: give each only once.")
        if "experts" in manifest.metrics:
            raise ValueError(
                f"{folder} is already joined of several experts: give the models that it was made from."
            )
        if manifest.inputs.get("dataset") != dataset_hash:
            raise ValueError(f"{folder} was not trained on {dataset}: join models of the same dataset.")
        found = protocol_of(manifest) or "leave_one_out", manifest.settings.get("exclude_seen", True)
        first = first or found
        for name, mine, others in zip(("protocol", "exclude_seen"), found, first, strict=True):
            if mine != others:
                raise ValueError(
                    f"{folder} was trained with {name}={mine!r}, but {folders[0]} with {others!r}: join models that "
                    f"were trained alike."
                )
    assert first is not None
    return first


def _read(folder: Path) -> OtherExpert:
    if read_manifest(folder).artifact_type == "sasrec":
        return read_sasrec(folder).model
    return read_retrieval(folder).codes_models[CODES]
