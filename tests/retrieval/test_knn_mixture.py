"""The kNN index and its mixture with a model, against their formulas computed by loops."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rqrec import Recommender
from rqrec.core.artifact import read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.ids import PADDING, IdMap
from rqrec.data.sequences import Histories, Sequences
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.registry import fit_baseline
from rqrec.knn.fit import fit_knn_index
from rqrec.knn.graph import item_item_knn
from rqrec.knn.index import NEIGHBOURS_FILE, KnnIndex, KnnSettings, p_knn
from rqrec.models.architectures import ARCHITECTURES
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.ranking import Ranked
from rqrec.retrieval.retriever import Retriever
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig
from rqrec.training.tune_knn import tune_knn_mixture
from tests.retrieval.test_beam_search import (
    random_codes,
    random_histories,
    random_model,
)
from tests.tiny import FAMILIES, N_ITEMS, SIZE, tiny_dataset, tiny_vectors

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def random_index(seed: int, n_items: int, **changes: Any) -> KnnIndex:
    """Up to four neighbours for each item, none for some."""
    rng = np.random.default_rng(seed)
    neighbours = np.full((n_items, 4), PADDING, dtype=np.int32)
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        some = rng.permutation(others)[: rng.integers(0, 5)]
        neighbours[item, : len(some)] = some
    similarity = np.where(neighbours == PADDING, 0, rng.random(neighbours.shape)).astype(np.float32)
    index = KnnIndex(torch.from_numpy(neighbours), torch.from_numpy(similarity))
    return index.with_settings(**changes)


def dense_scores(knn: KnnIndex, items_BT: np.ndarray, *, exclude_seen: bool = True) -> np.ndarray:
    """The index's score of every item, by loops."""
    scores = np.zeros((len(items_BT), len(knn)))
    for row, items in enumerate(items_BT):
        history = items[items != PADDING].tolist()
        for age, item in enumerate(reversed(history[-knn.settings.max_items :])):
            for other, similarity in zip(
                knn.neighbours_NM[item].tolist(), knn.similarity_NM[item].tolist(), strict=True
            ):
                if other != PADDING and not (exclude_seen and other in history):
                    scores[row, other] += similarity * knn.settings.decay**age
    return scores


def normalised(values: np.ndarray) -> np.ndarray:
    """Rows that sum to one; rows of zeros stay."""
    sums = values.sum(axis=1, keepdims=True)
    return np.divide(values, sums, out=np.zeros_like(values), where=sums > 0)


def random_retriever(
    seed: int, name: str, n_items: int, sizes: tuple[int, ...] = SIZES, beam: int = 5, **changes: Any
) -> Retriever:
    codes = random_codes(seed, n_items, sizes)
    table = SemanticIdTable(IdMap([str(item) for item in range(len(codes))]), codes, sizes, "", False)
    index = random_index(seed, len(codes), **changes)
    return Retriever(random_model(seed, sizes, name), table, beam, knn=index)


def seen_mask(items_BT: np.ndarray, n_items: int) -> np.ndarray:
    mask = np.zeros((len(items_BT), n_items + 1), dtype=bool)
    np.put_along_axis(mask, np.where(items_BT == PADDING, n_items, items_BT), True, axis=1)
    return mask[:, :n_items]


def dense_mixture(retriever: Retriever, items_BT: np.ndarray, allowed_BN: np.ndarray) -> np.ndarray:
    """The mixture of both distributions, each conditioned on the allowed items."""
    assert retriever.knn is not None
    weight, power = retriever.knn.settings.weight, retriever.knn.settings.power
    log_p_BN = retriever.score_items(Histories(items_BT)).double()
    log_p_BN = log_p_BN.masked_fill(torch.from_numpy(~allowed_BN), -torch.inf)
    p_model = log_p_BN.softmax(1).nan_to_num().numpy()  # not a number where no item is allowed
    scores = dense_scores(retriever.knn, items_BT, exclude_seen=False) * allowed_BN
    p_neighbours = normalised(scores**power)
    weight_B1 = weight * (p_neighbours.sum(axis=1, keepdims=True) > 0)
    return (1 - weight_B1) * p_model + weight_B1 * p_neighbours


def by_item(ranked: Ranked, n_items: int) -> np.ndarray:
    """The probabilities of ranked items, [B, N]; 0 for items that are not in the list."""
    found = np.zeros((len(ranked.items), n_items + 1))
    items = ranked.items.numpy()
    np.put_along_axis(found, np.where(items == PADDING, n_items, items), ranked.scores.exp().numpy(), axis=1)
    return found[:, :n_items]


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("count", [None, 3])
def test_candidates_are_the_best_neighbours_of_the_most_recent_items(
    exclude_seen: bool, count: int | None
) -> None:
    knn, items_BT = random_index(4, 30, max_items=3), random_histories(4, 30, 20, 6)
    expected = dense_scores(knn, items_BT, exclude_seen=exclude_seen)
    items, scores = (x.numpy() for x in knn.retrieve(Histories(items_BT), count, exclude_seen=exclude_seen))
    for row, dense in enumerate(expected):
        best = sorted(np.flatnonzero(dense), key=lambda item: (-np.float32(dense[item]), item))[:count]
        assert sorted(items[row][items[row] != PADDING]) == sorted(best)
        assert scores[row][: len(best)] == pytest.approx(dense[items[row][: len(best)]], rel=1e-5)
        assert not scores[row][len(best) :].any()


@architectures
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 50),
    sizes=st.sampled_from([(3, 4, 5), (8, 1, 4), (2, 2, 2, 7), (40,)]),
    weight=st.sampled_from([0.05, 0.5, 0.95]),
    exclude_seen=st.booleans(),
    block=st.booleans(),
)
def test_with_all_items_as_candidates_both_sides_are_conditioned_on_the_same_items(
    name: str,
    seed: int,
    n_items: int,
    sizes: tuple[int, ...],
    weight: float,
    exclude_seen: bool,
    block: bool,
) -> None:
    retriever = random_retriever(seed, name, n_items, sizes, beam=n_items, weight=weight)
    n = len(retriever.table)
    items_BT = random_histories(seed, n, 4, 7)
    allowed_N = np.random.default_rng(seed).random(n) < 0.7 if block else None
    ranked = retriever.recommend(Histories(items_BT), n, exclude_seen=exclude_seen, allowed_N=allowed_N)
    allowed_BN = np.ones((4, n), dtype=bool) if allowed_N is None else np.tile(allowed_N, (4, 1))
    if exclude_seen:
        allowed_BN &= ~seen_mask(items_BT, n)
    assert ((ranked.items != PADDING).sum(1).numpy() == allowed_BN.sum(1)).all()
    found = by_item(ranked, n)
    np.testing.assert_allclose(found, dense_mixture(retriever, items_BT, allowed_BN), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.sum(1), allowed_BN.any(1), atol=1e-4)  # sums to 1 wherever it can
    assert (ranked.scores[:, 1:] <= ranked.scores[:, :-1]).all()


@architectures
@pytest.mark.parametrize("weight", [0.3, 0.8])
def test_the_weight_is_the_share_of_the_neighbours(name: str, weight: float) -> None:
    """However much probability the model gives to seen items and to codes of no item."""
    retriever = random_retriever(2, name, 40, beam=6)
    found = retriever.candidates(Histories(random_histories(2, 40, 12, 6)))
    mixture = found.log_p_mixture(weight, 2.0).exp()
    model = (1 - weight) * found.log_p_model_BC.softmax(1)
    has_neighbours = found.knn_scores_BC.any(1)
    assert 0 < has_neighbours.float().mean() < 1
    share = (mixture - model).sum(1)
    torch.testing.assert_close(share[has_neighbours], torch.full((int(has_neighbours.sum()),), weight))
    torch.testing.assert_close(mixture.sum(1), torch.ones(12))


@architectures
def test_the_model_scores_the_neighbours_that_its_beam_missed(name: str) -> None:
    retriever = random_retriever(3, name, 60, beam=4)
    histories = Histories(random_histories(3, 60, 10, 6))
    found, exact = retriever.candidates(histories), retriever.score_items(histories)
    real = found.items_BC != PADDING
    assert (real.sum(1) > 4).any()
    expected = exact.gather(1, found.items_BC.clamp(min=0))
    torch.testing.assert_close(found.log_p_model_BC[real], expected[real], atol=1e-4, rtol=1e-5)
    for row in found.items_BC.tolist():
        items = [item for item in row if item != PADDING]
        assert len(items) == len(set(items))


@architectures
def test_each_user_of_a_batch_gets_the_same_as_alone(name: str) -> None:
    retriever, items_BT = random_retriever(3, name, 50), random_histories(3, 50, 7, 9)
    together = retriever.recommend(Histories(items_BT), 5)
    for row, items in enumerate(items_BT):
        alone = retriever.recommend(Histories.of([items[items != PADDING]]), 5)
        assert alone.items[0].tolist() == together.items[row].tolist()
        torch.testing.assert_close(alone.scores[0], together.scores[row], atol=1e-4, rtol=1e-5)


@architectures
def test_at_most_so_many_items_share_their_first_code(name: str) -> None:
    retriever = random_retriever(5, name, 50, (6, 4, 5))
    ranked = retriever.recommend(Histories(random_histories(5, 50, 8, 6)), 6, max_per_code=1)
    first_codes = retriever.table.codes_NL[:, 0]
    for items in ranked.items.tolist():
        codes = [first_codes[item] for item in items if item != PADDING]
        assert len(codes) == len(set(codes)) >= 5


def test_a_seen_item_that_people_take_again_is_proposed_if_seen_items_are_allowed() -> None:
    users = [[0, 1, 0], [2, 3, 2], [0, 4, 0]] * 4
    items = np.array([item for user in users for item in user], dtype=np.int32)
    train = Sequences(items, np.arange(0, len(items) + 1, 3), np.arange(len(items)), tuple("abcdefghijkl"))
    knn = KnnIndex.from_similarity(item_item_knn(train, 5, 3, 1.0))
    histories = Histories.of([[2, 0]])
    assert 0 in knn.retrieve(histories, exclude_seen=False).items_BM[0].tolist()
    assert not {0, 2} & {*knn.retrieve(histories).items_BM[0].tolist()}


@pytest.mark.parametrize(
    "contents", [None, tiny_vectors()], ids=["co-occurrence", "co-occurrence and content"]
)
def test_the_baseline_ranks_exactly_as_the_index_of_a_mixture(contents: np.ndarray | None) -> None:
    split = leave_one_out(tiny_dataset().sequences)
    name = "item_knn" if contents is None else "hybrid_knn"
    baseline = fit_baseline(name, split, N_ITEMS, contents)
    knn = fit_knn_index(split, N_ITEMS, contents)
    histories = split.test.histories(np.arange(30))
    alone, best = knn.retrieve(histories, 10), baseline.recommend(histories, 10)
    real = alone.items_BM != PADDING
    assert real.any()
    assert torch.equal(best.items[real], alone.items_BM[real])


def test_small_scores_keep_their_proportions() -> None:
    knn = KnnIndex(torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.full((3, 2), 1e-30)).with_settings(power=4.0)
    knn.similarity_NM[0, 1] = 2e-30
    items_BM, scores_BM = knn.retrieve(Histories.of([[0]]))
    assert items_BM[0, :2].tolist() == [2, 1]
    assert p_knn(scores_BM, knn.settings.power)[0, :2].tolist() == pytest.approx([16 / 17, 1 / 17])


@pytest.fixture(scope="module")
def run_with_knn(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KnnIndex]:
    """The artefact of the tiny model with a kNN index, and the index."""
    from rqrec.core.artifact import create
    from rqrec.retrieval.artifact import write_retrieval

    artifact = read_retrieval(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)
    index = fit_knn_index(split, N_ITEMS)
    knn = tune_knn_mixture(Retriever(artifact.model, artifact.table, 20, knn=index), split.validation)
    folder = tmp_path_factory.mktemp("knn") / "retrieval"
    with create(folder, "retrieval", settings={}, inputs={}, metrics={}) as target:
        write_retrieval(target, artifact._replace(knn=knn))
    return folder, knn


def test_a_saved_mixture_recommends_and_explains_with_its_index(run_with_knn: tuple[Path, KnnIndex]) -> None:
    folder, knn = run_with_knn
    stored = read_retrieval(folder)
    assert stored.knn is not None
    assert stored.knn.settings == knn.settings
    recommender = Recommender.load(folder)
    history = ["item 1", "item 2", "item 3"]
    (found,) = recommender.recommend([history], k=5)
    explained = recommender.explain(history, found[0].item_id)
    plain = {
        item.item_id: item.score for item in Recommender(stored._replace(knn=None)).recommend([history])[0]
    }
    assert explained.recommendation.score == pytest.approx(plain[found[0].item_id], abs=1e-4)
    product = np.prod([step.probability for step in explained.path])
    assert np.log(product) == pytest.approx(plain[found[0].item_id], abs=1e-4)
    assert found[0].score != pytest.approx(plain[found[0].item_id], abs=1e-4)


def test_the_chosen_settings_are_no_worse_than_others_on_validation(tiny_run: Path) -> None:
    artifact = read_retrieval(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)

    def ndcg(knn: KnnIndex) -> float:
        retriever = artifact._replace(knn=knn).retriever(20)
        return evaluate(retriever, split.validation).metrics["ndcg@10"]

    index = fit_knn_index(split, N_ITEMS)
    retriever = Retriever(artifact.model, artifact.table, 20, knn=index)
    chosen = tune_knn_mixture(retriever, split.validation)
    others = [
        chosen.with_settings(weight=weight, power=power) for weight in (0.1, 0.7) for power in (1.0, 4.0)
    ]
    assert ndcg(chosen) >= max(map(ndcg, others)) - 1e-6


def test_content_gets_weight_where_it_predicts_the_next_item() -> None:
    few = leave_one_out(tiny_dataset(24).sequences)
    angle = 2 * np.pi * (np.arange(N_ITEMS) % SIZE) / SIZE
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    in_family = np.eye(FAMILIES)[np.arange(N_ITEMS) // SIZE, :, None] * circle[:, None]
    knn = fit_knn_index(few, N_ITEMS, in_family.reshape(N_ITEMS, -1))
    assert knn.settings.content_weight > 0
    assert fit_knn_index(few, N_ITEMS).settings.content_weight == 0
    # Too few users for co-occurrence to find all pairs of adjacent items.
    for item, others in enumerate(knn.neighbours_NM.tolist()):
        family = item // SIZE * SIZE
        assert {family + (item + step) % SIZE for step in (1, -1)} <= {*others}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": 1.0}, "weight is 1.0"),
        ({"max_items": 0}, "max_items is 0"),
        ({"power": 0.0}, "power is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"content_weight": -0.1}, "content_weight is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnnSettings(**change)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    knn = random_index(0, 10)
    knn.write(tmp_path)
    assert KnnIndex.read(tmp_path / "elsewhere", 10) is None
    with pytest.raises(ValueError, match="with 11 rows"):
        KnnIndex.read(tmp_path, 11)
    knn.neighbours_NM[0, 0] = 10
    knn.write(tmp_path)
    with pytest.raises(ValueError, match="item indices outside of the catalogue of 10 items"):
        KnnIndex.read(tmp_path, 10)
    knn.neighbours_NM[0, 0] = 9
    KnnIndex(knn.neighbours_NM, -knn.similarity_NM).write(tmp_path)
    with pytest.raises(ValueError, match="has negative similarities"):
        KnnIndex.read(tmp_path, 10)
    KnnIndex(knn.neighbours_NM, knn.similarity_NM.int()).write(tmp_path)
    with pytest.raises(ValueError, match=r"similarity of torch.int32, but must have int32 and float32"):
        KnnIndex.read(tmp_path, 10)
    (tmp_path / NEIGHBOURS_FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="is damaged or missing"):
        KnnIndex.read(tmp_path, 10)


def test_training_can_add_a_knn_mixture(tiny_run: Path, tmp_path: Path) -> None:
    config = TrainDecoderConfig(
        loop=LoopConfig(iterations=4, warmup=1),
        checkpoints=CheckpointConfig(tmp_path),
        architecture="hierarchical",
        model={
            "max_items": 8,
            "decoder_embed_dim": 16,
            "attn_embed_dim": 16,
            "attn_heads": 2,
            "attn_layers": 1,
        },
        batch_size=32,
        knn_mixture=True,
    )
    inputs = {"dataset": tiny_run / "dataset", "semantic_ids": tiny_run / "semantic_ids"}
    np.save(tmp_path / "item_embeddings.npy", np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match=f"embeddings of 3 items, but there are semantic IDs of {N_ITEMS}"):
        train_decoder(config, **inputs, embeddings=tmp_path)
    folder = train_decoder(config, **inputs, embeddings=tiny_run / "embeddings")
    knn = read_retrieval(folder).knn
    assert knn is not None
    manifest = read_manifest(folder, "retrieval")
    assert manifest.settings["knn_mixture"] is True
    assert manifest.metrics["knn_mixture"]["weight"] == knn.settings.weight
    assert {"dataset", "semantic_ids", "embeddings"} == {*manifest.inputs}
