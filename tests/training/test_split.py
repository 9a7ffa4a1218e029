from pathlib import Path

import pytest

from rqrec.core.artifact import read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.splits import get_protocol
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.training.checkpoint import CheckpointConfig
from rqrec.training.loop_config import LoopConfig


def test_training_uses_the_named_protocol(tiny_run: Path, tmp_path: Path) -> None:
    config = TrainDecoderConfig(
        loop=LoopConfig(iterations=2),
        checkpoints=CheckpointConfig(tmp_path),
        model={"attn_embed_dim": 8, "decoder_embed_dim": 8, "attn_heads": 2, "attn_layers": 1},
        batch_size=8,
        protocol="temporal",
    )
    inputs = {"dataset": tiny_run / "dataset", "semantic_ids": tiny_run / "semantic_ids"}
    folder = train_decoder(config, **inputs)
    assert read_manifest(folder, "retrieval").settings["protocol"] == "temporal"
    sequences = Dataset.read(tiny_run).sequences
    one, other = (get_protocol(name)(sequences).train for name in ("leave_one_out", "temporal"))
    assert len(one.items) != len(other.items)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="'random'; allowed are leave_one_out, temporal"):
        TrainDecoderConfig(protocol="random")
