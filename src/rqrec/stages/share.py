"""`rqrec push` and `rqrec pull`: upload artefacts to Hugging Face, and download them."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rqrec.core.artifact import MANIFEST, Manifest, create, file_hash, find, read_json, read_manifest
from rqrec.core.hub import download_artifact, model_card, upload
from rqrec.core.progress import log
from rqrec.data.catalog import Catalog
from rqrec.evaluation.results_io import EVALUATION_FILE
from rqrec.retrieval.artifact import CONFIG_FILE, needs_times
from rqrec.retrieval.changes import current_version
from rqrec.tokenizer.model_card import model_card as tokenizer_card
from rqrec.tokenizer.saved_tokenizer import CONFIG_FILE as TOKENIZER_CONFIG

TOKENIZERS = {"rqvae": ("RqVae", "rqrec"), "rqkmeans": ("RqKMeans", "rqrec.tokenizer.rqkmeans")}
PUSHABLE = ("retrieval", *TOKENIZERS)  # in a run folder, the first type that it holds is pushed


def push(folder: Path, repo_id: str, *, data: str = "", private: bool = False) -> str:
    """Push a retrieval model or a tokenizer to Hugging Face with a model card; returns the URL.

    `folder` is the artefact or its run folder. The card lists the metrics of evaluations of this model in the same
    run folder, and `data`, a description of the training data. The catalogue (the ids, titles and texts of the
    items) is uploaded with a retrieval model.

    Raises FileNotFoundError if there is nothing to push, ValueError if a file was changed since it was written,
    ConnectionError if the hub cannot be reached or refuses the upload.
    """
    folder = _find_any(folder)
    manifest = read_manifest(folder, verify=True)
    if manifest.artifact_type == "retrieval" and (version := current_version(folder)):
        log(f"The catalogue is pushed as it was trained, without the changes up to its version {version}.")

    def save(target: Path) -> None:
        for name in (MANIFEST, *manifest.files):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)

    return upload(repo_id, save, _card(repo_id, manifest, folder, data), private=private)


def pull(repo_id: str, folder: Path, *, revision: str | None = None) -> Manifest:
    """Download the artefact of a repository into `folder` and verify every hash; returns its manifest.

    Raises FileExistsError if `folder` holds something else, ValueError if the repository holds no artefact or a
    damaged one, ConnectionError if it cannot be reached.
    """
    source = download_artifact(repo_id, revision=revision)
    manifest = read_manifest(source)
    if folder.exists() and any(folder.iterdir()):
        if (folder / MANIFEST).is_file() and read_manifest(folder, verify=True).hash == manifest.hash:
            return manifest
        raise FileExistsError(
            f"{folder} exists and holds something else, so it was not touched. Choose another folder."
        )
    with create(
        folder,
        manifest.artifact_type,
        settings=manifest.settings,
        inputs=manifest.inputs,
        metrics=manifest.metrics,
    ) as target:
        for name, expected in manifest.files.items():
            if not (source / name).is_file() or file_hash(source / name) != expected:
                raise ValueError(
                    f"{repo_id}: {name} is missing or differs from the manifest; nothing was kept."
                )
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
    return manifest


def _find_any(folder: Path) -> Path:
    if (folder / MANIFEST).is_file():
        artifact_type = read_manifest(folder).artifact_type
        if artifact_type not in PUSHABLE:
            raise ValueError(
                f"{folder} is an artefact of type {artifact_type!r}; only {', '.join(PUSHABLE)} can be pushed."
            )
        return folder
    for artifact_type in PUSHABLE:
        try:
            return find(folder, artifact_type)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
    raise FileNotFoundError(f"{folder} has nothing to push: it holds none of {', '.join(PUSHABLE)}.")


def _card(repo_id: str, manifest: Manifest, folder: Path, data: str) -> str:
    data = data or "Not described."
    if manifest.artifact_type in TOKENIZERS:
        class_name, module = TOKENIZERS[manifest.artifact_type]
        settings = read_json(folder / TOKENIZER_CONFIG)
        figures = dict(_numbers(manifest.metrics))
        return tokenizer_card(repo_id, class_name, module, settings, data=data, figures=figures)
    times = ", timestamps=[[time, ...]]" if needs_times(folder) else ""
    return model_card(
        repo_id,
        "A generative recommender (rqrec): it reads a history as semantic IDs and generates the semantic ID of the "
        "next item (arXiv 2305.05065). This repository holds the model, the semantic IDs and the catalogue.",
        data=data,
        metrics=dict(_numbers(manifest.metrics)) | dict(_evaluation_metrics(folder, manifest)),
        settings=manifest.settings.get("model", manifest.settings),
        use=[
            "from rqrec import Recommender",
            "",
            f'recommender = Recommender.load("{repo_id}")',
            "# The item ids of one history, oldest first"
            + (", and the time of each item." if times else "."),
            f"(items,) = recommender.recommend([[item_id, ...]]{times}, k=10)",
        ],
        limits=_limits(folder, manifest),
    )


def _limits(folder: Path, manifest: Manifest) -> list[str]:
    """What a retrieval model cannot do, as far as its files say."""
    items = len(Catalog.read(folder))
    longest = read_json(folder / CONFIG_FILE).get("max_items")
    seen = "excluded" if manifest.settings.get("exclude_seen", True) else "allowed"
    return [
        f"It recommends the {items:,} items of its catalogue, and no others unless they are added "
        f"(`rqrec items add`).",
        f"It reads the last {longest} items of a history, and nothing else about a person.",
        "It has learned what people took next in the data above. What these were shown, and what was popular among "
        "them, has shaped it; other people may choose otherwise.",
        f"The metrics are those of the whole catalogue, with the items of the history {seen} unless their names say "
        f"otherwise. They say how often the next item was found, and not whether people liked it.",
        "A score ranks items for one history; it is not the probability that somebody will take the item.",
    ]


def _evaluation_metrics(folder: Path, manifest: Manifest) -> Iterator[tuple[str, float]]:
    """The metrics of the evaluations of exactly this model in the same run folder."""
    for path in sorted(folder.parent.glob(f"[!.]*/{MANIFEST}")):
        try:
            other = read_json(path)
        except (OSError, ValueError) as error:
            log(f"The card leaves out what {path.parent} may hold, because it cannot be read: {error}.")
            continue
        if (
            other.get("artifact_type") == "evaluation"
            and other.get("inputs", {}).get("retrieval") == manifest.hash
        ):
            evaluation = read_json(path.parent / EVALUATION_FILE)
            settings = other.get("settings", {})
            name = settings.get("split", "evaluation")
            experts = settings.get("experts", {})
            if len(experts) < len(manifest.metrics.get("experts", {})):
                name += f" of {', '.join(experts)}"
            yield from _numbers({name: evaluation["metrics"]})


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number in a nested mapping, named by the keys on its path."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
