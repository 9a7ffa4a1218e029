"""`rqrec embed`: from a dataset to the item vectors that the tokenizer learns from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import create, file_hash, find, read_manifest, reuse
from rqrec.core.values import Config, NonNegativeInt, PositiveInt, Range
from rqrec.data.cooccurrence import append_collaborative, collaborative_vectors, mean_length
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import EMBEDDINGS_FILE, read_vectors
from rqrec.data.encoders import DEFAULT_MODEL, encode_texts
from rqrec.data.fields import EMBEDDING_ROW
from rqrec.data.splits import get_protocol

CACHE = ".embeddings"  # next to the artefact


@dataclass(frozen=True)
class EmbedConfig(Config):
    """How item vectors are made: content vectors from text, with optional collaborative vectors appended."""

    ALIASES: ClassVar = {"split": "protocol"}

    encoder: str = DEFAULT_MODEL
    """A sentence-transformers model, by name or folder."""
    collaborative: NonNegativeInt = 0
    """Width of collaborative vectors to append, learned from co-occurrence in training interactions; 0: none."""
    collaborative_window: PositiveInt = 5
    """Two items of a sequence co-occur if they are at most this many positions apart."""
    collaborative_weight: Annotated[float, Range(0, 1000, above=True)] = 1.0
    """Length of the collaborative vectors, relative to content vectors of mean length 1."""
    protocol: str = "leave_one_out"
    """Protocol whose training sequences the collaborative vectors are learned from: leave_one_out or temporal."""
    items_per_dimension: NonNegativeInt = 0
    """Limit the width of the collaborative vectors to one dimension per this many items; 0: no limit."""

    def __post_init__(self) -> None:
        super().__post_init__()
        get_protocol(self.protocol)  # raises for an unknown name


def embed(
    config: EmbedConfig,
    dataset: Path,
    out: Path,
    *,
    vectors: Path | None = None,
    devices: Sequence[str] = (),
    force: bool = False,
    how_to_replace: str = "--force",
) -> Path:
    """Write the embeddings artefact to `out`, or reuse it if it was made with the same settings and inputs.

    It holds `item_embeddings.npy` float16 [num_items, dim], one row per item index. `vectors` is a .npy file to use
    instead of encoded texts, with rows in the order of the items file that the dataset was prepared from; it is not
    rounded to float16. `devices`, such as ["cuda:0", "cuda:1"], encode in parallel.

    Raises FileNotFoundError if there is no dataset, ConnectionError if the encoder cannot be loaded, ValueError if
    the vectors or the settings do not fit the dataset, or `out` holds embeddings that were made differently.
    """
    dataset = find(dataset, "dataset")
    manifest = read_manifest(dataset, "dataset")
    inputs = {"dataset": manifest.hash} | ({"vectors": file_hash(vectors)} if vectors else {})
    width = _width(config, manifest.metrics["items"])
    collaborative = {
        "width": width,
        "window": config.collaborative_window,
        "weight": config.collaborative_weight,
    }
    settings: dict[str, Any] = {
        "model": None if vectors else config.encoder,
        "template": manifest.metrics.get("template") or manifest.settings.get("template"),
        "collaborative": collaborative if width else None,
        "protocol": config.protocol if width else None,
    }
    if reuse(out, "embeddings", settings, inputs, force=force, how_to_replace=how_to_replace):
        return Path(out)
    data = Dataset.read(dataset)
    if vectors:
        content = _read_rows(data, vectors)
    else:
        content = encode_texts(
            data.catalog.items["text"].to_list(),
            config.encoder,
            devices=devices,
            cache=Path(out).absolute().parent / CACHE,
        )
    metrics: dict[str, Any] = {"items": len(content)}
    if width:
        metrics["content_length"] = mean_length(content)
        train = get_protocol(config.protocol)(data.sequences).train
        cooccurring = collaborative_vectors(train, len(content), width, config.collaborative_window)
        content = append_collaborative(content, cooccurring, config.collaborative_weight)
    metrics["dim"] = content.shape[1]
    with create(out, "embeddings", settings=settings, inputs=inputs, metrics=metrics) as target:
        np.save(target / EMBEDDINGS_FILE, content if vectors else content.astype(np.float16))
    return Path(out)


def _width(config: EmbedConfig, n_items: int) -> int:
    """Width of the collaborative vectors."""
    if not config.items_per_dimension:
        return config.collaborative
    return min(config.collaborative, max(2, n_items // config.items_per_dimension))


def _read_rows(dataset: Dataset, path: Path) -> NDArray[np.floating]:
    """The rows of a .npy file that belong to the dataset's items, in the order of the items."""
    vectors = read_vectors(path)
    items = dataset.catalog.items
    rows = items[EMBEDDING_ROW].to_numpy() if EMBEDDING_ROW in items.columns else np.arange(len(items))
    if rows.max() >= len(vectors) or (EMBEDDING_ROW not in items.columns and len(vectors) != len(items)):
        raise ValueError(
            f"{path} has {len(vectors)} rows, but the dataset has {len(items)} items: it needs one row per item."
        )
    return np.asarray(vectors[rows])
