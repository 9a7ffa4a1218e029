"""Pretrained weights: an RQ-VAE from or to a folder, a `.pt` file or the Hugging Face Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest
from rqrec.core.hub import REPO_ID
from rqrec.core.progress import log
from rqrec.tokenizer.rqvae import RqVae
from rqrec.tokenizer.saved_tokenizer import CONFIG_FILE


def check_push(push_vae_to_hf: bool, vae_hf_model_name: str | None) -> None:
    """Raise ValueError, before any training, if a push has no valid repository name."""
    if push_vae_to_hf and not REPO_ID.fullmatch(vae_hf_model_name or ""):
        raise ValueError(
            f"train.vae_hf_model_name is {vae_hf_model_name!r}, but train.push_vae_to_hf=True needs owner/name."
        )


def push_vae(folder: Path, repo_id: str, data: str) -> None:
    """Push an "rqvae" artefact to the hub, with the metrics of its manifest on the model card."""
    metrics = read_manifest(folder, "rqvae").metrics
    figures = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    url = RqVae.from_pretrained(folder).push_to_hub(repo_id, data=data, figures=figures)
    log(f"Pushed the tokenizer to {url}.")


def find_vae(source: str, inputs: dict[str, str], folder: Path) -> Path:
    """The "rqvae" artefact at `source`; weights in another format are converted to an artefact in `folder`.

    Raises FileNotFoundError, ConnectionError or ValueError with the reason.
    """
    path = Path(source)
    try:
        return find(path, "rqvae")
    except FileNotFoundError:
        if path.is_dir() and not (path / CONFIG_FILE).is_file():
            raise  # a run folder without a tokenizer
        if not path.exists() and not REPO_ID.fullmatch(source):
            raise
    model = RqVae.from_pretrained(source)
    with create(folder, "rqvae", settings={"source": source}, inputs=inputs) as target:
        model.save_pretrained(target)
    return folder


def check_same_model(
    setting: str, folder: Path, wanted: Mapping[str, Any], given: Mapping[str, Any], advice: str
) -> None:
    """Raise ValueError, naming the differences, if the weights in `folder` belong to a model with another config."""
    differing = [f"{k} is {wanted[k]} and was {given.get(k)}" for k in wanted if wanted[k] != given.get(k)]
    if differing:
        raise ValueError(
            f"{setting}: the model in {folder} has another config: {'; '.join(differing)}. {advice}, or leave the "
            f"path out."
        )
