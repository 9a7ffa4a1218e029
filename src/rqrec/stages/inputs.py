"""From the name of a dataset in a configuration to the artefacts that training reads."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from rqrec.core.artifact import find
from rqrec.data.catalog import Catalog
from rqrec.data.embeddings import EMBEDDINGS_FILE, read_embeddings
from rqrec.data.ids import IdMap
from rqrec.stages.embed import Collaborative, embed_catalog
from rqrec.stages.prepare import Settings, prepare

MOVIELENS = {"ml-100k": "100k", "ml-1m": "1m", "ml-32m": "32m", "ml-latest-small": "latest-small"}
DATASETS = ("amazon", *MOVIELENS, "custom")


class Inputs(NamedTuple):
    """`dataset` is None where there are only embeddings, without items or interactions."""

    embeddings: Path
    dataset: Path | None

    def item_ids(self) -> IdMap:
        """The items in the order of the embeddings; numbered where they have no ids of their own."""
        if self.dataset is not None:
            return Catalog.read(find(self.dataset, "dataset")).id_map
        n_items = len(read_embeddings(self.embeddings).vectors)
        return IdMap([str(index) for index in np.arange(n_items)])


def inputs_of(
    dataset: str, folder: Path, split: str, encoder: str, *, collaborative: int = 0, force: bool = False
) -> Inputs:
    """Prepare and embed a dataset in `folder/processed`, or find both there.

    `collaborative` is the width of vectors of who took what together that are appended; 0 appends none.
    `folder` holds the raw files, or they are downloaded into it. A custom folder that holds
    `item_embeddings.npy` alone is used as it is. Raises ValueError on an unknown dataset.
    """
    own = folder / EMBEDDINGS_FILE if _named(dataset) == "custom" else None
    own = own if own is not None and own.is_file() else None
    if own is not None and not any(folder.glob("log.*")):
        return Inputs(folder, None)
    prepared = prepared_in(dataset, folder, split, force=force)
    joined = Collaborative(collaborative) if collaborative else None
    embeddings = prepared.parent / (f"embeddings-collaborative-{collaborative}" if joined else "embeddings")
    embed_catalog(prepared, embeddings, encoder, collaborative=joined, vectors=own, force=force)
    return Inputs(embeddings, prepared)


def prepared_in(dataset: str, folder: Path, split: str, *, force: bool = False) -> Path:
    """Prepare a dataset in `folder/processed`, or find it there; the folder of the artefact.

    `folder` holds the raw files, or they are downloaded into it. Raises ValueError on an unknown dataset.
    """
    dataset = _named(dataset)
    if dataset == "amazon":
        settings = Settings("amazon", split)
    elif dataset == "custom":
        if not any(folder.glob("log.*")):
            raise FileNotFoundError(
                f"{folder} holds neither {EMBEDDINGS_FILE} (floats [num_items, dim]) nor log.parquet or "
                f"log.csv (user_id, item_id, timestamp). Put your data there, or set dataset_folder."
            )
        settings = Settings("custom")
    else:
        settings = Settings("movielens", MOVIELENS[dataset])
    prepared = folder / "processed" / (settings.variant or "own") / "dataset"
    prepare(settings, folder, prepared, force=force)
    return prepared


def _named(dataset: str) -> str:
    name = dataset.lower().replace("_", "-")
    if name not in DATASETS:
        raise ValueError(f"dataset is {name!r}; allowed are {', '.join(DATASETS)}.")
    return name


def describe(dataset: str, split: str) -> str:
    """What a tokenizer learned from, in a sentence for its model card."""
    return f"Embeddings of the items of {dataset}{f' ({split})' if dataset == 'amazon' else ''}."
