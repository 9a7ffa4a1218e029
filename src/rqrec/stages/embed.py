"""From a dataset to the vectors that the tokenizer learns from: content, and who took what together."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import MANIFEST, create, file_hash, find, read_manifest
from rqrec.data.cooccurrence import append_collaborative, collaborative_vectors
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import EMBEDDINGS_FILE, ItemEmbeddings, read_embeddings, read_vectors
from rqrec.data.encoders import DEFAULT_MODEL, encode_texts
from rqrec.data.splits import get_protocol

log = logging.getLogger(__name__)

CACHE = ".embeddings"  # beside the artefact


@dataclass(frozen=True)
class Collaborative:
    """How vectors of who took what together are made and joined to content.

    width: of the vectors.
    window: how many places apart in a sequence two items still go together.
    weight: length of these vectors, beside content vectors of mean length 1.
    split: whose training sequences they are learned from, "leave_one_out" or "temporal": the split that the
        retrieval model is trained and judged with.
    """

    width: int = 64
    window: int = 5
    weight: float = 1.0
    split: str = "leave_one_out"

    def __post_init__(self) -> None:
        get_protocol(self.split)  # refuses a name that there is not


def embed_catalog(
    dataset_folder: Path,
    folder: Path,
    model: str = DEFAULT_MODEL,
    *,
    collaborative: Collaborative | None = None,
    vectors: Path | None = None,
    batch_size: int = 64,
    devices: Sequence[str] = (),
    force: bool = False,
) -> ItemEmbeddings:
    """Make the artefact of kind "embeddings" in `folder`, or read it if it is there and still holds.

    It holds `item_embeddings.npy` float16 [num_items, dim], row = item index, and records its choices, the
    template of the texts and the dataset. `collaborative` appends vectors of who took what together.
    `vectors` is a .npy file of one's own that stands in for the text: rows as in the items that the dataset
    was prepared from; they keep their precision.

    Raises FileNotFoundError where there is no dataset, ConnectionError where the encoder cannot be had,
    ValueError where the vectors or the collaborative choices do not fit the dataset.
    """
    dataset_folder = find(dataset_folder, "dataset")
    manifest = read_manifest(dataset_folder, "dataset")
    inputs = {"dataset": manifest.hash} | ({"vectors": file_hash(vectors)} if vectors else {})
    settings = {
        "model": None if vectors else model,
        "template": manifest.settings.get("template"),
        "collaborative": asdict(collaborative) if collaborative else None,
    }
    if not force and (Path(folder) / MANIFEST).is_file():
        there = read_manifest(folder, "embeddings")
        if there.settings == settings and there.inputs == inputs:
            log.info("%s is up to date", folder)
            return read_embeddings(folder)
    dataset = Dataset.read(dataset_folder)
    if vectors:
        content = _own_vectors(dataset, vectors)
    else:
        cache = Path(folder).absolute().parent / CACHE
        content = encode_texts(
            dataset.catalog.items["text"].to_list(),
            model,
            batch_size=batch_size,
            devices=devices,
            cache=cache,
        )
    if collaborative:
        train = get_protocol(collaborative.split)(dataset.sequences).train
        taken = collaborative_vectors(train, len(content), collaborative.width, collaborative.window)
        content = append_collaborative(content, taken, collaborative.weight)
    facts = {"items": len(content), "dim": content.shape[1]}
    with create(folder, "embeddings", settings=settings, inputs=inputs, metrics=facts) as target:
        np.save(target / EMBEDDINGS_FILE, content if vectors else content.astype(np.float16))
    return read_embeddings(folder)


def _own_vectors(dataset: Dataset, path: Path) -> NDArray[np.floating]:
    """The rows of the dataset's items in the vectors that it was prepared with."""
    vectors = read_vectors(path)
    items = dataset.catalog.items
    rows = items["embedding_row"].to_numpy() if "embedding_row" in items.columns else np.arange(len(items))
    if rows.max() >= len(vectors) or ("embedding_row" not in items.columns and len(vectors) != len(items)):
        raise ValueError(
            f"{path} has {len(vectors)} rows, but the dataset has {len(items)} items: it needs a row an item."
        )
    return np.asarray(vectors[rows])
