"""Load a tokenizer of either type from an artefact, a plain folder, a `.pt` file or the Hugging Face Hub."""

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

from rqrec.core.artifact import (
    MANIFEST,
    find,
    read_json,
    read_manifest,
    read_version,
    run_folder,
    write_json,
)
from rqrec.data.protocols import protocol_of
from rqrec.tokenizer.rqkmeans import RqKMeans
from rqrec.tokenizer.rqvae import RqVae
from rqrec.tokenizer.saved_tokenizer import CONFIG_FILE, read_saved_tokenizer

Tokenizer = RqVae | RqKMeans
KEPT, SOURCE_FILE = "tokenizer", "source.json"  # inside an artefact that was made with it


class LoadedTokenizer(NamedTuple):
    """A tokenizer and its identity, which the artefacts made with it record in their `inputs`."""

    model: Tokenizer
    artifact_type: str
    """"rqvae" or "rqkmeans"."""
    hash: str
    """Hash of the artefact; without a manifest, SHA-256 of the settings and weights."""
    protocol: str | None = None
    """The protocol that its embeddings were learned with (see `rqrec.data.protocols`)."""


def load_tokenizer(source: Path | str) -> LoadedTokenizer:
    """Load from an artefact, a run folder, a folder written by `save_pretrained`, a `.pt` file or a hub id.

    Raises FileNotFoundError if there is no tokenizer, ConnectionError if the hub cannot be reached, and
    ValueError if the source is damaged or another type of model.
    """
    folder = run_folder(Path(source))
    if folder.is_dir() and not any((folder / name).is_file() for name in (CONFIG_FILE, MANIFEST)):
        folder = _find_tokenizer(folder)
    if (folder / MANIFEST).is_file():
        return read_version(folder, _load_artifact)
    saved = read_saved_tokenizer(source)
    if "balance" in saved.settings:
        rqkmeans = RqKMeans.from_saved(saved)
        return LoadedTokenizer(rqkmeans, "rqkmeans", _weights_hash(rqkmeans))
    rqvae = RqVae.from_saved(saved)
    return LoadedTokenizer(rqvae, "rqvae", _weights_hash(rqvae))


def _load_artifact(folder: Path) -> LoadedTokenizer:
    manifest = read_manifest(folder, verify=True)
    classes: dict[str, Any] = {"rqvae": RqVae, "rqkmeans": RqKMeans}
    if manifest.artifact_type not in classes:
        raise ValueError(
            f"{folder} is an artefact of type {manifest.artifact_type!r}, but a tokenizer is needed: "
            f"{' or '.join(classes)}."
        )
    model = classes[manifest.artifact_type].from_pretrained(folder)
    return LoadedTokenizer(model, manifest.artifact_type, manifest.hash, protocol_of(manifest))


class KeptTokenizer(NamedTuple):
    """A tokenizer inside the artefact of what was made with it, so that items can be added later."""

    model: Tokenizer
    embeddings: str
    """Hash of the embeddings that it read."""

    def write(self, artifact: Path) -> None:
        """Write it into the folder of an artefact."""
        folder = artifact / KEPT
        folder.mkdir()
        self.model.save_pretrained(folder)
        write_json(folder / SOURCE_FILE, {"embeddings": self.embeddings})

    @classmethod
    def read(cls, artifact: Path) -> "KeptTokenizer | None":
        """Read it from the folder of an artefact; None if it has none, as earlier versions kept none."""
        folder = artifact / KEPT
        if not folder.is_dir():
            return None
        source = read_json(folder / SOURCE_FILE)
        if not isinstance(source, dict) or not isinstance(source.get("embeddings"), str):
            raise ValueError(f"{folder / SOURCE_FILE} does not say which embeddings the tokenizer reads.")
        return cls(load_tokenizer(folder).model, source["embeddings"])


def _find_tokenizer(folder: Path) -> Path:
    try:
        return find(folder, "rqvae")
    except FileNotFoundError:
        try:
            return find(folder, "rqkmeans")
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder} holds no tokenizer. Train one with `rqrec train-rqvae` or `rqrec fit-rqkmeans`."
            ) from None


def _weights_hash(model: Tokenizer) -> str:
    digest = hashlib.sha256(repr(model.config).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
