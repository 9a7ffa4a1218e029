"""The data of a training config: from the name of a dataset to the artefacts that training reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rqrec.core.progress import log
from rqrec.core.values import Config, NonNegativeInt
from rqrec.data.embeddings import EMBEDDINGS_FILE
from rqrec.data.encoders import DEFAULT_MODEL
from rqrec.data.sources.custom import LOG_NAME
from rqrec.data.tables import tables_named
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.prepare import PrepareConfig, PrepareOptions, default_folder, prepare

MOVIELENS = {"ml-100k": "100k", "ml-1m": "1m", "ml-32m": "32m", "ml-latest-small": "latest-small"}
DATASETS = ("amazon", *MOVIELENS, "custom")
HOW_TO_REPLACE = "train.force_dataset_process=True (or pass the existing folder: --dataset, --embeddings)"


@dataclass(frozen=True)
class DataConfig(Config):
    """Which data to train on. The dataset and embeddings in `dataset_folder/processed` are made or reused."""

    dataset: str = "amazon"
    """amazon, ml-100k, ml-1m, ml-32m, ml-latest-small or custom."""
    dataset_folder: Path = Path("dataset/amazon")
    """Folder of the raw files; missing ones are downloaded into it."""
    dataset_split: str = "beauty"
    """Category of amazon: beauty, sports or toys."""
    text_encoder: str = DEFAULT_MODEL
    """A sentence-transformers model, by name or folder."""
    collaborative: NonNegativeInt = 0
    """Width of collaborative vectors to append, learned from co-occurrence in training interactions; 0: none."""
    force_dataset_process: bool = False
    """Prepare and embed again, replacing existing artefacts."""
    prepare: PrepareOptions = PrepareOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        name = self.dataset.lower().replace("_", "-")
        if name not in DATASETS:
            raise ValueError(f"dataset is {self.dataset!r}; allowed are {', '.join(DATASETS)}.")
        object.__setattr__(self, "dataset", name)
        self.prepare_config()  # check the options together with the dataset

    def prepare_config(self) -> PrepareConfig:
        """How the dataset is prepared."""
        if self.dataset in MOVIELENS:
            return PrepareConfig("movielens", MOVIELENS[self.dataset], self.prepare)
        variant = self.dataset_split if self.dataset == "amazon" else ""
        return PrepareConfig(self.dataset, variant, self.prepare)

    def describe(self) -> str:
        """One sentence on the data, for the model card of a tokenizer."""
        category = f" ({self.dataset_split})" if self.dataset == "amazon" else ""
        return f"Embeddings of the items of {self.dataset}{category}."


class Inputs(NamedTuple):
    """The folders that training reads; `dataset` is None if the data has only embeddings."""

    embeddings: Path
    dataset: Path | None


def inputs_from_raw(data: DataConfig, embeddings: Path | None = None) -> Inputs:
    """The prepared dataset and, unless they are given, its embeddings, made from raw files or reused.

    A custom folder with `item_embeddings.npy` but no log is itself the embeddings folder.
    """
    custom_vectors = data.dataset_folder / EMBEDDINGS_FILE
    has_vectors = data.dataset == "custom" and custom_vectors.is_file()
    if has_vectors and not tables_named(data.dataset_folder, LOG_NAME):
        return Inputs(data.dataset_folder, None)
    dataset = dataset_from_raw(data)
    if embeddings is not None:
        return Inputs(embeddings, dataset)
    name = f"embeddings-collaborative-{data.collaborative}" if data.collaborative else "embeddings"
    embeddings = embed(
        EmbedConfig(data.text_encoder, data.collaborative),
        dataset,
        dataset.parent / name,
        vectors=custom_vectors if has_vectors else None,
        force=data.force_dataset_process,
        how_to_replace=HOW_TO_REPLACE,
    )
    return Inputs(embeddings, dataset)


def dataset_from_raw(data: DataConfig) -> Path:
    """The prepared dataset, made from raw files or reused."""
    config = data.prepare_config()
    if data.dataset == "custom" and not tables_named(data.dataset_folder, LOG_NAME):
        raise FileNotFoundError(
            f"{data.dataset_folder} has neither {EMBEDDINGS_FILE} (floats [num_items, dim]) nor log.parquet "
            f"or log.csv (user_id, item_id, timestamp). Put your data there, or set dataset_folder."
        )
    return prepare(
        config,
        data.dataset_folder,
        default_folder(config, data.dataset_folder),
        force=data.force_dataset_process,
        how_to_replace=HOW_TO_REPLACE,
    )


def given(embeddings: Path | None) -> Path:
    """The embeddings that a model with content_input reads. Raises ValueError if there are none."""
    if embeddings is None:
        raise ValueError(
            "content_input is on, but there are no embeddings: give their folder (--embeddings)."
        )
    return embeddings


def link_dataset(dataset: Path, run: Path) -> None:
    """Link a dataset that was made from raw data into a run folder, where later commands find it."""
    link = run / "dataset"
    try:
        run.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        if not link.exists():
            link.symlink_to(dataset.absolute(), target_is_directory=True)
    except OSError as error:  # a file system without links: later commands are given the dataset
        log(
            f"{link} cannot be a link to {dataset} ({error.strerror}): give it to `rqrec evaluate` with --dataset."
        )
