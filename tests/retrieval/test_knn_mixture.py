"""The kNN index against its formulas computed by loops, and the mixture as a retrieval model."""

import itertools
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
from rqrec.data.ids import PADDING
from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.knn.graph import CONTENT_NEIGHBOURS, content_knn_graph, item_item_knn
from rqrec.knn.index import NEIGHBOURS_FILE, KnnIndex, KnnSettings
from rqrec.knn.item_knn import ItemKnn
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.retrieval_model import CodeLookup
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.beam_search import beam_search, score_items
from rqrec.retrieval.knn_mixture import KnnMixture
from rqrec.retrieval.ranking import ExhaustiveRecommender, rank_scores
from rqrec.retrieval.retriever import Retriever
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.tokenizer.trie import Trie
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig
from rqrec.training.tune_knn import tune_knn_mixture
from tests.retrieval.test_beam_search import (
    assert_batch_equals_single,
    random_codes,
    random_histories,
    random_model,
)
from tests.tiny import FAMILIES, N_ITEMS, SIZE, tiny_dataset, tiny_vectors

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def random_index(seed: int, n_items: int, **changes: float) -> KnnIndex:
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


def dense_p_knn(knn: KnnIndex, items_BT: np.ndarray) -> np.ndarray:
    """p_knn of every item, by loops."""
    scores = np.zeros((len(items_BT), len(knn)))
    for row, items in enumerate(items_BT):
        history = items[items != PADDING].tolist()
        for age, item in enumerate(reversed(history)):
            for other, similarity in zip(
                knn.neighbours_NM[item].tolist(), knn.similarity_NM[item].tolist(), strict=True
            ):
                if other != PADDING and other not in history:
                    scores[row, other] += similarity * knn.settings.decay**age
    powers = scores**knn.settings.power
    sums = powers.sum(axis=1, keepdims=True)
    return np.divide(powers, sums, out=np.zeros_like(powers), where=sums > 0)


def mixture(seed: int, name: str, n_items: int, sizes: tuple[int, ...] = SIZES, **changes: float) -> Any:
    codes = random_codes(seed, n_items, sizes)
    model, knn = random_model(seed, sizes, name), random_index(seed, len(codes), **changes)
    lookup, trie = CodeLookup.from_codes(codes), Trie.build(codes)
    return KnnMixture(model, knn, trie), model, knn, lookup, trie


@architectures
def test_an_items_probability_is_the_weighted_sum_of_p_model_and_p_knn(name: str) -> None:
    both, model, knn, lookup, _ = mixture(0, name, 40, mixture_weight=0.4, power=2.0)
    items_BT = random_histories(0, 40, 12, 6)
    batch = lookup.batch(Histories(items_BT), 6)
    p_model, p_knn = score_items(model, batch, lookup.codes_NL).exp(), dense_p_knn(knn, items_BT)
    weight = 0.4 * (p_knn.sum(axis=1, keepdims=True) > 0)
    assert 0 < weight.astype(bool).mean() < 1  # some histories have no neighbours at all
    expected = (1 - weight) * p_model.detach().numpy() + weight * p_knn
    found = score_items(both, batch, lookup.codes_NL).exp()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-9)


@architectures
def test_every_level_is_normalised_whatever_the_order_of_the_queries(name: str) -> None:
    both, _, _, lookup, _ = mixture(1, name, 30)
    batch = lookup.batch(Histories(random_histories(1, 30, 5, 6)), 6)
    every = torch.tensor(list(itertools.product(*map(range, SIZES))))
    context = both.encode(batch)
    in_order = [both.next_level(context, every[None, :, :level].expand(5, -1, -1)) for level in range(3)]
    for level in (2, 0, 1):
        log_probs = both.next_level(both.encode(batch), every[None, :, :level].expand(5, -1, -1))
        assert log_probs.dtype == torch.float32
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
        torch.testing.assert_close(log_probs, in_order[level], atol=1e-5, rtol=1e-5)


@architectures
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 50),
    sizes=st.sampled_from([(3, 4, 5), (8, 1, 4), (2, 2, 2, 7), (40,)]),
    weight=st.sampled_from([0.05, 0.5, 0.95]),
)
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(
    name: str, seed: int, n_items: int, sizes: tuple[int, ...], weight: float
) -> None:
    both, _, _, lookup, trie = mixture(seed, name, n_items, sizes, mixture_weight=weight)
    n = len(lookup.codes_NL)
    items_BT = random_histories(seed, n, 4, 7)
    batch, seen = lookup.batch(Histories(items_BT), 6), torch.from_numpy(items_BT)
    found = beam_search(both, batch, trie, n, beam_width=n, excluded_BX=seen)
    expected = rank_scores(score_items(both, batch, lookup.codes_NL), n, excluded_BX=seen)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    # Items whose scores are equal up to rounding may come in either order.
    score_of = {
        row: dict(zip(i.tolist(), s.tolist(), strict=True))
        for row, (i, s) in enumerate(zip(*expected, strict=True))
    }
    for row, items in enumerate(found.items.tolist()):
        assert sorted(items) == sorted(expected.items[row].tolist())
        real = [item for item in items if item != PADDING]
        assert [score_of[row][item] for item in real] == pytest.approx(
            found.scores[row][: len(real)].tolist(), abs=1e-4, rel=1e-5
        )


@architectures
def test_each_user_of_a_batch_gets_the_same_as_alone(name: str) -> None:
    both, _, _, lookup, trie = mixture(3, name, 50)
    assert_batch_equals_single(both, lookup, trie, random_histories(3, 50, 7, 9), rtol=1e-5)


@pytest.mark.parametrize(
    "contents", [None, tiny_vectors()], ids=["co-occurrence", "co-occurrence and content"]
)
def test_candidates_score_the_same_as_in_the_item_knn_baseline(contents: np.ndarray | None) -> None:
    split = leave_one_out(tiny_dataset().sequences)
    similarity = item_item_knn(split.train, N_ITEMS, N_ITEMS, 20.0)
    if contents is not None:
        similarity = similarity + 0.03 * content_knn_graph(contents, CONTENT_NEIGHBOURS)
    knn = KnnIndex.from_similarity(similarity).with_settings(power=1.0)
    histories = split.validation.histories(np.arange(30))
    decay = knn.settings.decay
    baseline = ItemKnn(split.train, N_ITEMS, neighbours=N_ITEMS, decay=decay, content_ND=contents)
    candidates = knn.retrieve(torch.from_numpy(histories.items_BT))
    best = ExhaustiveRecommender(baseline).recommend(histories, 3)
    for row in range(30):
        score_of = dict(
            zip(candidates.items_BR[row].tolist(), candidates.scores_BR[row].tolist(), strict=True)
        )
        for item, score in zip(best.items[row].tolist(), best.scores[row].tolist(), strict=True):
            assert score_of.get(item, 0.0) == pytest.approx(score, abs=2e-6)  # up to the popularity score


def test_small_scores_keep_their_proportions() -> None:
    knn = KnnIndex(torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.full((3, 2), 1e-30)).with_settings(power=4.0)
    knn.similarity_NM[0, 1] = 2e-30
    candidates = knn.retrieve(torch.tensor([[0]]))
    p_knn = dict(zip(candidates.items_BR[0].tolist(), knn.probabilities(candidates)[0].tolist(), strict=True))
    assert p_knn == {1: pytest.approx(1 / 17), 2: pytest.approx(16 / 17)}


@pytest.fixture(scope="module")
def run_with_knn(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KnnIndex]:
    """The artefact of the tiny model with a kNN index, and the index."""
    from rqrec.core.artifact import create
    from rqrec.retrieval.artifact import write_retrieval

    artifact = read_retrieval(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)
    knn = tune_knn_mixture(Retriever(artifact.model, artifact.table, 20), split)
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
    assert explained.recommendation.score == pytest.approx(found[0].score, abs=1e-4)
    product = np.prod([step.probability for step in explained.path])
    assert np.log(product) == pytest.approx(found[0].score, abs=1e-4)
    plain = Recommender(stored._replace(knn=None)).recommend([history], k=5)[0]
    assert [item.score for item in plain] != [item.score for item in found]


def test_the_chosen_settings_are_no_worse_than_others_on_validation(tiny_run: Path) -> None:
    artifact = read_retrieval(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)

    def ndcg(knn: KnnIndex) -> float:
        retriever = Retriever(artifact._replace(knn=knn).search_model(), artifact.table, N_ITEMS)
        return evaluate(retriever, split.validation).metrics["ndcg@10"]

    chosen = tune_knn_mixture(Retriever(artifact.model, artifact.table, N_ITEMS), split)
    others = [
        chosen.with_settings(mixture_weight=weight, power=power)
        for weight in (0.1, 0.7)
        for power in (1.0, 4.0)
    ]
    assert ndcg(chosen) >= max(map(ndcg, others)) - 1e-6


def test_content_gets_weight_where_it_predicts_the_next_item(tiny_run: Path) -> None:
    artifact, few = read_retrieval(tiny_run), leave_one_out(tiny_dataset(24).sequences)
    angle = 2 * np.pi * (np.arange(N_ITEMS) % SIZE) / SIZE
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    in_family = np.eye(FAMILIES)[np.arange(N_ITEMS) // SIZE, :, None] * circle[:, None]
    retriever = Retriever(artifact.model, artifact.table, 20)
    knn = tune_knn_mixture(retriever, few, content_ND=in_family.reshape(N_ITEMS, -1))
    assert knn.settings.content_weight > 0
    assert tune_knn_mixture(retriever, few).settings.content_weight == 0
    # Too few users for co-occurrence to find all pairs of adjacent items.
    for item, others in enumerate(knn.neighbours_NM.tolist()):
        family = item // SIZE * SIZE
        assert {family + (item + step) % SIZE for step in (1, -1)} <= {*others}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mixture_weight": 1.0}, "mixture_weight is 1.0"),
        ({"power": 0.0}, "power is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"content_weight": -0.1}, "content_weight is -0.1"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
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
    (tmp_path / NEIGHBOURS_FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="are not a kNN index"):
        KnnIndex.read(tmp_path, 10)


def test_a_batch_without_item_indices_is_refused() -> None:
    both, _, _, lookup, _ = mixture(0, "hierarchical", 10)
    batch = lookup.batch(Histories(random_histories(0, 10, 2, 3)), 6)
    with pytest.raises(ValueError, match="needs the item indices"):
        both.encode(batch._replace(items_BT=None))


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
    assert manifest.metrics["knn_mixture"]["mixture_weight"] == knn.settings.mixture_weight
    assert {"dataset", "semantic_ids", "embeddings"} == {*manifest.inputs}
