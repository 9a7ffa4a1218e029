"""Every setting of the two training commands has its effect."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file

from rqrec.core.artifact import read_json, read_manifest, write_json
from rqrec.retrieval.artifact import read_retrieval
from rqrec.tokenizer.rqvae import RqVae
from rqrec.training.tracking import History
from tests.stages.world import decoder_settings, rqvae_settings, run, write_world
from tests.tiny import N_ITEMS


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


@pytest.mark.parametrize(
    ("command", "settings_of"), [("rqvae", rqvae_settings), ("decoder", decoder_settings)]
)
def test_mixed_precision_type_has_an_effect_only_with_amp(
    command: str, settings_of: Callable[..., dict[str, Any]], world: Path, tmp_path: Path
) -> None:
    for amp, used in ((True, "bf16"), (False, "no")):
        more = {"amp": amp, "mixed_precision_type": "bf16"}
        out = run(command, settings_of(world, tmp_path / f"{amp}", **more))
        assert read_manifest(out).metrics["precision"] == used
    with pytest.raises(ValueError, match="'int8'"):
        run(command, settings_of(world, tmp_path / "other", amp=True, mixed_precision_type="int8"))


def test_loop_settings_reach_both_commands(world: Path, tmp_path: Path) -> None:
    both = {
        "iterations": 9,
        "learning_rate": 2e-3,
        "weight_decay": 0.03,
        "warmup": 3,
        "schedule": "inverse_sqrt",
        "model_ema_decay": 0.9,
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
    with pytest.raises(ValueError, match=r"training.learning_rate was 0.005 and is 0.5"):
        train_rqvae(world, tmp_path, **settings, learning_rate=0.5)
    monkeypatch.undo()
    train_rqvae(world, tmp_path, **settings, learning_rate=0.5, resume="never")
    assert not saved.exists()  # the run is finished


def test_a_tokenizer_trained_with_the_losses_of_an_earlier_version_is_neither_resumed_nor_reused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings have no quantization_weight: its losses were sums. It can still be used."""

    def forget(folder: Path) -> None:
        values = read_json(folder / "manifest.json")
        del values["settings"]["model"]["quantization_weight"]
        write_json(folder / "manifest.json", values)

    with monkeypatch.context() as patch:
        patch.setattr(RqVae, "save_pretrained", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train_rqvae(world, tmp_path, save_model_every=6)
    for saved in (tmp_path / "checkpoints").iterdir():
        forget(saved)
    refused = "model.quantization_weight was None and is 4.0"
    with pytest.raises(ValueError, match=rf"unfinished run.*{refused}.*train.resume='never'"):
        train_rqvae(world, tmp_path, save_model_every=6)
    train_rqvae(world, tmp_path, resume="never")
    forget(tmp_path / "rqvae")
    with pytest.raises(ValueError, match=rf"{refused}.*train.resume='never'"):
        train_rqvae(world, tmp_path)
    assert RqVae.from_pretrained(tmp_path / "rqvae").initialized


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


@pytest.mark.parametrize(
    ("command", "both", "change"),
    [
        ("rqvae", {}, {"batch_size": 12}),
        ("rqvae", {}, {"use_kmeans_init": False}),
        ("rqvae", {"use_kmeans_init": False, "reset_dead_codes_every": 0}, {"reset_dead_codes_every": 2}),
        ("rqvae", {}, {"commitment_weight": 0.5}),
        ("rqvae", {}, {"vae_quantization_weight": 1.0}),
        ("rqvae", {}, {"vae_codebook_mode": "STE"}),
        ("rqvae", {"vae_codebook_mode": "STE"}, {"vae_codebook_ema_decay": 0.5}),
        ("decoder", {}, {"batch_size": 12}),
        ("decoder", {"max_items": 2}, {"train_data_subsample": False}),
        ("decoder", {"full_eval_every": 6}, {"validation_users": 100}),
        ("decoder", {}, {"targets_per_batch": 30}),
        ("decoder", {}, {"epochs": 1}),
        ("decoder", {}, {"validations": 3}),
        ("decoder", {}, {"label_smoothing": 0.1}),
        ("decoder", {}, {"attn_dropout": 0.1}),
    ],
    ids=str,
)
def test_settings_have_an_effect_on_training(
    command: str, both: dict[str, Any], change: dict[str, Any], world: Path, tmp_path: Path
) -> None:
    settings = rqvae_settings if command == "rqvae" else decoder_settings
    common = {"amp": False, "log_every": 1, **both}
    before, after = (
        History.read(run(command, settings(world, tmp_path / name, **{**common, **more})))
        for name, more in (("before", {}), ("after", change))
    )
    assert before != after


def test_do_eval_measures_the_error_on_held_out_items(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world, folder := tmp_path / "split", ignore=shutil.ignore_patterns("processed", "log*"))
    np.save(folder / "is_train.npy", np.arange(N_ITEMS) % 4 > 0)
    for do_eval in (True, False):
        out = run("rqvae", rqvae_settings(folder, tmp_path / f"{do_eval}", do_eval=do_eval))
        metrics = read_manifest(out, "rqvae").metrics
        assert metrics["items"] == (36 if do_eval else 48)
        assert ("held_out_mse" in metrics) is do_eval


def test_held_out_items_of_a_folder_with_interactions_are_trained_on_with_a_notice(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(world, folder := tmp_path / "both", ignore=shutil.ignore_patterns("processed"))
    np.save(folder / "is_train.npy", np.arange(N_ITEMS) % 4 > 0)
    out = run("rqvae", rqvae_settings(folder, tmp_path / "out", do_eval=True))
    assert read_manifest(out, "rqvae").metrics["items"] == N_ITEMS
    assert f"{folder / 'is_train.npy'} has no effect" in capsys.readouterr().err.replace("\n", "")


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


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rqvae", "decoder"])
def test_a_compiled_model_learns_the_same(
    command: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by torch.compile, with a backend that needs no C++ compiler and counts its calls."""
    calls: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        return lambda *arguments: calls.append(1) or graph(*arguments)

    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda model, **options: compiler(model, backend=backend, **options)
    )
    settings = rqvae_settings if command == "rqvae" else decoder_settings
    histories = []
    for torch_compile in (False, True):
        root = tmp_path / f"{torch_compile}"
        more = {"amp": False, "log_every": 1, "torch_compile": torch_compile}
        histories.append(History.read(run(command, settings(world, root, **more))))
        assert bool(calls) is torch_compile
    assert len(calls) >= 12  # every step runs compiled code
    for plain, compiled in zip(*(history.training for history in histories), strict=True):
        assert compiled == pytest.approx(plain, rel=1e-4)


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
