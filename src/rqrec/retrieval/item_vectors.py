"""The item vectors that a model was made from, kept with it so that items can be added later.

A new item is encoded as the others were: its text by the same sentence encoder, and, if collaborative vectors were
appended, the mean of those of the items with the most similar content. The file takes as much as the vectors do: 0.8
KB for an item of 384 dimensions.

Shapes: N items, M new items, D width of a vector, C width of its content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rqrec.core.artifact import atomic_write, find, read_json, read_manifest, write_json
from rqrec.core.progress import log
from rqrec.core.values import Config, NonNegativeInt, PositiveFloat
from rqrec.data.cooccurrence import from_similar_items
from rqrec.data.embeddings import EMBEDDINGS_FILE, LARGEST, embeddings_hash, is_plain, read_embeddings
from rqrec.data.encoders import Encode, encode_texts

SETTINGS_FILE = "embeddings.json"
BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class VectorSettings(Config):
    """How item vectors were made.

    Raises ValueError on values out of range.
    """

    source: str
    """Hash of the embeddings."""
    encoder: str | None = None
    """The sentence encoder, by name or folder; None: the vectors were given."""
    template: str | None = None
    """The template of the texts (see `rqrec.data.templates`)."""
    collaborative: NonNegativeInt = 0
    """Width of the collaborative part, the last columns."""
    content_length: PositiveFloat | None = None
    """Mean length that content vectors had before they were scaled to 1; None: they were not scaled."""


@dataclass(frozen=True)
class ItemVectors:
    """The vectors of all items, memory-mapped, and how they were made."""

    vectors_ND: NDArray[np.floating]
    settings: VectorSettings

    @classmethod
    def of(cls, embeddings: Path) -> "ItemVectors":
        """The vectors in an "embeddings" artefact or a plain folder."""
        vectors, source = read_embeddings(embeddings).vectors, embeddings_hash(embeddings)
        if is_plain(embeddings):
            return cls(vectors, VectorSettings(source))
        manifest = read_manifest(find(embeddings, "embeddings"), "embeddings")
        made, appended = manifest.settings, manifest.settings.get("collaborative")
        settings = VectorSettings(
            source,
            made.get("model"),
            made.get("template"),
            appended["width"] if appended else 0,
            manifest.metrics.get("content_length") if appended else None,
        )
        return cls(vectors, settings)

    @classmethod
    def common(cls, embeddings: Path | None, sources: Mapping[str, str | None]) -> "ItemVectors | None":
        """The vectors in `embeddings`, if everything was made from them; otherwise None, with a sentence.

        `sources` is the hash of the embeddings that each part was made from; None if that is not known.
        """
        if embeddings is None:
            return None
        found = embeddings_hash(embeddings)
        if others := [name for name, source in sources.items() if source != found]:
            log(
                f"Items cannot be added to this model later: {', '.join(others)} may have been made from other "
                f"embeddings than {embeddings}."
            )
            return None
        return cls.of(embeddings)

    @property
    def content(self) -> NDArray[np.floating]:
        """The vectors without their collaborative part, [N, C]."""
        return self.content_of(self.vectors_ND)

    def content_of(self, vectors_MD: NDArray[np.floating]) -> NDArray[np.floating]:
        """The content [M, C] of whole vectors of new items."""
        return vectors_MD[:, : self.vectors_ND.shape[1] - self.settings.collaborative]

    def scaled(self, content_MC: NDArray[np.floating]) -> NDArray[np.float32]:
        """Content vectors as a model reads them (see `rqrec.models.item_input.ItemContent`), float32 [M, C]."""
        mean_C, deviation = self._scale
        return ((content_MC - mean_C) / max(deviation, 1e-6)).astype(np.float32)

    @cached_property
    def _scale(self) -> tuple[NDArray[np.float64], float]:
        """The mean of the content vectors, and their mean deviation."""
        content, count = self.content, len(self.content)
        sum_C, squares_C = np.zeros(content.shape[1]), np.zeros(content.shape[1])
        for start in range(0, count, BLOCK_ROWS):
            sum_C += content[start : start + BLOCK_ROWS].sum(axis=0, dtype=np.float64)
        mean_C = sum_C / count
        for start in range(0, count, BLOCK_ROWS):
            squares_C += np.square(content[start : start + BLOCK_ROWS] - mean_C).sum(axis=0)
        return mean_C, float(np.sqrt(squares_C / max(count - 1, 1)).mean())

    def encode(self, texts: Sequence[str], encode: Encode | None = None) -> NDArray[np.floating]:
        """The vectors [M, D] of new items with these texts, of the same dtype as those of the others.

        `encode` is used instead of loading the encoder of the settings. Raises ValueError if the vectors were given,
        and ConnectionError if the encoder cannot be loaded.
        """
        if self.settings.encoder is None:
            raise ValueError(
                "The vectors of this model's items were given, not encoded from texts: give those of new items too "
                "(--embeddings, or the `vector` of each item)."
            )
        content_MC = encode(texts) if encode else encode_texts(texts, self.settings.encoder)
        # Encoded texts are cached as float16, so those of the other items were rounded to it.
        return self.complete(content_MC.astype(np.float16).astype(np.float32))

    def complete(self, given_MD: NDArray[np.floating]) -> NDArray[np.floating]:
        """Vectors [M, D] of new items from whole ones, or from content vectors [M, C] as the encoder gives them.

        Raises ValueError on another width, NaN, and infinite values.
        """
        width, content_width = self.vectors_ND.shape[1], self.content.shape[1]
        if given_MD.ndim != 2 or given_MD.shape[1] not in (width, content_width):
            wanted = f"{width}" if width == content_width else f"{content_width} (content) or {width}"
            raise ValueError(
                f"The new items have vectors of shape {list(given_MD.shape)}, but those of this model have "
                f"{wanted} dimensions: make them as the others were made."
            )
        if len(bad := np.flatnonzero(~(np.abs(given_MD) < LARGEST).all(axis=1))):
            raise ValueError(
                f"The vector of new item {bad[0]} has NaN, infinite values or values of {LARGEST:g} and more: "
                f"correct it."
            )
        if given_MD.shape[1] < width:
            given_MD = self._with_collaborative(given_MD.astype(np.float32))
        return given_MD.astype(self.vectors_ND.dtype)

    def _with_collaborative(self, content_MC: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.settings.content_length is None:
            raise ValueError(
                "The embeddings of this model do not say how their content was scaled: make them again with this "
                "version of `rqrec embed`, and train again."
            )
        content_MC = content_MC / np.float32(self.settings.content_length)
        width = self.content.shape[1]
        # As the nearest among all items of the model: which of them had interactions is not kept.
        return np.hstack([content_MC, from_similar_items(content_MC, self.vectors_ND, width)])

    def write(self, folder: Path) -> None:
        """Write the vectors and their settings into `folder`."""
        write_json(folder / SETTINGS_FILE, {**vars(self.settings)})
        with atomic_write(folder / EMBEDDINGS_FILE) as file:
            header = {
                "descr": np.lib.format.dtype_to_descr(self.vectors_ND.dtype),
                "fortran_order": False,
                "shape": self.vectors_ND.shape,
            }
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, len(self.vectors_ND), BLOCK_ROWS):
                file.write(np.ascontiguousarray(self.vectors_ND[start : start + BLOCK_ROWS]).tobytes())

    @classmethod
    def read(cls, folder: Path, n_items: int) -> "ItemVectors | None":
        """What `write` wrote, memory-mapped; None if nothing was. Raises ValueError if it does not fit."""
        if not (folder / SETTINGS_FILE).is_file():
            return None
        values: Any = read_json(folder / SETTINGS_FILE)
        try:
            settings = VectorSettings(**values)
        except TypeError as error:
            raise ValueError(
                f"{folder / SETTINGS_FILE} is damaged: {error}. Train the model again."
            ) from error
        vectors_ND = read_embeddings(folder).vectors
        if len(vectors_ND) != n_items:
            raise ValueError(
                f"{folder / EMBEDDINGS_FILE} has {len(vectors_ND)} rows, but the catalogue has {n_items} items."
            )
        return cls(vectors_ND, settings)
