from pathlib import Path

import numpy as np
import pytest
import torch

from rqrec.core.artifact import create, read_manifest
from rqrec.core.workers import LocalProcesses, RayCluster
from rqrec.data.ids import IdMap
from rqrec.stages.tokenize import tokenize
from rqrec.tokenizer.loading import load_tokenizer
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable

ITEMS, DIM = 60, 6


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A plain folder with embeddings, two of them equal."""
    x = np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)
    x[7] = x[3]
    np.save(tmp_path / "item_embeddings.npy", x)
    return tmp_path


def ids() -> IdMap:
    return IdMap([f"i{n}" for n in range(ITEMS)])


def rqvae() -> RqVae:
    torch.manual_seed(0)
    return RqVae(RqVaeConfig(DIM, embed_dim=4, hidden_dims=(8,), codebook_size=8, n_layers=2))


def rqkmeans(vectors: Path) -> RqKMeans:
    model = RqKMeans(RqKMeansConfig(DIM, codebook_size=(8, 32), n_layers=2))
    model.fit(np.load(vectors / "item_embeddings.npy"), torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("kind", ["rqvae", "rqkmeans"])
@pytest.mark.parametrize("as_artifact", [True, False])
def test_any_tokenizer_is_opened_from_any_folder(vectors: Path, kind: str, as_artifact: bool) -> None:
    model = rqvae() if kind == "rqvae" else rqkmeans(vectors)
    folder = vectors / "run" / "model"
    if as_artifact:
        with create(folder, kind) as target:
            model.save_pretrained(target)
    else:
        model.save_pretrained(folder)
    opened = load_tokenizer(folder)
    assert (opened.artifact_type, type(opened.model)) == (kind, type(model))
    x = np.load(vectors / "item_embeddings.npy")
    assert torch.equal(opened.model.semantic_ids(x), model.semantic_ids(x))
    if as_artifact:
        assert load_tokenizer(vectors / "run").hash == opened.hash


@pytest.mark.parametrize("collisions", ["extra_code", "reassign"])
def test_tables_are_unique_and_remember_what_made_them(vectors: Path, collisions: str) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    facts = tokenize(vectors / "model", vectors, ids(), vectors / "ids", collisions=collisions)
    table = SemanticIdTable.read(vectors / "ids")
    manifest = read_manifest(vectors / "ids", "semantic_ids", verify=True)
    assert manifest.inputs["rqkmeans"] == table.tokenizer_hash
    assert len(np.unique(table.codes_NL, axis=0)) == ITEMS
    assert table.codes_NL.shape[1] == (3 if collisions == "extra_code" else 2)
    assert facts["collision_rate"] >= 2 / ITEMS
    assert manifest.metrics == facts


def test_what_does_not_belong_together_is_refused(vectors: Path) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    with pytest.raises(ValueError, match="2 items but 60 embeddings"):
        tokenize(vectors / "model", vectors, IdMap(["a", "b"]), vectors / "ids")
    with pytest.raises(ValueError, match="'sometimes'; allowed are extra_code, reassign"):
        tokenize(vectors / "model", vectors, ids(), vectors / "ids", collisions="sometimes")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_tokenizer(vectors)
    with create(vectors / "other", "dataset") as target:
        (target / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="'dataset', but a tokenizer is needed"):
        load_tokenizer(vectors / "other")


def test_a_checkpoint_of_the_reference_implementation_tokenizes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "reference_rqvae" / "plain"
    x = np.load(folder / "inputs.npy")
    np.save(tmp_path / "item_embeddings.npy", x)
    expected = np.load(folder / "expected_ids.npy")
    for source in (folder / "hub", folder / "checkpoint_1234.pt"):
        tokenize(source, tmp_path, IdMap([str(n) for n in range(len(x))]), tmp_path / "ids")
        table = SemanticIdTable.read(tmp_path / "ids")
        assert (table.codes_NL[:, :3] == expected).all()


def test_blocks_of_several_processes_give_the_same_ids(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqrec.stages.tokenize.BLOCK_ROWS", 16)
    rqkmeans(vectors).save_pretrained(vectors / "model")
    for collisions in ("extra_code", "reassign"):
        for name, workers in (("one", None), ("here", LocalProcesses(1)), ("two", LocalProcesses(2))):
            tokenize(
                vectors / "model", vectors, ids(), vectors / name, collisions=collisions, workers=workers
            )
        expected = read_manifest(vectors / "one").hash
        assert read_manifest(vectors / "here").hash == read_manifest(vectors / "two").hash == expected


@pytest.mark.slow
def test_blocks_on_a_ray_cluster_give_the_same_ids(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "rqrec[ray]"')
    monkeypatch.setattr("rqrec.stages.tokenize.BLOCK_ROWS", 16)
    rqkmeans(vectors).save_pretrained(vectors / "model")
    tokenize(vectors / "model", vectors, ids(), vectors / "one")
    ray.init(num_cpus=2, log_to_driver=False)
    try:
        tokenize(vectors / "model", vectors, ids(), vectors / "ray", workers=RayCluster())
    finally:
        ray.shutdown()
    assert read_manifest(vectors / "ray").hash == read_manifest(vectors / "one").hash
