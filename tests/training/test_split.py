from pathlib import Path

import pytest

from rqrec.core.artifact import read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.splits import get_protocol
from rqrec.models.decoder_only import DecoderOnlyConfig
from rqrec.stages.train_decoder import train_decoder
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.loop import LoopConfig


def train(run: Path, folder: Path, split: str) -> None:
    sizes = SemanticIdTable.read(run / "semantic_ids").level_sizes
    train_decoder(
        run / "dataset",
        run / "semantic_ids",
        folder,
        DecoderOnlyConfig(sizes, 8, 8, 8, 2, 1),
        LoopConfig(iterations=2),
        batch_size=8,
        split=split,
    )


def test_training_uses_the_named_split(tiny_run: Path, tmp_path: Path) -> None:
    train(tiny_run, tmp_path / "model", "temporal")
    assert read_manifest(tmp_path / "model", "retrieval").settings["split"] == "temporal"
    sequences = Dataset.read(tiny_run).sequences
    one, other = (get_protocol(name)(sequences).train for name in ("leave_one_out", "temporal"))
    assert len(one.items) != len(other.items)


def test_an_unknown_split_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'random'; allowed are leave_one_out, temporal"):
        train(tiny_run, tmp_path / "model", "random")
