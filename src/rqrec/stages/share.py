"""`rqrec push` and `rqrec pull`: artefacts to Hugging Face and back."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rqrec.core.artifact import MANIFEST, Manifest, create, file_hash, find, read_json, read_manifest
from rqrec.core.hub import download_artifact, model_card, upload
from rqrec.tokenizer.model_card import model_card as tokenizer_card

TOKENIZERS = {"rqvae": ("RqVae", "rqrec"), "rqkmeans": ("RqKMeans", "rqrec.tokenizer.rqkmeans")}
KINDS = ("retrieval", *TOKENIZERS)  # of the folder of a run, the first that it has


def push(folder: Path, repo_id: str, *, data: str = "", private: bool = False) -> str:
    """Put a retrieval model or a tokenizer on Hugging Face with a model card; gives the URL.

    `folder` is the artefact, or the run that it lies in, whose test figures then stand on the card. A
    retrieval model goes with its catalogue: the ids, titles and texts of the items. `data` says what it was
    trained on.

    Raises FileNotFoundError where there is nothing to push, ValueError where a file was changed,
    ConnectionError where the hub cannot be reached or refuses.
    """
    folder = _find_any(folder)
    manifest = read_manifest(folder, verify=True)

    def save(target: Path) -> None:
        for name in (MANIFEST, *manifest.files):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)

    return upload(repo_id, save, _card(repo_id, manifest, folder, data), private=private)


def pull(repo_id: str, folder: Path, *, revision: str | None = None) -> Manifest:
    """Bring the artefact of a repository into `folder`, with every hash checked; gives its manifest.

    Raises FileExistsError where `folder` holds something else, ValueError where the repository holds no
    artefact or a damaged one, ConnectionError where it cannot be reached.
    """
    source = download_artifact(repo_id, revision=revision)
    manifest = read_manifest(source)
    if folder.exists() and any(folder.iterdir()):
        if (folder / MANIFEST).is_file() and read_manifest(folder, verify=True).hash == manifest.hash:
            return manifest
        raise FileExistsError(
            f"{folder} exists and holds something else, which is left alone. Choose another."
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
        kind = read_manifest(folder).artifact_type
        if kind not in KINDS:
            raise ValueError(f"{folder} holds {kind!r}; what can be pushed is {', '.join(KINDS)}.")
        return folder
    for kind in KINDS:
        try:
            return find(folder, kind)
        except FileNotFoundError:
            if not folder.is_dir():
                raise
    raise FileNotFoundError(f"{folder} holds none of {', '.join(KINDS)}: there is nothing to push.")


def _card(repo_id: str, manifest: Manifest, folder: Path, data: str) -> str:
    data = data or "Not said by who pushed it."
    if manifest.artifact_type in TOKENIZERS:
        class_name, module = TOKENIZERS[manifest.artifact_type]
        settings = read_json(folder / "config.json")
        figures = dict(_numbers(manifest.metrics))
        return tokenizer_card(repo_id, class_name, module, settings, data=data, figures=figures)
    return model_card(
        repo_id,
        "A generative recommender (rqrec): it reads a history as semantic IDs and generates the next item's "
        "(arXiv 2305.05065). Model, semantic IDs and catalogue are together here.",
        data=data,
        metrics=dict(_numbers(manifest.metrics)) | dict(_test_figures(folder, manifest)),
        settings=manifest.settings.get("model", manifest.settings),
        use=[
            "from rqrec import Recommender",
            "",
            f'recommender = Recommender.load("{repo_id}")',
            "(items,) = recommender.recommend([[item_id, ...]], k=10)  # a history's ids, oldest first",
        ],
    )


def _test_figures(folder: Path, manifest: Manifest) -> Iterator[tuple[str, float]]:
    """The figures of an evaluation of this very model that lies beside it."""
    for path in sorted(folder.parent.glob(f"[!.]*/{MANIFEST}")):
        other = read_json(path)
        if (
            other.get("artifact_type") == "evaluation"
            and other.get("inputs", {}).get("retrieval") == manifest.hash
        ):
            figures = read_json(path.parent / "evaluation.json")
            split = other.get("settings", {}).get("split", "evaluation")
            yield from _numbers({split: figures})


def _numbers(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested facts, under its path."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", value
