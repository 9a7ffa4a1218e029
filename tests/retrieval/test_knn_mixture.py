"""The memory against what its formulas say, and the mixture as the model that it claims to be."""

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
from rqrec.knn.index import KnnIndex, KnnSettings
from rqrec.knn.item_knn import ItemKnn
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.interface import CodeLookup
from rqrec.retrieval.artifact import Checkpoint, read_checkpoint
from rqrec.retrieval.beam_search import beam_search, score_items
from rqrec.retrieval.knn_mixture import KnnMixture
from rqrec.retrieval.ranking import ExhaustiveRecommender, rank_scores
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.trie import Trie
from rqrec.training.tune_knn import tune_knn_mixture
from tests.retrieval.test_beam_search import (
    assert_each_gets_what_it_gets_alone,
    random_codes,
    random_histories,
    random_model,
)
from tests.tiny import FAMILIES, N_ITEMS, SIZE, tiny_dataset, tiny_vectors

SIZES = (3, 4, 5)
architectures = pytest.mark.parametrize("name", ARCHITECTURES)


def random_memory(seed: int, n_items: int, **changes: float) -> KnnIndex:
    """Up to four neighbours an item, and some items without any."""
    rng = np.random.default_rng(seed)
    neighbours = np.full((n_items, 4), PADDING, dtype=np.int32)
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        some = rng.permutation(others)[: rng.integers(0, 5)]
        neighbours[item, : len(some)] = some
    likeness = np.where(neighbours == PADDING, 0, rng.random(neighbours.shape)).astype(np.float32)
    return KnnIndex(torch.from_numpy(neighbours), torch.from_numpy(likeness)).using(**changes)


def dense(memory: KnnIndex, items_BT: np.ndarray) -> np.ndarray:
    """p_memory of every item, by loops."""
    scores = np.zeros((len(items_BT), len(memory)))
    for row, items in enumerate(items_BT):
        history = items[items != PADDING].tolist()
        for age, item in enumerate(reversed(history)):
            for other, likeness in zip(
                memory.neighbours_NM[item].tolist(), memory.likeness_NM[item].tolist(), strict=True
            ):
                if other != PADDING and other not in history:
                    scores[row, other] += likeness * memory.settings.decay**age
    powers = scores**memory.settings.sharpness
    sums = powers.sum(axis=1, keepdims=True)
    return np.divide(powers, sums, out=np.zeros_like(powers), where=sums > 0)


def mixture(seed: int, name: str, n_items: int, sizes: tuple[int, ...] = SIZES, **changes: float) -> Any:
    codes = random_codes(seed, n_items, sizes)
    model, memory = random_model(seed, sizes, name), random_memory(seed, len(codes), **changes)
    lookup = CodeLookup.of(codes)
    return KnnMixture(model, memory, lookup.codes_NL), model, memory, lookup, Trie.build(codes)


@architectures
def test_an_items_probability_is_the_mixture_of_the_models_and_the_memorys(name: str) -> None:
    both, model, memory, lookup, _ = mixture(0, name, 40, share=0.4, sharpness=2.0)
    items_BT = random_histories(0, 40, 12, 6)
    batch = lookup.batch(Histories(items_BT), 6)
    generated, recalled = score_items(model, batch, lookup.codes_NL).exp(), dense(memory, items_BT)
    share = 0.4 * (recalled.sum(axis=1, keepdims=True) > 0)
    assert 0 < share.astype(bool).mean() < 1  # some histories have no neighbours at all
    expected = (1 - share) * generated.detach().numpy() + share * recalled
    found = score_items(both, batch, lookup.codes_NL).exp()
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-4, atol=1e-9)


@architectures
def test_it_is_normalised_at_every_level_in_any_order_of_asking(name: str) -> None:
    both, _, _, lookup, _ = mixture(1, name, 30)
    batch = lookup.batch(Histories(random_histories(1, 30, 5, 6)), 6)
    every = torch.tensor(list(itertools.product(*map(range, SIZES))))
    context = both.encode(batch)
    in_turn = [both.next_level(context, every[None, :, :level].expand(5, -1, -1)) for level in range(3)]
    for level in (2, 0, 1):
        log_probs = both.next_level(both.encode(batch), every[None, :, :level].expand(5, -1, -1))
        assert log_probs.dtype == torch.float32
        torch.testing.assert_close(log_probs.exp().sum(-1), torch.ones(log_probs.shape[:2]))
        torch.testing.assert_close(log_probs, in_turn[level], atol=1e-5, rtol=1e-5)


@architectures
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_items=st.integers(1, 50),
    sizes=st.sampled_from([(3, 4, 5), (8, 1, 4), (2, 2, 2, 7), (40,)]),
    share=st.sampled_from([0.05, 0.5, 0.95]),
)
def test_a_beam_as_wide_as_the_catalogue_equals_exhaustive_scoring(
    name: str, seed: int, n_items: int, sizes: tuple[int, ...], share: float
) -> None:
    both, _, _, lookup, trie = mixture(seed, name, n_items, sizes, share=share)
    n = len(lookup.codes_NL)
    items_BT = random_histories(seed, n, 4, 7)
    batch, seen = lookup.batch(Histories(items_BT), 6), torch.from_numpy(items_BT)
    found = beam_search(both, batch, trie, n, beam_width=n, excluded_BX=seen)
    expected = rank_scores(score_items(both, batch, lookup.codes_NL), n, excluded_BX=seen)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-5)
    # Of items whose scores are as good as equal, either order is right.
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
def test_a_batch_gives_each_user_what_the_user_gets_alone(name: str) -> None:
    both, _, _, lookup, trie = mixture(3, name, 50)
    assert_each_gets_what_it_gets_alone(both, lookup, trie, random_histories(3, 50, 7, 9), rtol=1e-5)


@pytest.mark.parametrize("contents", [None, tiny_vectors()], ids=["order", "order and contents"])
def test_it_recalls_what_item_neighbours_score(contents: np.ndarray | None) -> None:
    split = leave_one_out(tiny_dataset().sequences)
    likeness = item_item_knn(split.train, N_ITEMS, N_ITEMS, 20.0)
    if contents is not None:
        likeness = likeness + 0.03 * content_knn_graph(contents, CONTENT_NEIGHBOURS)
    memory = KnnIndex.of(likeness).using(sharpness=1.0)
    histories = split.validation.histories(np.arange(30))
    decay = memory.settings.decay
    baseline = ItemKnn(split.train, N_ITEMS, neighbours=N_ITEMS, decay=decay, contents_ND=contents)
    remembered = memory.recall(torch.from_numpy(histories.items_BT))
    best = ExhaustiveRecommender(baseline).recommend(histories, 3)
    for row in range(30):
        score_of = dict(
            zip(remembered.items_BR[row].tolist(), remembered.scores_BR[row].tolist(), strict=True)
        )
        for item, score in zip(best.items[row].tolist(), best.scores[row].tolist(), strict=True):
            assert score_of.get(item, 0.0) == pytest.approx(score, abs=2e-6)  # but for the part of popularity


def test_small_scores_keep_their_proportions() -> None:
    memory = KnnIndex(torch.tensor([[1, 2], [0, 2], [0, 1]]), torch.full((3, 2), 1e-30)).using(sharpness=4.0)
    memory.likeness_NM[0, 1] = 2e-30
    recalled = memory.recall(torch.tensor([[0]]))
    of_item = dict(
        zip(recalled.items_BR[0].tolist(), memory.probabilities(recalled)[0].tolist(), strict=True)
    )
    assert of_item == {1: pytest.approx(1 / 17), 2: pytest.approx(16 / 17)}


@pytest.fixture(scope="module")
def remembering_run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, KnnIndex]:
    """The small world's model, stored again with a memory."""
    from rqrec.core.artifact import create
    from rqrec.retrieval.artifact import write_checkpoint

    checkpoint = read_checkpoint(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)
    chosen = tune_knn_mixture(Retriever(checkpoint.model, checkpoint.table, 20), split)
    folder = tmp_path_factory.mktemp("remembering") / "retrieval"
    with create(folder, "retrieval", settings={}, inputs={}, metrics={}) as target:
        write_checkpoint(target, checkpoint._replace(memory=chosen))
    return folder, chosen


def test_a_stored_memory_recommends_as_before(remembering_run: tuple[Path, KnnIndex]) -> None:
    folder, memory = remembering_run
    stored = read_checkpoint(folder)
    assert stored.memory is not None
    assert stored.memory.settings == memory.settings
    recommender = Recommender.load(folder)
    history = ["item 1", "item 2", "item 3"]
    (found,) = recommender.recommend([history], k=5)
    explained = recommender.explain(history, found[0].item_id)
    assert explained.recommendation.score == pytest.approx(found[0].score, abs=1e-4)
    product = np.prod([step.probability for step in explained.path])
    assert np.log(product) == pytest.approx(found[0].score, abs=1e-4)
    plain = Recommender(stored._replace(memory=None)).recommend([history], k=5)[0]
    assert [item.score for item in plain] != [item.score for item in found]


def test_the_chosen_share_is_no_worse_than_any_other_on_validation(tiny_run: Path) -> None:
    checkpoint = read_checkpoint(tiny_run)
    split = leave_one_out(Dataset.read(tiny_run / "dataset").sequences)

    def ndcg(memory: KnnIndex) -> float:
        retriever = Retriever(checkpoint._replace(memory=memory).generator(), checkpoint.table, N_ITEMS)
        return evaluate(retriever, split.validation).metrics["ndcg@10"]

    chosen = tune_knn_mixture(Retriever(checkpoint.model, checkpoint.table, N_ITEMS), split)
    others = [
        chosen.using(share=share, sharpness=sharpness) for share in (0.1, 0.7) for sharpness in (1.0, 4.0)
    ]
    assert ndcg(chosen) >= max(map(ndcg, others)) - 1e-6


def test_contents_count_where_they_tell_what_comes_next(tiny_run: Path) -> None:
    checkpoint, few = read_checkpoint(tiny_run), leave_one_out(tiny_dataset(24).sequences)
    place = 2 * np.pi * (np.arange(N_ITEMS) % SIZE) / SIZE
    circle = np.stack([np.cos(place), np.sin(place)], axis=1)
    in_family = np.eye(FAMILIES)[np.arange(N_ITEMS) // SIZE, :, None] * circle[:, None]
    retriever = Retriever(checkpoint.model, checkpoint.table, 20)
    alike = tune_knn_mixture(retriever, few, contents_ND=in_family.reshape(N_ITEMS, -1))
    assert alike.settings.content > 0
    assert tune_knn_mixture(retriever, few).settings.content == 0
    # Few users took those beside each other together.
    for item, others in enumerate(alike.neighbours_NM.tolist()):
        family = item // SIZE * SIZE
        assert {family + (item + step) % SIZE for step in (1, -1)} <= {*others}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, "share is 1.0"),
        ({"sharpness": 0.0}, "sharpness is 0.0"),
        ({"decay": 1.5}, "decay is 1.5"),
        ({"content": -0.1}, "content is -0.1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KnnSettings(**change)


def test_files_that_are_no_memory_are_refused(tmp_path: Path) -> None:
    memory = random_memory(0, 10)
    memory.write(tmp_path)
    assert KnnIndex.read(tmp_path / "elsewhere", 10) is None
    with pytest.raises(ValueError, match="with 11 rows"):
        KnnIndex.read(tmp_path, 11)
    memory.neighbours_NM[0, 0] = 10
    memory.write(tmp_path)
    with pytest.raises(ValueError, match="names items that are not among the 10"):
        KnnIndex.read(tmp_path, 10)
    (tmp_path / "memory.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="are no memory"):
        KnnIndex.read(tmp_path, 10)


def test_a_batch_of_codes_alone_is_refused() -> None:
    both, _, _, lookup, _ = mixture(0, "hierarchical", 10)
    batch = lookup.batch(Histories(random_histories(0, 10, 2, 3)), 6)
    with pytest.raises(ValueError, match="needs to know the items"):
        both.encode(batch._replace(items_BT=None))


def test_training_can_join_a_memory(tiny_run: Path, tmp_path: Path) -> None:
    from rqrec.models.hierarchical import HierarchicalConfig
    from rqrec.stages.train_decoder import train_decoder
    from rqrec.training.loop import LoopConfig

    def train(embeddings: Path) -> Checkpoint:
        return train_decoder(
            tiny_run / "dataset",
            tiny_run / "semantic_ids",
            tmp_path / "retrieval",
            HierarchicalConfig(read_checkpoint(tiny_run).table.level_sizes, 8, 16, 16, 2, 1),
            LoopConfig(iterations=4, warmup=1, full_eval_every=0),
            batch_size=32,
            memory=True,
            embeddings=embeddings,
        )

    np.save(tmp_path / "item_embeddings.npy", np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match=f"embeddings of 3 items, but .* has semantic IDs of {N_ITEMS}"):
        train(tmp_path)
    checkpoint = train(tiny_run / "embeddings")
    assert checkpoint.memory is not None
    manifest = read_manifest(tmp_path / "retrieval", "retrieval")
    assert manifest.settings["memory"] is True
    assert manifest.metrics["memory"]["share"] == checkpoint.memory.settings.share
    assert {"dataset", "semantic_ids", "embeddings"} == {*manifest.inputs}
    assert read_checkpoint(tmp_path / "retrieval").memory is not None
