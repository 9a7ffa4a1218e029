from pathlib import Path

import numpy as np
import polars as pl
import pytest

from rqrec.cli.bench import train
from rqrec.core.artifact import read_json
from rqrec.core.config import configured
from tests.tiny import N_ITEMS, tiny_dataset, tiny_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small world as a user's own data."""
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
def test_the_architecture_is_chosen_by_name_and_brings_its_own_sizes(
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
    artifact = configured({"train": train}, [], [*common.split("\n"), setting])["train"]()
    config = read_json(artifact / "config.json")
    assert config["architecture"] == name
    assert config["attn_layers"] == 1
    assert config["attn_embed_dim"] == (256 if name == "hierarchical" else 128)


def test_an_architecture_that_does_not_exist_is_told_before_any_work() -> None:
    with pytest.raises(ValueError, match="no architecture 'mamba': use decoder_only, encoder_decoder, hier"):
        train(architecture="mamba", dataset_folder="nowhere")
