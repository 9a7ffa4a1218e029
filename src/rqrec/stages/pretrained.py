"""An RQ-VAE from and to other places: a folder, a `.pt` file, the Hugging Face Hub."""

from pathlib import Path

from rqrec.core.artifact import create, find, read_manifest
from rqrec.core.hub import REPO_ID
from rqrec.core.progress import log
from rqrec.tokenizer.rqvae import RqVae


def check_push(push_vae_to_hf: bool, vae_hf_model_name: str | None) -> None:
    """Refuse, before hours of training, a push without a repository's name."""
    if push_vae_to_hf and not REPO_ID.fullmatch(vae_hf_model_name or ""):
        raise ValueError(
            f"train.push_vae_to_hf=True needs train.vae_hf_model_name as owner/name; it is {vae_hf_model_name!r}."
        )


def push_vae(folder: Path, repo_id: str, data: str) -> None:
    """Put an "rqvae" artefact on the hub, with the figures of its manifest on the card."""
    facts = read_manifest(folder, "rqvae").metrics
    figures = {name: value for name, value in facts.items() if isinstance(value, int | float)}
    url = RqVae.from_pretrained(folder).push_to_hub(repo_id, data=data, figures=figures)
    log(f"The tokenizer is at {url}.")


def find_vae(source: str, inputs: dict[str, str], folder: Path) -> Path:
    """The "rqvae" artefact at `source`; other checkpoints are brought into one in `folder`.

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
