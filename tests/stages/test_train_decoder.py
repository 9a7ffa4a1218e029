from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rqrec.core.artifact import read_json
from rqrec.core.config import configured, with_settings
from rqrec.data.splits import leave_one_out
from rqrec.models.retrieval_model import ModelConfig
from rqrec.stages.train_decoder import TrainDecoderConfig, schedule, train_decoder
from rqrec.training.loop_config import LoopConfig
from tests.tiny import N_ITEMS, tiny_dataset, tiny_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny dataset as custom data."""
    folder = tmp_path_factory.mktemp("own")
    np.save(folder / "item_embeddings.npy", tiny_vectors())
    pl.DataFrame({"item_id": [f"item {item}" for item in range(N_ITEMS)]}).write_parquet(
        folder / "items.parquet"
    )
    sequences = tiny_dataset(60).sequences
    rows = [
        (user, f"item {item}", place)
        for user, user_id in enumerate(sequences.user_ids)
        for place, item in enumerate(sequences.of_user(user))
    ]
    log = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    log.with_columns(pl.col("user_id").cast(pl.String)).write_parquet(folder / "log.parquet")
    return folder


@pytest.mark.parametrize(
    ("setting", "name"),
    [
        ('train.architecture="hierarchical"', "hierarchical"),
        ("train.model_type=%modules.model.ModelType.ENCODER_DECODER", "encoder_decoder"),
        ("train.iterations=2", "decoder_only"),
    ],
)
def test_the_architecture_is_chosen_by_name_and_has_its_own_default_sizes(
    setting: str, name: str, folder: Path, tmp_path: Path
) -> None:
    common = f"""
        train.dataset="custom"
        train.dataset_folder="{folder}"
        train.save_dir_root="{tmp_path}"
        train.iterations=2
        train.batch_size=8
        train.vae_codebook_size=8
        train.attn_layers=1
    """
    config = configured(TrainDecoderConfig(), ["train"], [], [*common.split("\n"), setting])
    artifact = train_decoder(config)
    saved = read_json(artifact / "config.json")
    assert saved["architecture"] == name
    assert saved["attn_layers"] == 1
    assert saved["attn_embed_dim"] == (256 if name == "hierarchical" else 128)


def test_an_unknown_architecture_is_refused_before_any_work() -> None:
    with pytest.raises(
        ValueError, match="architecture 'mamba'; allowed are decoder_only, encoder_decoder, hier"
    ):
        TrainDecoderConfig(architecture="mamba")


def test_collaborative_vectors_of_another_protocol_are_refused() -> None:
    with pytest.raises(ValueError, match=r"contain interactions of the test period.*--protocol temporal"):
        with_settings(TrainDecoderConfig(), {"split": "temporal", "collaborative": 8})


def test_names_of_other_versions_of_the_reference_implementation_are_understood() -> None:
    given = {"dropout_p": 0.3, "t5_num_layers": 3, "eval_every": 7, "should_check_prefix": True}
    config = with_settings(TrainDecoderConfig(), given)
    assert config.model == {"attn_dropout": 0.3, "attn_layers": 3}
    assert config.loop.full_eval_every == 7


def test_batches_epochs_and_validations_follow_from_the_training_data() -> None:
    train = leave_one_out(tiny_dataset().sequences).train
    sizes = ModelConfig((8,), max_items=3)
    windows = np.ceil(train.lengths / 4).sum()
    config = TrainDecoderConfig(
        loop=LoopConfig(10, warmup=200),
        targets_per_batch=50,
        epochs=4,
        validations=5,
    )
    batch_size, loop = schedule(config, sizes, train)
    assert batch_size == round(50 * windows / len(train.items))
    assert loop.iterations == 4 * -(-windows // batch_size)
    assert (loop.warmup, loop.full_eval_every) == (loop.iterations // 10, loop.iterations // 5)
    batch_size, loop = schedule(replace(config, targets_per_batch=0, epochs=0, validations=0), sizes, train)
    assert (batch_size, loop) == (config.batch_size, config.loop)
