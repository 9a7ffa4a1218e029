"""A tokenizer from wherever it is: an artefact, a plain folder, a `.pt` file, the Hugging Face Hub."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from rqrec.core.artifact import MANIFEST, find, read_json, read_manifest
from rqrec.tokenizer.rqkmeans import RqKMeans
from rqrec.tokenizer.rqvae import RqVae

Tokenizer = RqVae | RqKMeans


class LoadedTokenizer(NamedTuple):
    """A tokenizer, and the kind and hash under which what it makes remembers it."""

    model: Tokenizer
    artifact_type: str
    hash: str


def load_tokenizer(source: Path | str) -> LoadedTokenizer:
    """From an artefact, the folder of a run, any folder that `save_pretrained` wrote, a `.pt` file or a hub id.

    Raises FileNotFoundError, ConnectionError or ValueError with the reason.
    """
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        folder = _find_either(folder)
    if (folder / MANIFEST).is_file():
        manifest = read_manifest(folder, verify=True)
        classes: dict[str, Any] = {"rqvae": RqVae, "rqkmeans": RqKMeans}
        if manifest.artifact_type not in classes:
            raise ValueError(
                f"{folder} holds {manifest.artifact_type!r}, but a tokenizer is needed: {', '.join(classes)}."
            )
        return LoadedTokenizer(
            classes[manifest.artifact_type].from_pretrained(folder), manifest.artifact_type, manifest.hash
        )
    if folder.is_dir() and "balance" in read_json(folder / "config.json"):
        other = RqKMeans.from_pretrained(folder)
        return LoadedTokenizer(other, "rqkmeans", _weights_hash(other))
    model = RqVae.from_pretrained(source)
    return LoadedTokenizer(model, "rqvae", _weights_hash(model))


def _find_either(folder: Path) -> Path:
    try:
        return find(folder, "rqvae")
    except FileNotFoundError:
        try:
            return find(folder, "rqkmeans")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder} holds no tokenizer. Make one with `rqrec train-rqvae` or `rqrec fit-rqkmeans`."
            ) from None


def _weights_hash(model: Tokenizer) -> str:
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
