"""Pretrained weights: an RQ-VAE from or to a folder, a `.pt` file or the Hugging Face Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest
from rqrec.core.hub import REPO_ID
from rqrec.core.progress import log
from rqrec.tokenizer.rqvae import RqVae


def check_push(push_vae_to_hf: bool, vae_hf_model_name: str | None) -> None:
    """Refuse a push without a repository's name, before hours of training."""
    if push_vae_to_hf and not REPO_ID.fullmatch(vae_hf_model_name or ""):
        raise ValueError(
            f"train.push_vae_to_hf=True needs train.vae_hf_model_name as owner/name; it is {vae_hf_model_name!r}."
        )


def push_vae(folder: Path, repo_id: str, data: str) -> None:
    """Push an "rqvae" artefact to the hub, with the metrics of its manifest on the model card."""
    metrics = read_manifest(folder, "rqvae").metrics
    figures = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    url = RqVae.from_pretrained(folder).push_to_hub(repo_id, data=data, figures=figures)
    log(f"The tokenizer is at {url}.")


def find_vae(source: str, inputs: dict[str, str], folder: Path) -> Path:
    """The "rqvae" artefact at `source`; any other checkpoint is converted to one in `folder`.

    Raises FileNotFoundError, ConnectionError or ValueError with the reason.
    """
    path = Path(source)
    try:
        return find(path, "rqvae")
    except FileNotFoundError:
        if path.is_dir() and not (path / "config.json").is_file():
            raise  # the folder of a run without a tokenizer
        if not path.exists() and not REPO_ID.fullmatch(source):
            raise
    model = RqVae.from_pretrained(source)
    with create(folder, "rqvae", settings={"source": source}, inputs=inputs) as target:
        model.save_pretrained(target)
    return folder


def check_same_model(
    setting: str, folder: Path, wanted: Mapping[str, Any], given: Mapping[str, Any], advice: str
) -> None:
    """Refuse weights of a model with another config; the message names what differs."""
    differing = [f"{k} is {wanted[k]} and was {given.get(k)}" for k in wanted if wanted[k] != given.get(k)]
    if differing:
        raise ValueError(
            f"{setting}: {folder} holds another model: {'; '.join(differing)}. {advice}, or leave the path out."
        )
