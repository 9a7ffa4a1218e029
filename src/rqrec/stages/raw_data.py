"""The data of a training config: from the name of a dataset to the artefacts that training reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rqrec.data.embeddings import EMBEDDINGS_FILE
from rqrec.data.encoders import DEFAULT_MODEL
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.prepare import PrepareConfig, prepare

MOVIELENS = {"ml-100k": "100k", "ml-1m": "1m", "ml-32m": "32m", "ml-latest-small": "latest-small"}
DATASETS = ("amazon", *MOVIELENS, "custom")
HOW_TO_REPLACE = "train.force_dataset_process=True (or give the folder as it is: --dataset, --embeddings)"


@dataclass(frozen=True)
class DataConfig:
    """Which data to train on. It is prepared and embedded in `dataset_folder/processed`, or reused from there."""

    dataset: str = "amazon"
    """amazon, ml-100k, ml-1m, ml-32m, ml-latest-small or custom."""
    dataset_folder: Path = Path("dataset/amazon")
    """Folder of the raw files; missing ones are downloaded into it."""
    dataset_split: str = "beauty"
    """Category of amazon: beauty, sports or toys."""
    text_encoder: str = DEFAULT_MODEL
    """A sentence-transformers model, by name or folder."""
    collaborative: int = 0
    """Width of collaborative vectors to append to the text's, learned from training interactions; 0: none."""
    force_dataset_process: bool = False
    """Prepare and embed again, and replace what is there."""

    def __post_init__(self) -> None:
        name = self.dataset.lower().replace("_", "-")
        if name not in DATASETS:
            raise ValueError(f"dataset is {self.dataset!r}; allowed are {', '.join(DATASETS)}.")
        object.__setattr__(self, "dataset", name)

    def describe(self) -> str:
        """What a tokenizer was trained on, in a sentence for its model card."""
        category = f" ({self.dataset_split})" if self.dataset == "amazon" else ""
        return f"Embeddings of the items of {self.dataset}{category}."


class Inputs(NamedTuple):
    """Folders that training reads; `dataset` is None if there are only embeddings."""

    embeddings: Path
    dataset: Path | None


def inputs_from_raw(data: DataConfig) -> Inputs:
    """The prepared dataset and its embeddings, made from raw files or reused.

    A custom folder that holds `item_embeddings.npy` and no log is used as it is.
    """
    own = data.dataset_folder / EMBEDDINGS_FILE
    has_own = data.dataset == "custom" and own.is_file()
    if has_own and not any(data.dataset_folder.glob("log.*")):
        return Inputs(data.dataset_folder, None)
    dataset = dataset_from_raw(data)
    name = f"embeddings-collaborative-{data.collaborative}" if data.collaborative else "embeddings"
    embeddings = embed(
        EmbedConfig(data.text_encoder, data.collaborative),
        dataset,
        dataset.parent / name,
        vectors=own if has_own else None,
        force=data.force_dataset_process,
        how_to_replace=HOW_TO_REPLACE,
    )
    return Inputs(embeddings, dataset)


def dataset_from_raw(data: DataConfig) -> Path:
    """The prepared dataset, made from raw files or reused."""
    if data.dataset == "amazon":
        config = PrepareConfig("amazon", data.dataset_split)
    elif data.dataset == "custom":
        if not any(data.dataset_folder.glob("log.*")):
            raise FileNotFoundError(
                f"{data.dataset_folder} has neither {EMBEDDINGS_FILE} (floats [num_items, dim]) nor log.parquet "
                f"or log.csv (user_id, item_id, timestamp). Put your data there, or set train.dataset_folder."
            )
        config = PrepareConfig("custom")
    else:
        config = PrepareConfig("movielens", MOVIELENS[data.dataset])
    return prepare(
        config,
        data.dataset_folder,
        data.dataset_folder / "processed" / (config.variant or "own") / "dataset",
        force=data.force_dataset_process,
        how_to_replace=HOW_TO_REPLACE,
    )
