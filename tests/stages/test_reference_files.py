"""Configuration files written for the reference implementation run unmodified."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.config import configured
from rqrec.stages.run_rqvae import GenerateSemanticIdsConfig
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig
from rqrec.tokenizer.quantize import QuantizeMode
from tests.stages.world import write_world

TOKENIZER = """import data.processed
import modules.quantize

train.iterations=3
train.learning_rate=0.0005
train.weight_decay=0.01
train.batch_size=16
train.vae_input_dim=16
train.vae_n_cat_feats=0
train.vae_hidden_dims=[12]
train.vae_embed_dim=8
train.vae_codebook_size=8
train.vae_codebook_normalize=False
train.vae_sim_vq=False
train.save_model_every=5000
train.eval_every=5000
train.dataset_folder="own"
train.dataset=%data.processed.RecDataset.CUSTOM
train.save_dir_root="out/rqvae/"
train.wandb_logging=False
train.commitment_weight=0.25
train.vae_n_layers=2
train.vae_codebook_mode=%modules.quantize.QuantizeForwardMode.STE
train.force_dataset_process=False
train.dataset_split="beauty"
train.do_eval=False

generate_semantic_ids.pretrained_model_path="out/rqvae/checkpoint_2.pt"
generate_semantic_ids.output_path="own/ids.npy"
generate_semantic_ids.batch_size=64
"""
DECODERS = {
    "of its head": """import data.processed
import modules.model

train.iterations=2
train.vae_input_dim=16
train.vae_hidden_dims=[12]
train.vae_embed_dim=8
train.vae_n_cat_feats=0
train.vae_codebook_size=8
train.vae_n_layers=2
train.pretrained_rqvae_path="out/rqvae/checkpoint_2.pt"
train.save_dir_root="out/decoder/"
train.dataset_folder="own"
train.dataset=%data.processed.RecDataset.CUSTOM
train.full_eval_every=10000
train.partial_eval_every=5000
train.dropout_p=0.3
train.attn_heads=2
train.attn_embed_dim=16
train.attn_layers=1
train.decoder_embed_dim=8
train.model_jagged_mode=True
train.model_type=%modules.model.ModelType.ENCODER_DECODER
""",
    "with a T5": """import data.processed

train.iterations=2
train.pretrained_rqvae_path="out/rqvae/checkpoint_2.pt"
train.save_dir_root="out/t5/"
train.dataset_folder="own"
train.dataset=%data.processed.RecDataset.CUSTOM
train.t5_d_model=16
train.t5_num_heads=2
train.t5_d_ff=64
train.t5_num_layers=1
train.top_k_for_generation=10
train.should_check_prefix=True
train.should_add_sep_token=True
train.num_user_bins=None
train.top_k_eval_list=[5, 10]
""",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_world(tmp_path / "own")
    (tmp_path / "own" / "log.parquet").rename(tmp_path / "log.parquet")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rqvae.gin").write_text(TOKENIZER)
    return tmp_path


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    return " ".join(done.stderr.split())


def test_the_documented_commands_train_a_tokenizer_write_its_ids_and_train_decoders(place: Path) -> None:
    assert configured(TrainRqVaeConfig(), ["train"], [place / "rqvae.gin"]).rqvae["mode"] is QuantizeMode.STE
    run("train-rqvae", "rqvae.gin")
    said = run("run-rqvae", "rqvae.gin")
    assert "There is no file out/rqvae/checkpoint_2.pt: using what training saved in out/rqvae." in said
    assert "batch_size has no effect here" in said
    ids = np.load(place / "own" / "ids.npy")
    assert (ids.dtype, ids.shape) == (np.int64, (48, 3))
    assert len(np.unique(ids, axis=0)) == 48
    (place / "log.parquet").rename(place / "own" / "log.parquet")
    for name, text in DECODERS.items():
        (place / f"{name}.gin").write_text(text)
        said = run("train-decoder", f"{name}.gin")
        assert "using what training saved in out/rqvae." in said
        assert ("model_jagged_mode has no effect" in said) is (name == "of its head")
        assert ("t5_d_ff has no effect" in said) is (name == "with a T5")
    (place / "again.gin").write_text(
        'include "of its head.gin"\ntrain.pretrained_decoder_path="out/decoder/checkpoint_1.pt"\n'
        'train.save_dir_root="out/again/"'
    )
    assert "using what training saved in out/decoder." in run("train-decoder", "again.gin")


def test_the_data_of_run_rqvae_is_that_of_training(place: Path) -> None:
    def folder(*bindings: str) -> Path:
        section = ["generate_semantic_ids"]
        return configured(
            GenerateSemanticIdsConfig(), section, [place / "rqvae.gin"], bindings
        ).dataset_folder

    assert folder() == Path("own")
    assert folder('generate_semantic_ids.dataset_folder="other"') == Path("other")


def test_a_missing_checkpoint_without_a_run_beside_it_is_an_error(place: Path) -> None:
    done = CliRunner().invoke(app, ["run-rqvae", "rqvae.gin"])
    assert done.exit_code == 1
    assert "There is no saved tokenizer 'out/rqvae/checkpoint_2.pt'" in done.stderr
    (place / "out" / "rqvae").mkdir(parents=True)
    done = CliRunner().invoke(app, ["run-rqvae", "rqvae.gin"])
    assert "out/rqvae holds no tokenizer. Train one" in done.stderr


def test_a_model_larger_than_the_memory_is_refused_before_it_is_made(place: Path) -> None:
    shutil.move(place / "log.parquet", place / "own" / "log.parquet")
    bindings = ["train.attn_embed_dim=65536", "train.attn_layers=1024", "train.vae_n_layers=2"]
    given = ['train.dataset="custom"', 'train.dataset_folder="own"', *bindings]
    with pytest.raises(
        ValueError, match=r"The model would have [\d,]+ GB of parameters, but this machine has"
    ):
        train_decoder(configured(TrainDecoderConfig(), ["train"], [], [*given, "train.vae_codebook_size=8"]))
