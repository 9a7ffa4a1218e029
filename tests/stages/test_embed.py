from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.core.artifact import read_manifest
from rqrec.data.embeddings import read_content_vectors, read_embeddings
from rqrec.stages import embed as module
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.prepare import PrepareConfig, PrepareOptions, prepare


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten items, "8" and "9" without interactions; the encoder encodes the length of a text."""
    rng = np.random.default_rng(0)
    rows = [(user, str(item), step) for user in range(20) for step, item in enumerate(rng.permutation(8)[:6])]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
        tmp_path / "log.csv"
    )
    texts = ["x" * (i + 1) for i in range(10)]
    pl.DataFrame({"item_id": map(str, range(10)), "text": texts}).write_csv(tmp_path / "items.csv")

    def encode(texts: list[str], model: str, **options: object) -> np.ndarray:
        return np.array([[len(t), 1.0] for t in texts], dtype=np.float32)

    monkeypatch.setattr(module, "encode_texts", encode)
    prepare(PrepareConfig("custom"), tmp_path, tmp_path / "dataset")
    return tmp_path / "dataset"


def vectors_of(config: EmbedConfig, dataset: Path, out: Path, **options: Any) -> np.ndarray:
    return read_embeddings(embed(config, dataset, out, **options)).vectors


def test_the_artefact_records_what_it_was_made_from(dataset: Path, tmp_path: Path) -> None:
    vectors = vectors_of(EmbedConfig("m"), dataset, tmp_path / "e")
    assert vectors.dtype == np.float16
    assert vectors[:, 0].tolist() == list(range(1, 11))
    manifest = read_manifest(tmp_path / "e", "embeddings", verify=True)
    assert manifest.inputs == {"dataset": read_manifest(dataset).hash}
    assert manifest.settings["model"] == "m"
    assert manifest.settings["template"] == "{text}"
    assert manifest.metrics == {"items": 10, "dim": 2}


def test_equal_settings_reuse_the_artefact_and_others_are_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(EmbedConfig("m"), dataset, tmp_path / "e")
    monkeypatch.setattr(module, "encode_texts", None)
    assert len(vectors_of(EmbedConfig("m"), dataset, tmp_path / "e")) == 10
    with pytest.raises(ValueError, match=r"model was 'm' and is 'n'.*replace it with --force"):
        embed(EmbedConfig("n"), dataset, tmp_path / "e")
    with pytest.raises(TypeError):  # encodes again
        embed(EmbedConfig("m"), dataset, tmp_path / "e", force=True)


def test_collaborative_vectors_are_appended_to_content(dataset: Path, tmp_path: Path) -> None:
    config = EmbedConfig("m", collaborative=3, collaborative_weight=2.0)
    vectors = vectors_of(config, dataset, tmp_path / "e")
    assert vectors.shape == (10, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 2:].astype(float), axis=1), 2, rtol=1e-2)
    np.testing.assert_array_equal(read_content_vectors(tmp_path / "e"), vectors[:, :2])
    embed(EmbedConfig("m"), dataset, tmp_path / "plain")
    assert read_content_vectors(tmp_path / "plain").shape == (10, 2)
    np.save(tmp_path / "item_embeddings.npy", vectors)  # a folder without a manifest
    np.testing.assert_array_equal(read_content_vectors(tmp_path), vectors)


def test_a_small_catalogue_gets_narrower_collaborative_vectors(dataset: Path, tmp_path: Path) -> None:
    config = EmbedConfig("m", collaborative=64, items_per_dimension=4)
    assert vectors_of(config, dataset, tmp_path / "e").shape == (10, 2 + 2)
    assert read_manifest(tmp_path / "e").settings["collaborative"]["width"] == 2


def test_custom_vectors_replace_the_text(dataset: Path, tmp_path: Path) -> None:
    own = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.save(tmp_path / "own.npy", own)
    vectors = vectors_of(EmbedConfig(), dataset, tmp_path / "e", vectors=tmp_path / "own.npy")
    np.testing.assert_array_equal(vectors, own)
    assert vectors.dtype == np.float32
    np.save(tmp_path / "own.npy", own[:9])
    with pytest.raises(ValueError, match="has 9 rows, but the dataset has 10 items"):
        embed(EmbedConfig(), dataset, tmp_path / "other", vectors=tmp_path / "own.npy")


def test_vectors_follow_their_items_through_a_filter(tmp_path: Path) -> None:
    np.save(tmp_path / "item_embeddings.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
    log = {"user_id": list("uuvv"), "item_id": [3, 1, 1, 3], "timestamp": [1, 2, 3, 4]}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    prepare(PrepareConfig("custom", options=PrepareOptions(item_core=2)), tmp_path, tmp_path / "dataset")
    own = tmp_path / "item_embeddings.npy"
    vectors = vectors_of(EmbedConfig(), tmp_path / "dataset", tmp_path / "e", vectors=own)
    assert vectors.tolist() == [[2, 3], [6, 7]]


def test_invalid_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="protocol 'random'; allowed are leave_one_out, temporal"):
        EmbedConfig(protocol="random")
    with pytest.raises(ValueError, match="collaborative is -1, but must be at least 0"):
        EmbedConfig(collaborative=-1)
