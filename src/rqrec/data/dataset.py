"""A prepared dataset: the catalogue and the sequences, in one artefact."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rqrec.core.artifact import create, find, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.interactions import Interactions
from rqrec.data.sequences import Sequences


@dataclass(frozen=True)
class Dataset:
    """What every source ends in: items with text, and each user's sequence of item indices."""

    catalog: Catalog
    sequences: Sequences

    @classmethod
    def from_interactions(cls, catalog: Catalog, interactions: Interactions) -> "Dataset":
        """Order the log into sequences by the catalogue's indices."""
        return cls(catalog, interactions.sequences(catalog.id_map))

    def counts(self) -> dict[str, int]:
        """Counts: users, items, interactions."""
        return {
            "users": len(self.sequences),
            "items": len(self.catalog),
            "interactions": len(self.sequences.items),
        }

    def write(self, folder: Path, settings: dict[str, Any], inputs: dict[str, str] | None = None) -> None:
        """Write the artefact of kind "dataset".

        `settings` say which source and choices made it, `inputs` the hash of its raw files.
        """
        with create(folder, "dataset", settings=settings, inputs=inputs, metrics=self.counts()) as target:
            self.catalog.write(target)
            self.sequences.write(target)

    @classmethod
    def read(cls, folder: Path) -> "Dataset":
        """Read a dataset artefact, or the one inside the folder of a run."""
        folder = find(folder, "dataset")
        read_manifest(folder, "dataset", verify=True)
        return cls(Catalog.read(folder), Sequences.read(folder))
