"""`rqrec prepare`: from raw files to a dataset, for every source."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rqrec.core.artifact import MANIFEST, file_hash, read_manifest, reuse
from rqrec.core.config import settings_of
from rqrec.core.values import Config, PositiveInt
from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.data.interactions import TIE_BREAKS, Interactions
from rqrec.data.k_core import k_core
from rqrec.data.sources.amazon import CATEGORIES, find_amazon, load_amazon, with_possible_ties
from rqrec.data.sources.amazon import TEMPLATE as AMAZON_TEMPLATE
from rqrec.data.sources.custom import CustomFiles, CustomOptions, load_custom
from rqrec.data.sources.movielens import TEMPLATE as MOVIELENS_TEMPLATE
from rqrec.data.sources.movielens import VARIANTS, find_movielens, load_movielens
from rqrec.data.templates import fields_of

SOURCES = ("amazon", "movielens", "custom")


@dataclass(frozen=True)
class PrepareOptions(Config):
    """How raw files become a dataset, whatever their source."""

    template: str | None = None
    """Template of the item texts, such as "{title}; Brand: {brand}"; by default that of the source."""
    tie_break: str = "keep"
    """Order of a user's interactions with equal timestamps: keep (file order) or hash (reproducible random order)."""
    user_core: PositiveInt = 1
    """Minimum interactions per user. Users and items below their minimum are removed, repeatedly."""
    item_core: PositiveInt = 1
    """Minimum interactions per item; see user_core."""
    max_history: PositiveInt | None = None
    """Keep only each user's most recent interactions, at most this many; by default all."""
    custom: CustomOptions = CustomOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.template is not None:
            fields_of(self.template)
        if self.tie_break not in TIE_BREAKS:
            raise ValueError(f"tie_break is {self.tie_break!r}; allowed are {', '.join(TIE_BREAKS)}.")


@dataclass(frozen=True)
class PrepareConfig(Config):
    """How a dataset is prepared. Equal settings and raw files give the same dataset."""

    source: str = "custom"
    """amazon, movielens or custom."""
    variant: str = ""
    """beauty, sports or toys of amazon; 100k, 1m, 32m or latest-small of movielens; nothing for custom."""
    options: PrepareOptions = PrepareOptions()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise ValueError(f"source is {self.source!r}; allowed are {', '.join(SOURCES)}.")
        variants = {"amazon": tuple(CATEGORIES), "movielens": tuple(VARIANTS), "custom": ("",)}[self.source]
        if self.variant not in variants:
            if self.source == "custom":
                raise ValueError(
                    f"variant is {self.variant!r}, but custom data has no variants: leave it out."
                )
            given = f"variant is {self.variant!r}" if self.variant else "variant is not given"
            raise ValueError(f"{given}; allowed for {self.source} are {', '.join(variants)}.")
        if self.source == "movielens" and self.options.template is not None:
            raise ValueError(
                f"The template of movielens is always {MOVIELENS_TEMPLATE!r}: leave template out."
            )
        default, custom = CustomOptions(), self.options.custom
        changed = [
            one.name for one in fields(custom) if getattr(custom, one.name) != getattr(default, one.name)
        ]
        if changed and self.source != "custom":
            raise ValueError(
                f"{' and '.join(changed)} can be set for custom data only, not for {self.source}: leave it out."
            )

    def to_manifest(self) -> dict[str, Any]:
        """The settings that the artefact stores, with the default template filled in."""
        default = {"amazon": AMAZON_TEMPLATE, "movielens": MOVIELENS_TEMPLATE, "custom": "{text}"}
        values = {name: setting.value for name, setting in settings_of(self).items()}
        if self.source != "custom":
            for one in fields(CustomOptions):
                del values[one.name]
        values.pop("max_invalid", None)  # it may refuse a file, but changes nothing in what is made of it
        return {**values, "template": self.options.template or default[self.source]}


def default_folder(config: PrepareConfig, data_dir: Path) -> Path:
    """The folder of a dataset that is given none: inside the folder of its raw files."""
    return data_dir / "processed" / (config.variant or "own") / "dataset"


def prepare(
    config: PrepareConfig,
    raw: Path | CustomFiles,
    out: Path,
    *,
    force: bool = False,
    how_to_replace: str = "--force",
) -> Path:
    """Write the dataset artefact to `out`, or reuse it if it was made with the same settings and raw files.

    `raw` is the folder of the raw files, into which missing ones are downloaded; for custom data, the files or the
    folder that holds them. If the raw files no longer exist, an existing artefact is reused.

    Raises ValueError if `out` holds a dataset that was made differently (unless `force` is given) or a raw file is
    invalid, FileNotFoundError if custom files are missing, and ConnectionError if a download fails (the message
    says which file to put where).
    """
    if reuse(
        out,
        "dataset",
        config.to_manifest(),
        _raw_hash(config, raw, out),
        force=force,
        how_to_replace=how_to_replace,
    ):
        Dataset.read(out)  # refuses one of an earlier version, whose times are not seconds
        return Path(out)
    dataset = load(config, raw)
    dataset.write(out, config.to_manifest(), {"raw": hash_of_files(raw_files(config, raw))})
    return Path(out)


def _raw_hash(config: PrepareConfig, raw: Path | CustomFiles, out: Path) -> dict[str, str]:
    """The hash of the raw files; if they no longer exist, the one recorded in an existing artefact."""
    try:
        files = raw_files(config, raw)
    except FileNotFoundError:
        files = ()
    if not files and (Path(out) / MANIFEST).is_file():
        return read_manifest(out, "dataset").inputs
    return {"raw": hash_of_files(files)}


def load(config: PrepareConfig, raw: Path | CustomFiles) -> Dataset:
    """Read the raw files of a source (see `prepare`)."""
    options = config.options
    catalog, interactions = _load(config, raw)
    if options.user_core > 1 or options.item_core > 1:
        interactions = k_core(interactions, options.user_core, options.item_core)
    if options.item_core > 1:
        catalog = catalog.of_items(interactions.log["item_id"].unique())
    sequences = interactions.sequences(catalog.id_map, tie_break=options.tie_break)
    if options.tie_break == "hash" and sequences.order_only:
        if config.source != "amazon":
            raise ValueError(
                "tie_break is 'hash', but the raw files have no timestamps, only an order, so ties are unknown. "
                "Use 'keep', or prepare from files with timestamps."
            )
        sequences = (
            with_possible_ties(interactions).sequences(catalog.id_map, tie_break="hash").without_times()
        )
    if options.max_history is not None:
        sequences = sequences.last(options.max_history)
    return Dataset(catalog, sequences)


def _load(config: PrepareConfig, raw: Path | CustomFiles) -> tuple[Catalog, Interactions]:
    options = config.options
    if config.source == "custom":
        return load_custom(_custom_files(raw), options.template, options.custom)
    folder = _raw_folder(config, raw)
    if config.source == "amazon":
        return load_amazon(config.variant, folder, options.template or AMAZON_TEMPLATE)
    return load_movielens(config.variant, folder)


def _custom_files(raw: Path | CustomFiles) -> CustomFiles:
    return raw if isinstance(raw, CustomFiles) else CustomFiles.in_folder(raw)


def _raw_folder(config: PrepareConfig, raw: Path | CustomFiles) -> Path:
    if isinstance(raw, CustomFiles):
        raise ValueError(f"{config.source} needs the folder of its raw files, not {raw}.")
    return raw


def raw_files(config: PrepareConfig, raw: Path | CustomFiles) -> Sequence[Path]:
    """The raw files; empty if they would have to be downloaded."""
    if config.source == "custom":
        return _custom_files(raw).paths()
    folder = _raw_folder(config, raw)
    if config.source == "amazon":
        found = find_amazon(config.variant, folder)
        return found.paths() if found else ()
    return find_movielens(config.variant, folder) or ()


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of `files`, regardless of their names."""
    return hashlib.sha256("".join(file_hash(path) for path in files).encode()).hexdigest()
