"""`rqrec hold-out-items` and `rqrec evaluate-cold`: how well items added after training are recommended.

Shapes: N items.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rqrec.core.artifact import check_inputs, create, find, read_manifest, reuse, write_json
from rqrec.core.device import device_of
from rqrec.core.progress import log
from rqrec.data.dataset import Dataset
from rqrec.data.embeddings import (
    EMBEDDINGS_FILE,
    check_embeddings_of,
    embeddings_hash,
    read_embeddings,
    read_with_zeros,
)
from rqrec.data.protocols import check_protocol, protocol_of
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import MIN_ITEMS, Split, leave_one_out
from rqrec.evaluation.cold import CatalogueSubset, choose_items, cold_and_warm, warm_log, without_items
from rqrec.evaluation.evaluation_report import with_interval
from rqrec.evaluation.figures import draw_trade
from rqrec.evaluation.measure import EvalResult, measure, measure_each
from rqrec.evaluation.report import figure, paragraph, save_report, table
from rqrec.experiments.cold_start_config import EvaluateColdConfig, HoldOutConfig
from rqrec.knn.content_knn import ContentKnn
from rqrec.knn.popularity import Popularity
from rqrec.retrieval.artifact import RetrievalArtifact, read_retrieval
from rqrec.retrieval.changes import CatalogueChanges
from rqrec.retrieval.live_catalog import add_items, apply_changes, can_take_new_items
from rqrec.retrieval.new_items import LiveRecommender
from rqrec.retrieval.ranking import ExhaustiveRecommender, ItemRecommender, Ranked
from rqrec.stages.raw_data import DataConfig, dataset_from_raw
from rqrec.training.fit_new_items import RATES

WARM, NEW_VECTORS, NEW_IDS = "warm", "new.npy", "new_ids.txt"
COLD_FILE, CURVE_FILE = "cold.json", "curve.png"


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
    *,
    out: Path | None = None,
    force: bool = False,
) -> Path:
    """Add the held-out items to a model, as to one that is served, and measure recall@10 of cold and warm targets.

    `run` is the folder of a training run on `held_out/warm`, or a joined model of such runs. Both kinds of items are
    in one list. The model is measured without the held-out items, with them at the rate that validation chose (see
    `rqrec.training.fit_new_items`) and at others, and compared with popularity and content kNN. The test examples
    are those of the complete dataset, leave-one-out. Returns the "cold_evaluation" artefact: `out`, by default
    `evaluation_cold` in the run folder.

    Raises ValueError if the folders were not made from each other, the model was trained with another protocol, or
    it cannot take new items.
    """
    held_out, dataset, model = find(held_out, "held_out"), find(dataset, "dataset"), find(run, "retrieval")
    check_inputs(held_out, {"dataset": dataset})
    if read_manifest(held_out).inputs["embeddings"] != embeddings_hash(embeddings):
        raise ValueError(f"{held_out} was not made from {embeddings}. Run `rqrec hold-out-items` again.")
    check_protocol(model, protocol_of(read_manifest(model)), "leave_one_out")
    data, trained = Dataset.read(dataset), read_retrieval(model)
    new_ids = (held_out / NEW_IDS).read_text(encoding="utf-8").split("\n")[:-1]
    held_N = np.zeros(len(data.catalog), dtype=bool)
    held_N[data.catalog.id_map.indices(new_ids)] = True
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
    vectors = can_take_new_items(trained).complete(read_with_zeros(held_out / NEW_VECTORS)[0])
    new = data.catalog.items.filter(held_N).select("item_id", "title", "text")
    live = apply_changes(trained, add_items(trained, CatalogueChanges.none(), new, vectors))
    split = leave_one_out(data.sequences)
    train = without_items(split.train, held_N)
    rates = [trained.new_items.rate, *RATES]
    measured = _measure_rates(config, live, data, split, train, [0.0, *rates], trained.exclude_seen)
    baselines: dict[str, ItemRecommender] = {
        "popularity": ExhaustiveRecommender(Popularity(train, len(held_N))),
        "content_knn": ExhaustiveRecommender(ContentKnn(read_embeddings(embeddings).vectors)),
    }
    for name, baseline in baselines.items():
        measured.append(
            measure(
                baseline,
                split.test,
                train,
                len(held_N),
                exclude_seen=trained.exclude_seen,
                description=f"Evaluating {name}",
            )
        )
    groups = [cold_and_warm(result, held_N, config.seed) for result in measured]
    curve = [
        {"rate": rate, **{kind: one[kind]["metrics"]["recall@10"] for kind in one}}
        for rate, one in zip(rates, groups[1:], strict=False)
    ]
    results = {
        "held_out": len(new_ids),
        "chosen": curve[0],
        "curve": sorted(curve, key=lambda one: one["rate"]),
        "recommenders": {
            "without new items": groups[0],
            "with new items": groups[1],
            **dict(zip(baselines, groups[-len(baselines) :], strict=True)),
        },
    }
    with create(out, "cold_evaluation", settings=asdict(config), inputs=inputs) as target:
        write_json(target / COLD_FILE, results)
        draw_trade(target / CURVE_FILE, *_points(results))
        save_report(target, "Cold items", _report(results))
    return out


def _measure_rates(
    config: EvaluateColdConfig,
    live: RetrievalArtifact,
    data: Dataset,
    split: Split,
    train: Sequences,
    rates: list[float],
    exclude_seen: bool,
) -> list[EvalResult]:
    """The model with each rate of new items, in one pass."""
    recommender = live.recommender(live.retriever(config.beam_width, device_of(config.device)))
    assert isinstance(recommender, LiveRecommender)
    subset = CatalogueSubset(live.catalog.id_map.find(data.catalog.id_map.all))

    def recommend(histories: Histories, k: int) -> list[list[Ranked]]:
        local = subset.local(histories)
        lists = recommender.recommend_at_rates(local, k, rates, exclude_seen=exclude_seen)
        return [[subset.catalogue(one)] for one in lists]

    return measure_each(recommend, split.test, train, len(data.catalog), description="Evaluating the model")


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


Point = tuple[float, float]


def _points(results: dict[str, Any]) -> tuple[list[Point], Point]:
    """Recall@10 of known and of new targets: without new items and at each rate, and at the chosen rate."""
    without = results["recommenders"]["without new items"]
    rows = [{kind: without[kind]["metrics"]["recall@10"] for kind in ("cold", "warm")}, *results["curve"]]
    return [(row["warm"], row["cold"]) for row in rows], (
        results["chosen"]["warm"],
        results["chosen"]["cold"],
    )


def _report(results: dict[str, Any]) -> list[str]:
    chosen = results["chosen"]
    return [
        paragraph(
            f"{results['held_out']} items were held out of all training and added to the trained model. Recall@10 on "
            f"the test examples of the complete dataset (leave-one-out, full catalogue, both kinds of items in one "
            f"list), with 95 % bootstrap intervals. Validation chose that a new item has {chosen['rate']:g} times "
            f"the probability of a known one that is as much like the history."
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
        paragraph("What new items gain and known ones lose with other rates:"),
        table(
            ["rate", "cold targets", "warm targets"],
            [[f"{one['rate']:g}", f"{one['cold']:.4f}", f"{one['warm']:.4f}"] for one in results["curve"]],
        ),
        figure(CURVE_FILE, "Recall@10 of cold and of warm targets at each rate"),
    ]
