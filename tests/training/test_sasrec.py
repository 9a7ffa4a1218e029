"""SASRec learns the tiny dataset, whose next item is known, and resumes after an interruption."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from rqrec.core.artifact import read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.sequences import Histories
from rqrec.data.splits import leave_one_out
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import SasRecArtifact, read_sasrec
from rqrec.retrieval.ranking import ExhaustiveRecommender
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig
from rqrec.training.prefixes import Prefixes
from rqrec.training.run_progress import RunProgress
from rqrec.training.sasrec_task import SasRecTask
from tests.tiny import DIM, N_ITEMS, SIZE, tiny_dataset, tiny_vectors

SIZES = {"max_items": 5, "width": 32, "heads": 2, "layers": 1, "dropout": 0.1}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "dataset"
    tiny_dataset().write(folder, {"source": "tiny"}, {})
    return folder


def train(dataset: Path, root: Path, iterations: int, save_model_every: int = 500) -> SasRecArtifact:
    config = TrainSasRecConfig(
        loop=LoopConfig(iterations=iterations, learning_rate=1e-2, warmup=5, partial_eval_every=iterations),
        checkpoints=CheckpointConfig(root, save_model_every=save_model_every),
        model=SIZES,
        batch_size=64,
    )
    return read_sasrec(train_sasrec(config, dataset=dataset))


def test_it_learns_the_next_item_and_ranks_from_its_artefact(dataset: Path, tmp_path: Path) -> None:
    artifact = train(dataset, tmp_path, 120)
    best = read_manifest(tmp_path / "sasrec", "sasrec").metrics["validation"]
    assert best["recall@1"] > 0.9
    histories = Histories.of([[0, 1], [9, 10, 11, 12, 13, 14], []])
    items = ExhaustiveRecommender(artifact.model).recommend(histories, 3).items
    assert items[:2, 0].tolist() == [2, 15 % SIZE + SIZE]
    assert artifact.catalog.id_map == Dataset.read(dataset).catalog.id_map


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str) -> SasRec:
        return train(dataset, tmp_path / name, 12, save_model_every=4).model

    uninterrupted = run("uninterrupted")

    class InterruptedRunError(Exception):
        pass

    def on_step_end(self: SasRecTask, progress: RunProgress) -> dict[str, float]:
        if progress.step == 7:
            raise InterruptedRunError
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(SasRecTask, "on_step_end", on_step_end)
        with pytest.raises(InterruptedRunError):
            run("killed")
    resumed = run("killed")
    for name, value in uninterrupted.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_last_item_is_predicted_from_the_items_before_it() -> None:
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(10, max_items=4, width=8, heads=1, layers=2, dropout=0.0)).eval()
    rows = [[3, 1, 4, 1, 5], [9, 2], [7]]
    batch = torch.from_numpy(Histories.of(rows).items_BT)
    terms = [-model.score_items(Histories.of([row[:-1]])).log_softmax(1)[0, row[-1]] for row in rows]
    torch.testing.assert_close(model(batch), torch.stack(terms).mean())


def test_every_training_item_is_the_target_of_one_example_per_epoch() -> None:
    train = leave_one_out(tiny_dataset(40).sequences).train
    expected = Counter()
    for start, end in pairwise(train.offsets.tolist()):
        items = train.items[start:end].tolist()
        expected.update(tuple(items[max(0, at - 3) : at + 1]) for at in range(len(items)))
    prefixes = Prefixes(train, 3, 16, seed=0)
    assert len(prefixes) == len(train.items)
    step = 0
    orders = []
    for _ in range(2):
        found = Counter[tuple[int, ...]]()
        order = []
        while found.total() < len(train.items):
            rows = [tuple(item for item in row if item >= 0) for row in prefixes.batch(step).tolist()]
            assert len(rows) <= 16
            found.update(rows)
            order += rows
            step += 1
        assert found == expected
        orders.append(order)
    assert orders[0] != orders[1]
    again = Prefixes(train, 3, 16, seed=0)
    assert (again.batch(step - 1) == prefixes.batch(step - 1)).all()  # without the steps before it
    assert prefixes.batch(0).tolist() == again.batch(0).tolist()


def test_a_long_history_is_truncated_to_its_last_items() -> None:
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(10, max_items=3, width=8, heads=1)).eval()
    long, short = Histories.of([[1, 2, 3, 4, 5, 6]]), Histories.of([[4, 5, 6]])
    assert torch.equal(model.score_items(long), model.score_items(short))


def test_invalid_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        SasRecConfig(5, width=10, heads=4)
    with pytest.raises(ValueError, match="dropout is 1"):
        SasRecConfig(5, dropout=1.0)
    with pytest.raises(ValueError, match="max_items is 0"):
        SasRecConfig(5, max_items=0)


def test_the_validation_loss_is_the_cross_entropy_of_the_validation_items() -> None:
    split = leave_one_out(tiny_dataset(30).sequences)
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(N_ITEMS, **SIZES)).eval()
    task = SasRecTask(model, split, 8, 0)
    examples = split.validation
    log_probs = model.score_items(examples.histories(slice(0, len(examples)))).log_softmax(1)
    expected = -log_probs.gather(1, torch.from_numpy(examples.targets)[:, None]).mean()
    assert task.validation_loss()["loss"] == pytest.approx(float(expected), rel=1e-5)


def test_content_is_added_to_the_vectors_of_items(dataset: Path, tmp_path: Path) -> None:
    vectors = tmp_path / "vectors"
    vectors.mkdir()
    np.save(vectors / "item_embeddings.npy", tiny_vectors())
    config = TrainSasRecConfig(
        loop=LoopConfig(iterations=5), checkpoints=CheckpointConfig(tmp_path), model=SIZES, content_input=True
    )
    with pytest.raises(ValueError, match="content_input is on, but there are no embeddings"):
        train_sasrec(config, dataset=dataset)
    model = read_sasrec(train_sasrec(config, dataset=dataset, embeddings=vectors)).model
    assert model.config.content_dim == DIM
    assert model.content is not None
    assert model.content.vectors_NC.float().std(0).mean() == pytest.approx(1, abs=1e-2)
    expected = model.items.weight + model.content.map(model.content.vectors_NC.float())
    torch.testing.assert_close(model.item_vectors(), expected.detach())
    np.save(vectors / "item_embeddings.npy", tiny_vectors()[:-1])
    with pytest.raises(ValueError, match="has embeddings of 47 items, but there are 48 items"):
        train_sasrec(
            replace(config, checkpoints=CheckpointConfig(tmp_path / "b")), dataset=dataset, embeddings=vectors
        )


def test_item_vectors_follow_the_weights() -> None:
    model = SasRec(SasRecConfig(10, max_items=3, width=8, heads=1, content_dim=4))
    assert model.content is not None
    model.content.set(np.random.default_rng(0).normal(size=(10, 4)))
    before = model.eval().item_vectors()
    assert model.item_vectors() is before  # computed once
    with torch.no_grad():
        model.train().content.map.weight.add_(1)
    assert not torch.allclose(model.item_vectors(), before)
    assert not torch.allclose(model.eval().item_vectors(), before)
