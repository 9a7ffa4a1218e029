"""What is fuzzed: for each kind of folder, how to write a valid one, and what reads it."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from rqrec.core.artifact import MANIFEST, create
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import read_embeddings
from rqrec.data.history_files import as_histories, count_rows, input_files, read_histories
from rqrec.data.sources.amazon import OfficialFiles, P5Files, read_amazon
from rqrec.data.sources.custom import CustomFiles, load_custom
from rqrec.data.sources.movielens import Files, read_movielens
from rqrec.evaluation.measure import EvalResult
from rqrec.retrieval.artifact import read_sasrec
from rqrec.retrieval.live_catalog import add_items, remove_items
from rqrec.retrieval.versions import change
from rqrec.serving.recommender import Recommender
from rqrec.tokenizer.loading import load_tokenizer
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from tests.data.sources.test_amazon import write_official, write_p5
from tests.data.sources.test_movielens import write_official_100k, write_wheel_100k
from tests.retrieval.test_live_catalog import new_items, new_vectors, trained, write
from tests.training.toy import Line, manager


@dataclass(frozen=True)
class Runs:
    """Folders that earlier fixtures trained."""

    tiny: Path
    joined: Path


@dataclass(frozen=True)
class Kind:
    """A kind of folder."""

    write: Callable[[Runs, Path], Any]
    """Write a valid folder."""
    read: Callable[[Path], Any]
    """Read it and use it; ValueError or OSError refuse it."""


def copy(name: str) -> Callable[[Runs, Path], Any]:
    """Write a copy of a folder of the joined run."""
    return lambda runs, folder: shutil.copytree(runs.joined / name, folder)


def recommend(folder: Path) -> None:
    recommender = Recommender.load(folder)
    ids = recommender.catalog.id_map.all[:2].to_list()
    (answers,) = recommender.recommend([ids], k=3)
    recommender.explain_all([ids], [[answer.item_id for answer in answers]])
    recommender.similar_items(ids[0], 3)


def write_live(_: Runs, folder: Path) -> None:
    write(folder, trained())
    change(folder, "2 added", lambda *now: add_items(*now, new_items(2), new_vectors(2)))
    change(folder, "1 removed", lambda *now: remove_items(*now, ["item 3"]))


def read_semantic_ids(folder: Path) -> None:
    from rqrec.tokenizer.trie import Trie

    Trie.build(SemanticIdTable.read(folder).codes_NL)


def write_custom(write: Callable[[pl.DataFrame, Path], Any], suffix: str) -> Callable[[Runs, Path], None]:
    def written(_: Runs, folder: Path) -> None:
        folder.mkdir()
        users, items = [f"u{n % 5}" for n in range(30)], [f"i{n % 7}" for n in range(30)]
        times, ratings = [1_700_000_000 + n for n in range(30)], [n % 5 + 0.5 for n in range(30)]
        log = {"user_id": users, "item_id": items, "timestamp": times, "rating": ratings}
        texts = {"item_id": [f"i{n}" for n in range(7)], "title": list("abcdefg"), "brand": list("ABCDEFG")}
        write(pl.DataFrame(log), folder / f"log{suffix}")
        write(pl.DataFrame(texts), folder / f"items{suffix}")

    return written


def read_dataset(loaded: Any) -> None:
    catalog, interactions = loaded
    Dataset.from_interactions(catalog, interactions.of_items(catalog.id_map))


def read_histories_of(folder: Path) -> None:
    for times in (False, True):
        target = folder.with_name("converted")
        shutil.rmtree(target, ignore_errors=True)
        for file in as_histories(input_files(folder), target, times=times):
            read_histories(file, 0, count_rows(file), times=times)


def write_histories(_: Runs, folder: Path) -> None:
    folder.mkdir()
    histories = {"user_id": ["a", "b"], "history": [["i1"], ["i2", "i3"]], "timestamps": [[1], [2, 3]]}
    pl.DataFrame(histories).write_parquet(folder / "users.parquet")


def write_log(_: Runs, folder: Path) -> None:
    folder.mkdir()
    rows = {
        "user_id": ["a", "b", "a"],
        "item_id": ["i1", "i2", "i3"],
        "timestamp": [10**9, 10**9 + 1, 10**9 + 2],
    }
    pl.DataFrame(rows).write_csv(folder / "log.csv")


def write_embeddings(_: Runs, folder: Path) -> None:
    folder.mkdir()
    np.save(folder / "item_embeddings.npy", np.ones((6, 4), dtype=np.float32))
    np.save(folder / "is_train.npy", np.arange(6) > 2)


def small_rqvae() -> RqVae:
    return RqVae(RqVaeConfig(input_dim=4, embed_dim=4, hidden_dims=(4,), codebook_size=4, n_layers=2))


def write_rqvae(_: Runs, folder: Path) -> None:
    with create(folder, "rqvae") as target:
        small_rqvae().save_pretrained(target)


def write_reference(_: Runs, folder: Path) -> None:
    folder.mkdir()
    model = small_rqvae()
    torch.save(
        {
            "model": model.state_dict(),
            "model_config": json.loads(json.dumps(asdict(model.config), default=lambda one: one.name)),
        },
        folder / "x.pt",
    )


CHECKPOINTED = LoopConfig(iterations=4, full_eval_every=2)


def write_checkpoint(_: Runs, folder: Path) -> None:
    class Stops(Line):
        def batch(self, number: int) -> Any:
            if number == 3:
                raise InterruptedError
            return super().batch(number)

    try:
        fit(Stops(), CHECKPOINTED, "line", manager(folder, save_model_every=2))
    except InterruptedError:
        shutil.rmtree(folder / "logs")


def resume(folder: Path) -> None:
    fit(Line(), CHECKPOINTED, "line", manager(folder, save_model_every=2))


def write_evaluation(_: Runs, folder: Path) -> None:
    folder.mkdir()
    three, items = np.arange(3), np.ones(3, dtype=np.int64)
    EvalResult(three, three, three, None, items, items, items, 0).write(folder)


def write_csv_movies(_: Runs, folder: Path) -> None:
    folder.mkdir()
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n1,Toy Story (1995),Comedy|Drama\n2,"A, B (1999)",War\n'
    )
    (folder / "ratings.csv").write_text(
        "userId,movieId,rating,timestamp\n1,1,4.0,964982703\n2,2,5.0,964982704\n"
    )


def write_dat_movies(_: Runs, folder: Path) -> None:
    folder.mkdir()
    (folder / "movies.dat").write_text("1::Toy Story (1995)::Comedy|Drama\n2::B (1999)::War\n")
    (folder / "ratings.dat").write_text("1::1::4::964982703\n2::2::5::964982704\n")


def movielens(movies: str, ratings: str) -> Callable[[Path], None]:
    return lambda folder: read_dataset(read_movielens(Files(folder / movies, folder / ratings)))


def custom(folder: Path) -> None:
    read_dataset(load_custom(CustomFiles.in_folder(folder), None))


KINDS: dict[str, Kind] = {
    "retrieval": Kind(copy("retrieval"), recommend),
    "live_catalogue": Kind(write_live, recommend),
    "sasrec": Kind(copy("sasrec/sasrec"), read_sasrec),
    "dataset": Kind(copy("dataset"), Dataset.read),
    "embeddings": Kind(copy("embeddings"), read_embeddings),
    "plain_embeddings": Kind(write_embeddings, lambda folder: read_embeddings(folder, do_eval=True)),
    "semantic_ids": Kind(copy("second/semantic_ids"), read_semantic_ids),
    "rqvae": Kind(write_rqvae, load_tokenizer),
    "reference_checkpoint": Kind(write_reference, lambda folder: load_tokenizer(folder / "x.pt")),
    "checkpoint": Kind(write_checkpoint, resume),
    "evaluation": Kind(write_evaluation, lambda folder: EvalResult.read(folder).summary()),
    "histories": Kind(write_histories, read_histories_of),
    "log_of_histories": Kind(write_log, read_histories_of),
    "custom_csv": Kind(write_custom(pl.DataFrame.write_csv, ".csv"), custom),
    "custom_jsonl": Kind(write_custom(pl.DataFrame.write_ndjson, ".jsonl"), custom),
    "custom_parquet": Kind(write_custom(pl.DataFrame.write_parquet, ".parquet"), custom),
    "movielens_100k": Kind(lambda _, folder: write_official_100k(folder), movielens("u.item", "u.data")),
    "movielens_wheel": Kind(
        lambda _, folder: write_wheel_100k(folder), movielens("ml-100k.item", "ml-100k.inter")
    ),
    "movielens_csv": Kind(write_csv_movies, movielens("movies.csv", "ratings.csv")),
    "movielens_dat": Kind(write_dat_movies, movielens("movies.dat", "ratings.dat")),
    "amazon_p5": Kind(
        lambda _, folder: write_p5(folder),
        lambda folder: read_dataset(
            read_amazon(
                P5Files(folder / "sequential_data.txt", folder / "datamaps.json", folder / "meta.json.gz")
            )
        ),
    ),
    "amazon_official": Kind(
        lambda _, folder: write_official(folder),
        lambda folder: read_dataset(
            read_amazon(OfficialFiles(folder / "reviews_Beauty_5.json.gz", folder / "meta_Beauty.json.gz"))
        ),
    ),
}


def forge_hashes(folder: Path) -> None:
    """Give the manifests the hashes of the files as they are, as whoever lies about an artefact would."""
    for manifest in folder.rglob(MANIFEST):
        try:
            values = json.loads(manifest.read_bytes())
            files = {
                name: hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
                for name in values["files"]
            }
        except (ValueError, KeyError, TypeError, OSError, AttributeError, RecursionError):
            continue
        manifest.write_text(json.dumps({**values, "files": files}))
