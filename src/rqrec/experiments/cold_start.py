"""`rqrec hold-out-items` and `rqrec evaluate-cold`: how well items added after training are recommended."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from rqrec.core.artifact import check_inputs, create, find, read_manifest, reuse, write_json
from rqrec.core.progress import log
from rqrec.core.values import Config, Fraction, NonNegativeInt, PositiveInt
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import EMBEDDINGS_FILE, check_embeddings_of, embeddings_hash, read_embeddings
from rqrec.data.ids import PADDING, IdMap
from rqrec.data.protocols import check_protocol, protocol_of
from rqrec.data.splits import MIN_ITEMS, leave_one_out
from rqrec.evaluation.cold import CatalogueSubset, choose_items, cold_and_warm, warm_log, without_items
from rqrec.evaluation.evaluation_report import with_interval
from rqrec.evaluation.report import paragraph, save_report, table
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.popularity import Popularity
from rqrec.models.retrieval_model import RetrievalModel
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval
from rqrec.retrieval.cold_items import ColdItemSmoothing
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender
from rqrec.retrieval.retriever import BEAM_WIDTH, Retriever
from rqrec.stages.raw_data import DataConfig, dataset_from_raw
from rqrec.stages.tokenize import tokenize_new
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie

WARM, NEW_VECTORS, NEW_IDS, COLD_FILE = "warm", "new.npy", "new_ids.txt", "cold.json"


@dataclass(frozen=True)
class HoldOutConfig(Config):
    """Which items are held out."""

    share: Fraction = 0.05
    """Share of the items with interactions to hold out."""
    seed: NonNegativeInt = 0
    """Seed of the random selection."""


@dataclass(frozen=True)
class EvaluateColdConfig(Config):
    """How cold items are evaluated."""

    beam_width: PositiveInt = BEAM_WIDTH
    """Prefixes that the beam search keeps."""
    new_share: Fraction = 0.1
    """Share of the model's probability that cold-item smoothing gives to new items."""
    seed: NonNegativeInt = 0
    """Seed of the bootstrap intervals."""


def hold_out_items(
    config: HoldOutConfig, dataset: Path, embeddings: Path, out: Path, *, force: bool = False
) -> Path:
    """Hold items out of a dataset, and write the others as custom data that the training commands read.

    The "held_out" artefact contains `warm/` (log.parquet, items.parquet, item_embeddings.npy), which is passed as
    `train.dataset_folder`, and the embeddings (`new.npy`) and ids (`new_ids.txt`) of the held-out items.

    Raises ValueError if the embeddings contain collaborative vectors, which depend on interactions with the held-out
    items.
    """
    dataset = find(dataset, "dataset")
    check_embeddings_of(embeddings, dataset)
    data, vectors = Dataset.read(dataset), read_embeddings(embeddings).vectors
    _check_content_only(embeddings, len(vectors), len(data.catalog))
    inputs = {
        "dataset": read_manifest(dataset, "dataset").hash,
        "embeddings": embeddings_hash(embeddings),
    }
    if reuse(out, "held_out", asdict(config), inputs, force=force):
        return out
    held_N = choose_items(data.sequences, len(data.catalog), config.share, config.seed)
    rest = warm_log(data.sequences, held_N)
    left_out = len(without_items(data.sequences, held_N).items) - len(rest.items)
    if left_out:
        log(
            f"{left_out} interactions are left out: they are targets of users who are left with fewer than "
            f"{MIN_ITEMS} items, on all of which the model would train."
        )
    if data.sequences.order_only:
        rest = rest.without_times()  # positions with gaps would look like times
    users = pl.Series(rest.user_ids, dtype=pl.String)[np.repeat(np.arange(len(rest)), rest.lengths)]
    ids = data.catalog.items["item_id"]
    interactions = {"user_id": users, "item_id": ids[rest.items], "timestamp": rest.timestamps}
    metrics = {
        "held_out": int(held_N.sum()),
        "items": int((~held_N).sum()),
        "interactions": len(rest.items),
        "left_out": left_out,
    }
    with create(out, "held_out", settings=asdict(config), inputs=inputs, metrics=metrics) as target:
        (target / WARM).mkdir()
        pl.DataFrame(interactions).write_parquet(target / WARM / "log.parquet")
        warm = data.catalog.items.select("item_id", "title", "text").filter(~held_N)
        warm.write_parquet(target / WARM / "items.parquet")
        np.save(target / WARM / EMBEDDINGS_FILE, vectors[~held_N])
        np.save(target / NEW_VECTORS, vectors[held_N])
        (target / NEW_IDS).write_text("\n".join(ids.filter(held_N)) + "\n", encoding="utf-8")
    return out


def evaluate_cold(
    config: EvaluateColdConfig,
    held_out: Path,
    dataset: Path,
    embeddings: Path,
    run: Path,
    tokenizer: Path | str,
    *,
    out: Path | None = None,
    force: bool = False,
) -> Path:
    """Assign semantic IDs to the held-out items, and measure recall@10 of cold (held-out) and warm targets.

    `run` is the folder of a training run on `held_out/warm`, with semantic IDs and a model; `tokenizer` is the
    tokenizer that made these IDs. The model is measured with and without cold-item smoothing (`new_share`, see
    `rqrec.retrieval.cold_items`), without the experts that it is joined with, and compared with popularity and
    content kNN. The test examples are those of the complete dataset, leave-one-out. The model cannot recommend a new
    item for whose codes no deduplication code is free; such targets count as misses. Returns the "cold_evaluation"
    artefact: `out`, by default `evaluation_cold` in the run folder.

    Raises ValueError if the folders were not made from each other, or the model was trained with another protocol.
    """
    held_out, dataset, model = find(held_out, "held_out"), find(dataset, "dataset"), find(run, "retrieval")
    check_inputs(held_out, {"dataset": dataset})
    if read_manifest(held_out).inputs["embeddings"] != embeddings_hash(embeddings):
        raise ValueError(f"{held_out} was not made from {embeddings}. Run `rqrec hold-out-items` again.")
    check_protocol(model, protocol_of(read_manifest(model)), "leave_one_out")
    data, checkpoint = Dataset.read(dataset), read_retrieval(model)
    ids = data.catalog.id_map
    if checkpoint.model.config.n_items:
        raise ValueError(
            f"{model} reads content or vectors of items beside their codes, which it does not have for new items: "
            f"train it without train.content_input and train.item_embed_dim."
        )
    if checkpoint.others:
        log("The codes model is measured alone: the other experts know nothing of new items.")
    new_ids = (held_out / NEW_IDS).read_text(encoding="utf-8").split("\n")[:-1]
    held_N = np.zeros(len(ids), dtype=bool)
    held_N[ids.indices(new_ids)] = True
    warm = dataset_from_raw(DataConfig("custom", held_out / WARM))
    if read_manifest(model).inputs["dataset"] != read_manifest(warm).hash:
        raise ValueError(
            f"{model} was not trained on the data in {held_out / WARM}, so it may know the targets. Train it with "
            f"that folder as train.dataset_folder."
        )
    out = out or Path(run) / "evaluation_cold"
    inputs = {"held_out": read_manifest(held_out).hash, "retrieval": read_manifest(model).hash}
    if reuse(out, "cold_evaluation", asdict(config), inputs, force=force):
        return out
    with create(out, "cold_evaluation", settings=asdict(config), inputs=inputs) as target:
        table_folder = tokenize_new(
            tokenizer,
            held_out / NEW_VECTORS,
            find(run, "semantic_ids"),
            target / "semantic_ids",
            new_ids=held_out / NEW_IDS,
        )
        table = SemanticIdTable.read(table_folder)
        plain = _with_new_items(checkpoint, table, ids, config.beam_width)
        smoothed = _with_new_items(checkpoint, table, ids, config.beam_width, config.new_share)
        split = leave_one_out(data.sequences)
        train = without_items(split.train, held_N)
        recommenders: dict[str, ItemRecommender] = {
            "model": plain,
            f"model, {config.new_share:g} for new items": smoothed,
            "popularity": ExhaustiveRecommender(Popularity(train, len(ids))),
            "content_knn": ExhaustiveRecommender(ContentKnn(read_embeddings(embeddings).vectors)),
        }
        results = {
            "held_out": len(new_ids),
            "without_a_code": int((plain.local_indices_N == PADDING).sum()),
            "recommenders": {
                name: cold_and_warm(
                    recommender,
                    split.test,
                    train,
                    held_N,
                    exclude_seen=checkpoint.exclude_seen,
                    seed=config.seed,
                    description=f"Evaluating {name}",
                )
                for name, recommender in recommenders.items()
            },
        }
        write_json(target / COLD_FILE, results)
        save_report(target, "Cold items", _report(results))
    return out


def _check_content_only(embeddings: Path, rows: int, items: int) -> None:
    if rows != items:
        raise ValueError(
            f"{embeddings} has {rows} embeddings, but the dataset has {items} items: give the embeddings of this "
            f"dataset."
        )
    try:
        manifest = read_manifest(find(embeddings, "embeddings"))
    except FileNotFoundError:
        return  # a plain folder does not record what its vectors contain
    if manifest.settings.get("collaborative"):
        raise ValueError(
            f"{embeddings} contains collaborative vectors, which depend on interactions with the items to hold out. "
            f"Make content embeddings with `rqrec embed`, without --collaborative."
        )


def _with_new_items(
    checkpoint: RetrievalArtifact,
    table: SemanticIdTable,
    ids: IdMap,
    beam_width: int,
    share: float | None = None,
) -> CatalogueSubset:
    """The model as a recommender of all items whose codes it can generate, with indices of the complete catalogue.

    `share` of its probability is given to items that it was not trained on (None: no cold-item smoothing).
    """
    sizes = np.array(checkpoint.table.level_sizes)
    rows = np.flatnonzero((table.codes_NL < sizes).all(axis=1))
    reachable = SemanticIdTable(
        IdMap(table.item_ids.ids(rows)),
        table.codes_NL[rows],
        checkpoint.table.level_sizes,
        table.tokenizer_hash,
    )
    local_indices_N = np.full(len(ids), PADDING, dtype=np.int64)
    local_indices_N[ids.indices(reachable.item_ids.all)] = np.arange(len(reachable))
    model: RetrievalModel[Any] = checkpoint.model
    if share is not None:
        trained_N = checkpoint.catalog.id_map.find(reachable.item_ids.all) != PADDING
        trie = Trie.build(reachable.codes_NL)
        model = ColdItemSmoothing(model, trie, torch.from_numpy(trained_N), share)
    return CatalogueSubset(Retriever(model, reachable, beam_width), local_indices_N)


def _report(results: dict[str, Any]) -> list[str]:
    return [
        paragraph(
            f"{results['held_out']} items were held out of all training and got their semantic IDs afterwards. "
            f"{results['without_a_code']} of them have no code that the model could generate, and count as misses. "
            f"Recall@10 on the test examples of the complete dataset (leave-one-out, full catalogue), with 95 % "
            f"bootstrap intervals."
        ),
        table(
            ["", "cold targets", "warm targets"],
            [
                [
                    name,
                    *(
                        with_interval(row[kind]["metrics"]["recall@10"], row[kind]["intervals"]["recall@10"])
                        for kind in ("cold", "warm")
                    ),
                ]
                for name, row in results["recommenders"].items()
            ],
        ),
    ]
