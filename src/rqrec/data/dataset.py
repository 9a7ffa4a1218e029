"""A prepared dataset: the catalogue and the user sequences, in one artefact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest, read_version
from rqrec.data.catalog import Catalog
from rqrec.data.interactions import Interactions
from rqrec.data.sequences import SEQUENCES_FILE, Sequences
from rqrec.data.splits import MIN_ITEMS, leave_one_out, targets_in_history
from rqrec.data.times import END


@dataclass(frozen=True)
class Dataset:
    """The common format of all data sources: items with text, and each user's sequence of item indices."""

    catalog: Catalog
    sequences: Sequences

    def __repr__(self) -> str:
        counts = ", ".join(f"{number:,} {name}" for name, number in self.counts().items())
        return f"Dataset({counts})"

    @classmethod
    def from_interactions(cls, catalog: Catalog, interactions: Interactions) -> "Dataset":
        """Build each user's sequence of catalogue indices, oldest first.

        Raises UnknownIdError (a ValueError) if the log has an item that is not in the catalogue.
        """
        return cls(catalog, interactions.sequences(catalog.id_map))

    def counts(self) -> dict[str, int]:
        """Number of users, items and interactions."""
        return {
            "users": len(self.sequences),
            "items": len(self.catalog),
            "interactions": len(self.sequences.items),
        }

    def repeats(self) -> dict[str, int]:
        """Number of users with leave-one-out targets, and of targets that are already in their history."""
        if not (self.sequences.lengths >= MIN_ITEMS).any():
            return {"evaluated_users": 0, "validation_targets_in_history": 0, "test_targets_in_history": 0}
        split = leave_one_out(self.sequences)
        return {
            "evaluated_users": len(split.test),
            "validation_targets_in_history": targets_in_history(split.validation),
            "test_targets_in_history": targets_in_history(split.test),
        }

    def write(self, folder: Path, settings: dict[str, Any], inputs: dict[str, str] | None = None) -> None:
        """Write an artefact of type "dataset".

        `settings`: source and preparation options; `inputs`: hashes of the raw files.
        """
        metrics: dict[str, Any] = self.counts() | self.repeats()
        if self.catalog.template is not None:
            metrics["template"] = self.catalog.template
        with create(folder, "dataset", settings=settings, inputs=inputs, metrics=metrics) as target:
            self.catalog.write(target)
            self.sequences.write(target)

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Read a dataset artefact, or the one inside a run folder.

        Raises FileNotFoundError if there is none, ValueError if it is damaged, of another format version, or from a
        version that kept times in the unit of their source.
        """
        return read_version(find(folder, "dataset"), cls._read)

    @classmethod
    def _read(cls, folder: Path) -> "Dataset":
        read_manifest(folder, "dataset", verify=True)
        sequences = Sequences.read(folder)
        if (sequences.timestamps >= END).any():
            raise ValueError(
                f"{folder} was made by an earlier version of rqrec, which did not convert its times to seconds. "
                f"Remove it, and prepare it again."
            )
        catalog, items = Catalog.read(folder), sequences.items
        if (sequences.timestamps < 0).any() or (items < 0).any() or (items >= len(catalog)).any():
            raise ValueError(
                f"{folder} is damaged: {SEQUENCES_FILE} has negative times, or items outside of the "
                f"{len(catalog)} of the catalogue. Remove it, and prepare it again."
            )
        return cls(catalog, sequences)
