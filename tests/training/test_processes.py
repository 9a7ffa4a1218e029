"""Several processes train the same model as one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rqrec.core.artifact import read_manifest
from rqrec.training.processes import Processes
from rqrec.training.tracking import History
from tests.stages.world import bindings, decoder_settings, rqvae_settings, run, write_world
from tests.training.pair import train

ROOT = Path(__file__).resolve().parents[2]


def test_rows_are_distributed_round_robin() -> None:
    batch = (torch.arange(5), torch.arange(10).view(5, 2))
    first, second = (Processes(rank, 2, torch.device("cpu")).share(batch) for rank in (0, 1))
    assert first[0].tolist() == [0, 2, 4]
    assert second[1].tolist() == [[2, 3], [6, 7]]
    assert Processes(1, 2, torch.device("cpu")).share(torch.ones(1, 3)) is None
    assert Processes(0, 1, torch.device("cpu")).share(batch) is batch


def test_split_batches_makes_the_batch_size_global() -> None:
    four = Processes(0, 4, torch.device("cpu"))
    assert four.global_batch_size(64, split_batches=True) == 64
    assert four.global_batch_size(64, split_batches=False) == 256


def runs_of(world: Path, root: Path, processes: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """One run of every model, by name: the command and its settings."""
    more = {"iterations": 3, "log_every": 1, "learning_rate": 1e-2, "warmup": 0, "amp": False}
    sizes = {"attn_embed_dim": 16, "attn_heads": 2, "attn_layers": 1, "attn_dropout": 0.0}
    averages = {"vae_codebook_mode": "STE", "vae_codebook_ema_decay": 0.5, "gradient_accumulate_every": 2}
    each = {"batch_size": 16 // processes, "split_batches": False}
    decoder = {
        "decoder_only": {"gradient_accumulate_every": 2},
        "encoder_decoder": {"model_ema_decay": 0.5},
        "hierarchical": each,
    }
    sasrec = {"dataset": "custom", "dataset_folder": str(world), "max_items": 5, "batch_size": 16}
    return {
        "rqvae": ("rqvae", rqvae_settings(world, root / "rqvae", reset_dead_codes_every=2, **more, **each)),
        "averages": ("rqvae", rqvae_settings(world, root / "averages", **averages, **more)),
        # The second process has no row.
        "single rows": (
            "rqvae",
            rqvae_settings(world, root / "single rows", **averages, **more, batch_size=1),
        ),
        "sasrec": ("sasrec", sasrec | sizes | more | {"save_dir_root": str(root / "sasrec")}),
        **{
            name: ("decoder", decoder_settings(world, root / name, architecture=name, **more, **options))
            for name, options in decoder.items()
        },
    }


def test_every_model_is_the_same_trained_by_two_processes_as_by_one(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    alone, together = (runs_of(world, tmp_path / str(count), count) for count in (1, 2))
    for run_alone in alone.values():
        train(*run_alone)
    command = [sys.executable, "-m", "tests.training.pair", str(tmp_path), json.dumps([*together.values()])]
    pair = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ.copy()
    )
    try:
        _, errors = pair.communicate(timeout=240)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pair.pid, signal.SIGKILL)
    assert pair.returncode == 0, errors
    for name, (kind, settings) in together.items():
        folder = "retrieval" if kind == "decoder" else kind
        one, two = Path(alone[name][1]["save_dir_root"]) / folder, Path(settings["save_dir_root"]) / folder
        made = read_manifest(two)
        assert made.metrics["processes"] == 2
        assert made.settings == read_manifest(one).settings
        histories = History.read(one), History.read(two)
        assert len(histories[1].training) == 3
        records, others = ([*history.training, *history.validation] for history in histories)
        for a, b in zip(records, others, strict=True):
            assert b == pytest.approx(a, rel=2e-4, abs=1e-4), name


def launch(script: str, settings: dict, *flags: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *flags]
    launcher += ["--num_machines", "1", "--main_process_port", str(port)]
    options = [part for binding in bindings(settings) for part in ("--gin", binding)]
    (config := Path(settings["save_dir_root"]).parent / "empty.gin").write_text("")
    return subprocess.run(
        [*launcher, str(ROOT / script), str(config), *options, "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@contextmanager
def artefact_blocked(root: Path) -> Iterator[Path]:
    """Once training has saved a checkpoint, put a file in the way of the artefact: the run fails at its end."""
    blocked = root / "retrieval"

    def block() -> None:
        while not any(root.glob("checkpoints/step-*")):
            time.sleep(0.005)
        blocked.mkdir()
        (blocked / "somebody's").write_text("work")

    thread = Thread(target=block, daemon=True)
    thread.start()
    yield blocked
    thread.join(10)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stage", ["rqvae", "decoder"])
@pytest.mark.parametrize("split_batches", [True, False])
def test_two_processes_train_the_same_model_as_one(stage: str, split_batches: bool, tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    make = rqvae_settings if stage == "rqvae" else decoder_settings
    more = {"iterations": 50, "gradient_accumulate_every": 1 if split_batches else 2, "learning_rate": 5e-3}
    more["amp"] = False
    name = "rqvae" if stage == "rqvae" else "retrieval"
    alone = run(stage, make(world, tmp_path / "one", batch_size=16, **more))
    each = 16 if split_batches else 8
    settings = make(world, tmp_path / "two", batch_size=each, split_batches=split_batches, **more)
    done = launch(f"train_{stage}.py", settings, "--multi_gpu")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["processes"] == 2  # printed once
    one, two = History.read(alone), History.read(tmp_path / "two" / name)
    assert [record["step"] for record in two.training] == [1, 21, 41, 50]
    for a, b in zip(one.training + one.validation, two.training + two.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-4)
    for tensor, other in zip(
        load_file(alone / "model.safetensors").values(),
        load_file(tmp_path / "two" / name / "model.safetensors").values(),
        strict=True,
    ):
        assert torch.allclose(tensor.float(), other.float(), atol=2e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_save_one_checkpoint_and_one_process_resumes_it(tmp_path: Path) -> None:
    """With batches of at most 3 windows, so that a process may get no window."""
    world = write_world(tmp_path / "world")
    more = {"iterations": 30, "batch_size": 3, "full_eval_every": 10, "amp": False}
    settings = decoder_settings(world, tmp_path / "two", save_model_every=10, keep_last=1, **more)
    with artefact_blocked(tmp_path / "two") as blocked:
        done = launch("train_decoder.py", settings, "--multi_gpu")
    assert done.returncode != 0
    assert "was not touched" in done.stderr
    assert [path.name for path in (tmp_path / "two" / "checkpoints").iterdir()] == ["step-000000020"]
    shutil.rmtree(blocked)
    two = History.read(run("decoder", settings))
    one = History.read(run("decoder", decoder_settings(world, tmp_path / "one", **more)))
    assert [record["step"] for record in two.validation] == [10, 20, 30]
    for a, b in zip(one.training + one.validation, two.training + two.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_a_launch_that_starts_one_process_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = rqvae_settings(write_world(tmp_path / "world"), tmp_path / "one", iterations=1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # with two GPUs it starts two
    done = launch("train_rqvae.py", settings)
    assert json.loads(done.stdout)["processes"] == 1
    assert "asked for 2 processes but started one" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_with_a_sharded_model_train_the_same_model(tmp_path: Path) -> None:
    """With the launcher's configuration file; fails at a blocked artefact and resumes from unsharded checkpoints."""
    world = write_world(tmp_path / "world")
    more = {
        "iterations": 50,
        "learning_rate": 5e-3,
        "model_ema_decay": 0.9,
        "full_eval_every": 25,
        "amp": False,
    }
    alone = run("decoder", decoder_settings(world, tmp_path / "one", **more))
    settings = decoder_settings(world, tmp_path / "two", save_model_every=20, **more)
    flags = ("--config_file", str(ROOT / "configs" / "accelerate" / "fsdp.yaml"))
    with artefact_blocked(tmp_path / "two") as blocked:
        done = launch("train_decoder.py", settings, *flags)
    assert "was not touched" in done.stderr
    shutil.rmtree(blocked)
    done = launch("train_decoder.py", settings, *flags)
    assert done.returncode == 0, done.stderr
    assert "from step 40" in done.stderr
    one, two = History.read(alone), History.read(tmp_path / "two" / "retrieval")
    for a, b in zip(one.training + one.validation, two.training + two.validation, strict=True):
        assert b == pytest.approx(a, rel=1e-4, abs=1e-4)
    weights = (load_file(path / "model.safetensors") for path in (alone, tmp_path / "two" / "retrieval"))
    for tensor, other in zip(*(found.values() for found in weights), strict=True):
        assert torch.allclose(tensor, other, atol=2e-3)
