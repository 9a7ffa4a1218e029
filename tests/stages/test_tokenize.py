from pathlib import Path

import numpy as np
import pytest
import torch

from rqrec.core.artifact import create, read_manifest
from rqrec.core.workers import LocalProcesses, RayCluster
from rqrec.stages.tokenize import TokenizeConfig, tokenize, tokenize_new
from rqrec.tokenizer.loading import KeptTokenizer, load_tokenizer
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from tests.tiny import tiny_dataset

ITEMS, DIM = 60, 6


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A plain folder with embeddings, two of them equal."""
    x = np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)
    x[7] = x[3]
    np.save(tmp_path / "item_embeddings.npy", x)
    return tmp_path


def rqvae() -> RqVae:
    torch.manual_seed(0)
    return RqVae(RqVaeConfig(DIM, embed_dim=4, hidden_dims=(8,), codebook_size=8, n_layers=2))


def rqkmeans(vectors: Path) -> RqKMeans:
    model = RqKMeans(RqKMeansConfig(DIM, codebook_size=(8, 32), n_layers=2))
    model.fit(np.load(vectors / "item_embeddings.npy"), torch.Generator().manual_seed(0))
    return model


@pytest.mark.parametrize("kind", ["rqvae", "rqkmeans"])
@pytest.mark.parametrize("as_artifact", [True, False])
def test_any_tokenizer_is_loaded_from_any_folder(vectors: Path, kind: str, as_artifact: bool) -> None:
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
def test_tables_are_unique_and_record_their_tokenizer(vectors: Path, collisions: str) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    folder = tokenize(TokenizeConfig(collisions), vectors / "model", vectors, vectors / "ids")
    table = SemanticIdTable.read(folder)
    manifest = read_manifest(folder, "semantic_ids", verify=True)
    assert manifest.inputs["rqkmeans"] == table.tokenizer_hash
    assert len(np.unique(table.codes_NL, axis=0)) == ITEMS
    assert table.codes_NL.shape[1] == (3 if collisions == "extra_code" else 2)
    assert table.has_extra_code == (collisions == "extra_code")
    kept = KeptTokenizer.read(folder)
    assert kept is not None
    assert kept.embeddings == manifest.inputs["embeddings"]
    x = np.load(vectors / "item_embeddings.npy")
    assert torch.equal(kept.model.semantic_ids(x), load_tokenizer(vectors / "model").model.semantic_ids(x))
    assert manifest.metrics["collision_rate"] >= 2 / ITEMS


def test_a_table_of_reassigned_codes_takes_no_new_items(vectors: Path) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    folder = tokenize(TokenizeConfig("reassign"), vectors / "model", vectors, vectors / "ids")
    new = vectors / "item_embeddings.npy"
    with pytest.raises(ValueError, match="no deduplication level"):
        tokenize_new(vectors / "model", new, folder, vectors / "more")


def test_equal_settings_reuse_the_table_and_others_are_refused(vectors: Path) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    folder = tokenize(TokenizeConfig(), vectors / "model", vectors, vectors / "ids")
    before = (folder / "manifest.json").stat().st_mtime_ns
    tokenize(TokenizeConfig(), vectors / "model", vectors, folder)
    with pytest.raises(ValueError, match="collisions was 'extra_code' and is 'reassign'"):
        tokenize(TokenizeConfig("reassign"), vectors / "model", vectors, folder)
    assert (folder / "manifest.json").stat().st_mtime_ns == before
    tokenize(TokenizeConfig("reassign"), vectors / "model", vectors, folder, force=True)
    assert read_manifest(folder).settings == {"collisions": "reassign", "protocol": None}


def test_mismatched_inputs_are_refused(vectors: Path) -> None:
    rqkmeans(vectors).save_pretrained(vectors / "model")
    tiny_dataset().write(vectors / "dataset", {})
    with pytest.raises(ValueError, match="48 items, but there are 60 embeddings"):
        tokenize(TokenizeConfig(), vectors / "model", vectors, vectors / "ids", dataset=vectors / "dataset")
    with pytest.raises(ValueError, match="'sometimes'; allowed are extra_code, reassign"):
        TokenizeConfig("sometimes")
    with pytest.raises(FileNotFoundError, match="holds no tokenizer"):
        load_tokenizer(vectors)
    with create(vectors / "other", "evaluation") as target:
        (target / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="'evaluation', but a tokenizer is needed"):
        load_tokenizer(vectors / "other")


def test_a_checkpoint_of_the_reference_implementation_tokenizes(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "reference_rqvae" / "plain"
    np.save(tmp_path / "item_embeddings.npy", np.load(folder / "inputs.npy"))
    expected = np.load(folder / "expected_ids.npy")
    for name, source in (("hub", folder / "hub"), ("pt", folder / "checkpoint_1234.pt")):
        table = SemanticIdTable.read(tokenize(TokenizeConfig(), source, tmp_path, tmp_path / name))
        assert (table.codes_NL[:, :3] == expected).all()


@pytest.mark.slow
def test_blocks_of_several_processes_give_the_same_ids(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqrec.stages.tokenize.BLOCK_ROWS", 16)
    rqkmeans(vectors).save_pretrained(vectors / "model")
    for collisions in ("extra_code", "reassign"):
        hashes = set()
        for name, workers in (("one", None), ("here", LocalProcesses(1)), ("two", LocalProcesses(2))):
            out = vectors / f"{name} {collisions}"
            tokenize(TokenizeConfig(collisions), vectors / "model", vectors, out, workers=workers)
            hashes.add(read_manifest(out).hash)
        assert len(hashes) == 1


@pytest.mark.slow
def test_blocks_on_a_ray_cluster_give_the_same_ids(vectors: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason='Ray is not installed: pip install "rqrec[ray]"')
    monkeypatch.setattr("rqrec.stages.tokenize.BLOCK_ROWS", 16)
    rqkmeans(vectors).save_pretrained(vectors / "model")
    tokenize(TokenizeConfig(), vectors / "model", vectors, vectors / "one")
    ray.init(num_cpus=2, log_to_driver=False)
    try:
        tokenize(TokenizeConfig(), vectors / "model", vectors, vectors / "ray", workers=RayCluster())
    finally:
        ray.shutdown()
    assert read_manifest(vectors / "ray").hash == read_manifest(vectors / "one").hash
