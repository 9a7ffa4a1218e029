"""Every setting of the two training commands has its effect."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from rqrec.core.artifact import read_manifest
from rqrec.retrieval.artifact import read_retrieval
from rqrec.tokenizer.rqvae import RqVae
from rqrec.training.loop_config import LoopConfig
from rqrec.training.tracking import History
from tests.stages.world import decoder_settings, rqvae_settings, run, write_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def tokenizer(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run of train_rqvae."""
    root = tmp_path_factory.mktemp("tokenizer")
    run("rqvae", rqvae_settings(world, root))
    return root


def train_rqvae(world: Path, root: Path, **more: Any) -> dict[str, Any]:
    """The settings in the artefact's manifest."""
    return read_manifest(run("rqvae", rqvae_settings(world, root, **more)), "rqvae").settings


def train_decoder(world: Path, root: Path, **more: Any) -> dict[str, Any]:
    return read_manifest(run("decoder", decoder_settings(world, root, **more)), "retrieval").settings


def test_mixed_precision_type_has_an_effect_only_with_amp(world: Path, tmp_path: Path) -> None:
    for place, (amp, kind, used) in enumerate([(True, "bf16", "bf16"), (False, "bf16", "no")]):
        for train in (train_rqvae, train_decoder):
            settings = train(
                world, tmp_path / f"{train.__name__} {place}", amp=amp, mixed_precision_type=kind
            )
            assert LoopConfig(**settings["training"]).precision == used
    with pytest.raises(ValueError, match="'int8'"):
        train_rqvae(world, tmp_path / "other", amp=True, mixed_precision_type="int8")


def test_loop_settings_reach_both_commands(world: Path, tmp_path: Path) -> None:
    both = {
        "iterations": 9,
        "learning_rate": 2e-3,
        "weight_decay": 0.03,
        "warmup": 3,
        "schedule": "inverse_sqrt",
        "ema_decay": 0.9,
        "max_minutes": 5.0,
        "max_grad_norm": 0.5,
        "gradient_accumulate_every": 2,
        "seed": 7,
    }
    evaluation = {"eval_every": 4}, {"full_eval_every": 4, "partial_eval_every": 3, "patience": 9}
    for train, more in zip((train_rqvae, train_decoder), evaluation, strict=True):
        done = train(world, tmp_path / train.__name__, **both, **more)["training"]
        assert both.items() <= done.items()
    history = History.read(tmp_path / "train_decoder" / "retrieval")
    assert [record["step"] for record in history.partial] == [3, 6, 9]
    assert [record["step"] for record in history.validation] == [4, 8, 9]
    tokenizer = History.read(tmp_path / "train_rqvae" / "rqvae")
    assert [record["step"] for record in tokenizer.validation] == [4, 8, 9]


def test_the_validation_loss_falls_as_the_model_learns(world: Path, tmp_path: Path) -> None:
    more = {"iterations": 150, "learning_rate": 1e-2, "partial_eval_every": 75, "full_eval_every": 0}
    train_decoder(world, tmp_path, **more)
    early, late = History.read(tmp_path / "retrieval").partial
    assert late["loss"] < early["loss"]
    assert late["loss"] == pytest.approx(np.mean([v for k, v in late.items() if "level" in k]))


def test_save_model_every_and_keep_last_and_resume(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(28, "No space left on device", "here")

    monkeypatch.setattr(RqVae, "save_pretrained", full)
    settings = {"save_model_every": 3, "keep_last": 3}
    with pytest.raises(OSError, match="No space left"):
        train_rqvae(world, tmp_path, **settings)
    saved = tmp_path / "checkpoints"
    assert sorted(path.name for path in saved.iterdir()) == [f"step-{step:09d}" for step in (3, 6, 9)]
    with pytest.raises(ValueError, match=r"training.learning_rate was 0.001 and is 0.5"):
        train_rqvae(world, tmp_path, **settings, learning_rate=0.5)
    monkeypatch.undo()
    train_rqvae(world, tmp_path, **settings, learning_rate=0.5, resume="never")
    assert not saved.exists()  # the run is finished


def test_wandb_logging_without_wandb_is_refused_before_any_work(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for train in (train_rqvae, train_decoder):
        with pytest.raises(ValueError, match="wandb"):
            train(world, tmp_path, wandb_logging=True)
    assert not list(tmp_path.iterdir())


def test_pretrained_rqvae_path_initialises_the_tokenizer(
    world: Path, tokenizer: Path, tmp_path: Path
) -> None:
    frozen = {"learning_rate": 1e-12, "reset_dead_codes_every": 0, "weight_decay": 0.0}
    before = load_file(tokenizer / "rqvae" / "model.safetensors")
    train_rqvae(world, tmp_path, pretrained_rqvae_path=str(tokenizer), **frozen)
    after = load_file(tmp_path / "rqvae" / "model.safetensors")
    assert all(torch.allclose(before[name].float(), after[name].float(), atol=1e-6) for name in before)
    assert "start" in read_manifest(tmp_path / "rqvae").inputs
    with pytest.raises(ValueError, match="embed_dim is 4 and was 8"):
        train_rqvae(world, tmp_path / "other", pretrained_rqvae_path=str(tokenizer), vae_embed_dim=4)


def test_the_decoder_uses_the_tokenizer_at_pretrained_rqvae_path_from_any_source(
    world: Path, tokenizer: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"  # config.json and model.safetensors alone, as from the hub
    plain.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tokenizer / "rqvae" / name, plain)
    tables = []
    for source in (tokenizer, plain):
        root = tmp_path / f"from {source.name}"
        train_decoder(world, root, pretrained_rqvae_path=str(source))
        tables.append(read_retrieval(root).table.codes_NL)
    assert np.array_equal(*tables)
    with pytest.raises(ValueError, match=r"vae_codebook_size is 16, but the checkpoint .* has 8"):
        train_decoder(world, tmp_path, pretrained_rqvae_path=str(tokenizer), vae_codebook_size=16)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train_decoder(world, tmp_path, pretrained_rqvae_path=str(tmp_path / "nowhere"))


def test_without_a_tokenizer_the_vae_settings_define_an_untrained_one(world: Path, tmp_path: Path) -> None:
    sizes = {
        "vae_input_dim": 16,
        "vae_n_cat_feats": 0,
        "vae_embed_dim": 4,
        "vae_hidden_dims": [12],
        "vae_codebook_size": 6,
        "vae_codebook_normalize": True,
        "vae_sim_vq": True,
        "vae_n_layers": 3,
    }
    train_decoder(world, tmp_path, **sizes)
    config = json.loads((tmp_path / "rqvae" / "config.json").read_text())
    assert (config["input_dim"], config["embed_dim"], config["hidden_dims"]) == (16, 4, [12])
    assert (config["codebook_size"], config["codebook_normalize"], config["sim_vq"]) == (6, True, True)
    assert read_retrieval(tmp_path).table.level_sizes[:3] == (6, 6, 6)


def test_pretrained_decoder_path_initialises_the_decoder(
    world: Path, tokenizer: Path, tmp_path: Path
) -> None:
    same = {"pretrained_rqvae_path": str(tokenizer)}
    train_decoder(world, tmp_path / "first", **same)
    start = {"pretrained_decoder_path": str(tmp_path / "first"), "learning_rate": 1e-12, "weight_decay": 0.0}
    train_decoder(world, tmp_path / "second", **same, **start)
    one, two = (read_retrieval(tmp_path / name).model.state_dict() for name in ("first", "second"))
    assert all(torch.allclose(one[name], two[name], atol=1e-6) for name in one)
    with pytest.raises(ValueError, match=r"pretrained_decoder_path.*attn_layers is 2 and was 1"):
        train_decoder(world, tmp_path / "third", **same, **start, attn_layers=2)


def test_train_data_subsample_decides_whether_windows_move(world: Path, tmp_path: Path) -> None:
    for value in (True, False):
        settings = train_decoder(world, tmp_path / f"{value}", train_data_subsample=value)
        assert settings["train_data_subsample"] is value


@pytest.mark.parametrize("train", [train_rqvae, train_decoder])
def test_push_vae_to_hf_pushes_with_a_card_and_needs_a_name(
    train: Any, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="needs owner/name"):
        train(world, tmp_path, push_vae_to_hf=True)
    pushed: list[tuple[str, str]] = []

    def push(self: RqVae, repo_id: str, *, data: str, figures: dict[str, float]) -> str:
        pushed.append((repo_id, data))
        return f"https://huggingface.co/{repo_id}"

    monkeypatch.setattr(RqVae, "push_to_hub", push)
    train(world, tmp_path, push_vae_to_hf=True, vae_hf_model_name="me/codes")
    assert pushed == [("me/codes", "Embeddings of the items of custom.")]


def test_torch_compile_falls_back_or_works(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(torch, "compile", lambda model, **options: asked.append(type(model)) or model)
    train_rqvae(world, tmp_path / "rqvae", torch_compile=True)
    train_decoder(world, tmp_path / "decoder", torch_compile=True)
    assert len(asked) == 2


def test_split_batches_keeps_the_batch_of_one_process(world: Path, tmp_path: Path) -> None:
    for value in (True, False):
        assert train_rqvae(world, tmp_path / f"t {value}", split_batches=value)["batch_size"] == 16
        assert train_decoder(world, tmp_path / f"d {value}", split_batches=value)["batch_size"] == 16


def test_force_dataset_process_prepares_the_dataset_again(world: Path, tmp_path: Path) -> None:
    train_rqvae(world, tmp_path)
    path = world / "processed" / "own" / "dataset" / "manifest.json"
    before = path.stat().st_ino
    train_rqvae(world, tmp_path)
    assert path.stat().st_ino == before
    train_rqvae(world, tmp_path, force_dataset_process=True)
    assert path.stat().st_ino != before


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder", "hierarchical"])
def test_users_times_and_ties_reach_the_model(architecture: str, world: Path, tmp_path: Path) -> None:
    tie = architecture != "decoder_only"
    more = {"architecture": architecture, "user_buckets": 40, "time_gaps": 6, "tie_codes": tie}
    made_with = train_decoder(world, tmp_path, **more)
    assert more.items() <= made_with["model"].items()
    model = read_retrieval(tmp_path).model
    assert [model.side.user.num_embeddings, model.side.gap.num_embeddings] == [41, 7]


def test_time_gaps_are_refused_if_the_source_has_no_timestamps(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, tmp_path / "in order", ignore=shutil.ignore_patterns("processed"))
    log = pl.read_parquet(world / "log.parquet").sort("user_id", "timestamp")
    positions = pl.int_range(pl.len()).over("user_id").alias("timestamp")
    log.with_columns(positions).write_parquet(tmp_path / "in order/log.parquet")
    with pytest.raises(ValueError, match=r"time_gaps is 6, but the source of .* has no timestamps"):
        train_decoder(tmp_path / "in order", tmp_path, time_gaps=6)
    train_decoder(tmp_path / "in order", tmp_path, user_buckets=10)
