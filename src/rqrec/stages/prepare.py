"""From raw files to a prepared dataset: one entry for every source."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rqrec.core.artifact import MANIFEST, file_hash, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.data.interactions import TIE_BREAKS, Interactions
from rqrec.data.k_core import k_core
from rqrec.data.sources.amazon import CATEGORIES, find_amazon, load_amazon, with_possible_ties
from rqrec.data.sources.amazon import TEMPLATE as AMAZON_TEMPLATE
from rqrec.data.sources.custom import CustomFiles, load_custom
from rqrec.data.sources.movielens import TEMPLATE as MOVIELENS_TEMPLATE
from rqrec.data.sources.movielens import VARIANTS, find_movielens, load_movielens

log = logging.getLogger(__name__)

SOURCES = ("amazon", "movielens", "custom")


@dataclass(frozen=True)
class Settings:
    """The choices that make a dataset. Two runs with equal settings and raw files make the same one.

    source: "amazon", "movielens" or "custom".
    variant: "beauty", "sports", "toys"; "100k", "1m", "32m", "latest-small"; nothing for one's own data.
    template: how an item's text is made of its fields (see `rqrec.data.templates`); None: the source's own.
    tie_break: the order of a user's interactions at one time, "keep" (as in the file) or "hash" (at random,
        the same in every run). P5's files of Amazon keep no time, but show where ties may be (see
        `rqrec.data.sources.amazon.with_possible_ties`).
    user_core, item_core: interactions that every user and every item has at least; what has fewer is taken
        out, again and again until all have enough.
    max_history: only a user's last so many interactions are kept; None: all.
    """

    source: str
    variant: str = ""
    template: str | None = None
    tie_break: str = "keep"
    user_core: int = 1
    item_core: int = 1
    max_history: int | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"There is no source {self.source!r}; allowed are {', '.join(SOURCES)}.")
        variants = {"amazon": tuple(CATEGORIES), "movielens": tuple(VARIANTS), "custom": ("",)}[self.source]
        if self.variant not in variants:
            allowed = ", ".join(filter(None, variants)) or "none"
            raise ValueError(f"{self.source} has no variant {self.variant!r}; allowed are {allowed}.")
        if self.source == "movielens" and self.template is not None:
            raise ValueError(f"The text of movielens is always {MOVIELENS_TEMPLATE!r}: give no template.")
        if self.tie_break not in TIE_BREAKS:
            raise ValueError(f"tie_break is {self.tie_break!r}; allowed are {', '.join(TIE_BREAKS)}.")
        for name in ("user_core", "item_core", "max_history"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")

    def to_manifest(self) -> dict[str, Any]:
        """The settings as the artefact keeps them, the template spelled out."""
        default = {"amazon": AMAZON_TEMPLATE, "movielens": MOVIELENS_TEMPLATE, "custom": "{text}"}
        return {**asdict(self), "template": self.template or default[self.source]}


def load(settings: Settings, raw: Path | CustomFiles) -> Dataset:
    """Read the raw files of a source.

    `raw` is the folder of the raw files, into which they are downloaded unless they are there; for one's own
    data, its files or the folder that holds them. Raises ConnectionError (it says what to put where),
    FileNotFoundError or ValueError (it says what is wrong in which file).
    """
    catalog, interactions = _load(settings, raw)
    if settings.user_core > 1 or settings.item_core > 1:
        interactions = k_core(interactions, settings.user_core, settings.item_core)
    if settings.item_core > 1:
        catalog = catalog.of_items(interactions.log["item_id"].unique())
    sequences = interactions.sequences(catalog.id_map, tie_break=settings.tie_break)
    if settings.tie_break == "hash" and sequences.order_only:
        if settings.source != "amazon":
            raise ValueError(
                "tie_break is 'hash', but the raw files keep no time, only an order, so no ties are known. Use "
                "'keep', or prepare from files that keep the time."
            )
        sequences = (
            with_possible_ties(interactions).sequences(catalog.id_map, tie_break="hash").without_times()
        )
    if settings.max_history is not None:
        sequences = sequences.last(settings.max_history)
    return Dataset(catalog, sequences)


def _load(settings: Settings, raw: Path | CustomFiles) -> tuple[Catalog, Interactions]:
    if settings.source == "custom":
        return load_custom(_custom_files(raw), settings.template)
    if isinstance(raw, CustomFiles):
        raise ValueError(f"{settings.source} needs the folder of its raw files, not {raw}.")
    if settings.source == "amazon":
        return load_amazon(settings.variant, raw, settings.template or AMAZON_TEMPLATE)
    return load_movielens(settings.variant, raw)


def _custom_files(raw: Path | CustomFiles) -> CustomFiles:
    return raw if isinstance(raw, CustomFiles) else CustomFiles.in_folder(raw)


def raw_files(settings: Settings, raw: Path | CustomFiles) -> Sequence[Path]:
    """The raw files that are there already; empty where they would have to be downloaded."""
    if settings.source == "custom":
        return _custom_files(raw).paths()
    assert not isinstance(raw, CustomFiles)
    if settings.source == "amazon":
        found = find_amazon(settings.variant, raw)
        return found.paths() if found else ()
    return find_movielens(settings.variant, raw) or ()


def prepare(settings: Settings, raw: Path | CustomFiles, folder: Path, *, force: bool = False) -> Dataset:
    """Make the artefact of kind "dataset" in `folder`, or read it if it is there and still holds.

    It holds where its settings are equal and its raw files are unchanged (or gone); `force` makes it again.
    """
    if not force and _still_holds(folder, settings, raw):
        log.info("%s is up to date", folder)
        return Dataset.read(folder)
    dataset = load(settings, raw)
    dataset.write(folder, settings.to_manifest(), {"raw": hash_of_files(raw_files(settings, raw))})
    return dataset


def _still_holds(folder: Path, settings: Settings, raw: Path | CustomFiles) -> bool:
    if not (Path(folder) / MANIFEST).is_file():
        return False
    manifest = read_manifest(folder, "dataset")
    if manifest.settings != settings.to_manifest():
        return False
    try:
        files = raw_files(settings, raw)
    except FileNotFoundError:
        files = ()
    return not files or manifest.inputs.get("raw") == hash_of_files(files)


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of some files, whatever their names."""
    return hashlib.sha256("".join(file_hash(path) for path in files).encode()).hexdigest()
