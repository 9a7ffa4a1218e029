from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rqrec.core.artifact import read_manifest
from rqrec.data.embeddings import read_content_vectors
from rqrec.stages import embed
from rqrec.stages.embed import Collaborative, embed_catalog
from rqrec.stages.prepare import Settings, prepare


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten items, of which nobody took "8" and "9"; the encoder says only how long a text is."""
    rng = np.random.default_rng(0)
    rows = [(user, str(item), step) for user in range(20) for step, item in enumerate(rng.permutation(8)[:6])]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
        tmp_path / "log.csv"
    )
    texts = ["x" * (i + 1) for i in range(10)]
    pl.DataFrame({"item_id": map(str, range(10)), "text": texts}).write_csv(tmp_path / "items.csv")

    def encode(texts: list[str], model: str, **options: object) -> np.ndarray:
        return np.array([[len(t), 1.0] for t in texts], dtype=np.float32)

    monkeypatch.setattr(embed, "encode_texts", encode)
    prepare(Settings("custom"), tmp_path, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_the_artefact_says_what_it_was_made_from(dataset: Path, tmp_path: Path) -> None:
    vectors = embed_catalog(dataset, tmp_path / "e", "m").vectors
    assert vectors.dtype == np.float16
    assert vectors[:, 0].tolist() == list(range(1, 11))
    manifest = read_manifest(tmp_path / "e", "embeddings", verify=True)
    assert manifest.inputs == {"dataset": read_manifest(dataset).hash}
    assert manifest.settings["model"] == "m"
    assert manifest.settings["template"] == "{text}"
    assert manifest.metrics == {"items": 10, "dim": 2}


def test_an_equal_request_reads_what_is_there(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed_catalog(dataset, tmp_path / "e", "m")
    monkeypatch.setattr(embed, "encode_texts", None)
    assert len(embed_catalog(dataset, tmp_path / "e", "m").vectors) == 10
    for change in ({"model": "n"}, {"model": "m", "force": True}):
        with pytest.raises(TypeError):
            embed_catalog(dataset, tmp_path / "e", **change)


def test_collaborative_vectors_stand_beside_content(dataset: Path, tmp_path: Path) -> None:
    vectors = embed_catalog(
        dataset, tmp_path / "e", "m", collaborative=Collaborative(width=3, weight=2.0)
    ).vectors
    assert vectors.shape == (10, 5)
    np.testing.assert_allclose(np.linalg.norm(vectors[:, 2:].astype(float), axis=1), 2, rtol=1e-2)
    np.testing.assert_array_equal(read_content_vectors(tmp_path / "e"), vectors[:, :2])
    embed_catalog(dataset, tmp_path / "plain", "m")
    assert read_content_vectors(tmp_path / "plain").shape == (10, 2)
    np.save(tmp_path / "item_embeddings.npy", vectors)  # a folder of one's own
    np.testing.assert_array_equal(read_content_vectors(tmp_path), vectors)


def test_vectors_of_ones_own(dataset: Path, tmp_path: Path) -> None:
    own = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    np.save(tmp_path / "own.npy", own)
    vectors = embed_catalog(dataset, tmp_path / "e", "m", vectors=tmp_path / "own.npy").vectors
    np.testing.assert_array_equal(vectors, own)
    assert vectors.dtype == np.float32
    np.save(tmp_path / "own.npy", own[:9])
    with pytest.raises(ValueError, match="has 9 rows, but the dataset has 10 items"):
        embed_catalog(dataset, tmp_path / "e", "m", vectors=tmp_path / "own.npy")


def test_vectors_follow_their_items_through_a_filter(tmp_path: Path) -> None:
    np.save(tmp_path / "item_embeddings.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
    log = {"user_id": list("uuvv"), "item_id": [3, 1, 1, 3], "timestamp": [1, 2, 3, 4]}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    prepare(Settings("custom", item_core=2), tmp_path, tmp_path / "dataset")
    own = tmp_path / "item_embeddings.npy"
    vectors = embed_catalog(tmp_path / "dataset", tmp_path / "e", "m", vectors=own).vectors
    assert vectors.tolist() == [[2, 3], [6, 7]]


def test_settings_of_no_use_are_refused() -> None:
    with pytest.raises(
        ValueError, match="Unknown evaluation protocol 'random'; allowed are leave_one_out, temporal"
    ):
        Collaborative(split="random")
