"""A run that is killed and resumed ends like one that was never interrupted."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rqrec.core import artifact
from rqrec.core.artifact import read_manifest
from rqrec.training import checkpoint, tracking
from rqrec.training.checkpoint import CheckpointManager, TrainingState
from rqrec.training.loop import fit
from rqrec.training.loop_config import LoopConfig
from rqrec.training.processes import Processes
from rqrec.training.run_progress import RunProgress
from rqrec.training.tracking import History
from tests.training.killed import DECODER, TOKENIZER
from tests.training.toy import Line, manager

ROOT = Path(__file__).resolve().parents[2]


def killed(*arguments: object) -> str:
    command = [sys.executable, "-m", "tests.training.killed", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def uninterrupted(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run without kills, and its duration in seconds."""
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    shutil.copytree(tiny_run, run)
    return run, float(killed(run, 0, 0))


@pytest.mark.parametrize(
    ("kills", "seed"), [(1, 0), pytest.param(20, 1, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_a_run_killed_at_random_moments_ends_bit_identical(
    kills: int, seed: int, uninterrupted: tuple[Path, float], tiny_run: Path, tmp_path: Path
) -> None:
    reference, seconds = uninterrupted
    shutil.copytree(tiny_run, tmp_path / "run")
    assert int(killed(tmp_path / "run", kills, seed, seconds / 4)) >= min(kills, 2)
    for root, kind in ((TOKENIZER, "rqvae"), (DECODER, "retrieval")):
        one = read_manifest(reference / root / kind)
        other = read_manifest(tmp_path / "run" / root / kind)
        assert one.files == other.files  # weights and metrics.jsonl among them
        name = f"{root}/logs/metrics.jsonl"
        assert (reference / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


SETTINGS = LoopConfig(iterations=12, learning_rate=0.1, log_every=1)


class Stopping(Line):
    """Raises an error, or receives a Ctrl-C, in a step."""

    def __init__(self, at: int | None, error: type[BaseException] | None = None) -> None:
        torch.manual_seed(0)
        super().__init__()
        self.at, self.error = at, error

    def loss(
        self, model: nn.Module, batch: Tensor, progress: RunProgress
    ) -> tuple[Tensor, Mapping[str, float]]:
        if progress.step == self.at and self.error:
            raise self.error("a failure")
        if progress.step == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().loss(model, batch, progress)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoints_rotate_and_the_newest_is_resumed(tmp_path: Path) -> None:
    checkpoints = manager(tmp_path, save_model_every=2, keep_last=2)
    with pytest.raises(RuntimeError):
        fit(Stopping(9, RuntimeError), SETTINGS, "line", checkpoints)
    assert names(checkpoints.folder) == ["step-000000006", "step-000000008"]
    again = Stopping(None)
    history = fit(again, SETTINGS, "line", checkpoints)
    assert again.steps == [8, 9, 10, 11]
    assert [record["step"] for record in history.training] == list(range(1, 13))
    assert History.read(checkpoints.logs) == history
    uninterrupted_task = Stopping(None)
    assert fit(uninterrupted_task, SETTINGS, "line") == history
    assert torch.equal(uninterrupted_task.model.weight, again.model.weight)


@pytest.fixture
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
def test_another_number_of_threads_is_reported_on_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path, save_model_every=2)
    torch.set_num_threads(1)
    for stop in (5, 9):
        with pytest.raises(RuntimeError):
            fit(Stopping(stop, RuntimeError), SETTINGS, "line", checkpoints)
        assert "different number" not in capsys.readouterr().err
    torch.set_num_threads(2)
    fit(Stopping(None), SETTINGS, "line", checkpoints)
    output = " ".join(capsys.readouterr().err.split())
    assert "resumes with a different number of threads (2, before 1): sums are rounded differently" in output
    assert "dropout" not in output


def test_another_number_of_processes_is_reported_on_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = manager(tmp_path, save_model_every=2)
    with monkeypatch.context() as patch:
        patch.setattr(Processes, "numbers", {"processes": 2, "threads": torch.get_num_threads()})
        with pytest.raises(RuntimeError):
            fit(Stopping(5, RuntimeError), SETTINGS, "line", checkpoints)
    fit(Stopping(None), SETTINGS, "line", checkpoints)
    output = " ".join(capsys.readouterr().err.split())
    assert "processes (1, before 2): sums are rounded differently, and each process draws its own" in output


def test_checkpoints_that_cannot_be_read_do_not_count_and_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path, save_model_every=2, keep_last=1)
    (later := checkpoints.folder / "step-000000099").mkdir(parents=True)
    (later / "manifest.json").write_text("{")
    with pytest.raises(RuntimeError):
        fit(Stopping(5, RuntimeError), SETTINGS, "line", checkpoints)
    assert "training starts from scratch" in capsys.readouterr().err
    assert names(checkpoints.folder) == ["step-000000004", "step-000000099"]
    again = Stopping(None)
    fit(again, SETTINGS, "line", checkpoints)
    assert again.steps[0] == 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="A process that uses a GPU cannot be forked.")
@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "metrics.jsonl"])
def test_a_run_killed_during_a_write_resumes_from_the_previous_checkpoint(file: str, tmp_path: Path) -> None:
    checkpoints = manager(tmp_path, save_model_every=2)
    if not (child := os.fork()):

        def killed_write(folder: Path, *arguments: object, **settings: object) -> object:
            """Writes the files of the checkpoint of step 6, but is killed at one of them."""
            if folder.name == file and "step-000000006" in str(folder):
                (folder.parent / f".{file}.half").write_bytes(b"half of it")
                os.kill(os.getpid(), signal.SIGKILL)
            return original(folder, *arguments, **settings)

        original = artifact.atomic_write
        for module in (artifact, checkpoint, tracking):
            module.atomic_write = killed_write  # type: ignore[assignment]
        try:
            fit(Stopping(None), SETTINGS, "line", checkpoints)
        finally:
            os._exit(0)  # not on with the tests
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    again, uninterrupted_task = Stopping(None), Stopping(None)
    history = fit(again, SETTINGS, "line", checkpoints)
    assert again.steps[0] == 4
    assert fit(uninterrupted_task, SETTINGS, "line") == history
    assert torch.equal(uninterrupted_task.model.weight, again.model.weight)


def test_resume_never_starts_from_scratch(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fit(Stopping(9, RuntimeError), SETTINGS, "line", manager(tmp_path, save_model_every=2))
    task = Stopping(None)
    fit(task, SETTINGS, "line", manager(tmp_path, save_model_every=0, resume="never"))
    assert task.steps == list(range(12))
    assert not (tmp_path / "checkpoints").exists()


def test_a_checkpoint_with_other_settings_or_inputs_is_refused_with_the_differences(tmp_path: Path) -> None:
    def checkpoints(rate: float, dataset: str) -> CheckpointManager:
        settings = {"training": {"learning_rate": rate}, "sizes": (1, 2)}
        return manager(tmp_path, save_model_every=2, settings=settings, inputs={"dataset": dataset})

    with pytest.raises(RuntimeError):
        fit(Stopping(3, RuntimeError), SETTINGS, "line", checkpoints(0.1, "a"))
    with pytest.raises(
        ValueError,
        match=r"dataset was 'a' and is 'b'; training.learning_rate was 0.1 and is 0.2.*train.resume='never'",
    ):
        fit(Stopping(None), SETTINGS, "line", checkpoints(0.2, "b"))
    fit(Stopping(None), SETTINGS, "line", checkpoints(0.1, "a"))


def test_ctrl_c_finishes_the_step_saves_and_reports_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path, save_model_every=0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        fit(Stopping(4), SETTINGS, "line", checkpoints)
    assert signal.getsignal(signal.SIGINT) is before
    assert names(checkpoints.folder) == ["step-000000005"]
    output = " ".join(capsys.readouterr().err.split())
    assert "step 5 is saved" in output
    assert "same command again to resume" in output
    again = Stopping(None)
    fit(again, SETTINGS, "line", checkpoints)
    assert again.steps[0] == 5


def test_a_checkpoint_that_is_not_finite_is_skipped_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path)
    for step, value in ((1, 0.5), (2, float("nan"))):
        tensors = {"weight": torch.tensor([value])}
        checkpoints.save(TrainingState(step, tensors, {}, History()))
    state = checkpoints.load()
    assert state is not None
    assert state.step == 1
    assert "the tensor weight has 1 NaN" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("tensors", "values", "problem"),
    [
        ({"model.weight": None}, {}, "lacks the tensors weight"),
        ({"optimizer.0.exp_avg": None}, {}, "lacks exp_avg of optimizer.0"),
        (
            {"optimizer.0.exp_avg": torch.zeros(7)},
            {},
            r"has optimizer.0.exp_avg of torch.float32 and shape \(7,\)",
        ),
        ({"optimizer.0.step": torch.tensor(3)}, {}, "has optimizer.0.step of torch.int64"),
        ({"optimizer.9.step": torch.tensor(3.0)}, {}, "has optimizer.9.step"),
        ({}, {"elapsed": "x"}, "has elapsed = 'x'"),
        ({}, {"precision": None}, "has precision = None"),
        ({}, {"threads": float("nan")}, "has threads = nan"),
        ({}, {"scaler": []}, r"has scaler = \[\]"),
    ],
)
def test_a_state_of_another_run_is_refused(
    tmp_path: Path, tensors: dict[str, Tensor | None], values: dict[str, Any], problem: str
) -> None:
    checkpoints = manager(tmp_path, save_model_every=2)
    with pytest.raises(RuntimeError):
        fit(Stopping(3, RuntimeError), SETTINGS, "line", checkpoints)
    state = checkpoints.load()
    assert state is not None
    changed = {name: one for name, one in {**state.tensors, **tensors}.items() if one is not None}
    checkpoints.clear()
    checkpoints.save(state._replace(tensors=changed, values={**state.values, **values}))
    with pytest.raises(ValueError, match=rf"The checkpoint of step 2 {problem}"):
        fit(Stopping(None), SETTINGS, "line", checkpoints)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", "[1]"),
        ("state.json", "{}"),
        ("state.json", '{"step": -5}'),
        ("metrics.jsonl", '{"a"'),
        ("metrics.jsonl", '{"split": "read", "step": 1}'),
        ("metrics.jsonl", "[]"),
        ("metrics.jsonl", '{"split": "training", "step": 1}'),
        ("metrics.jsonl", '{"split": "training", "step": 1, "loss": "2"}'),
        ("metrics.jsonl", '{"split": "training", "step": 1e999, "loss": 2}'),
        ("metrics.jsonl", '{"split": "validation", "step": 1, "loss": 2}'),
    ],
)
def test_values_that_are_no_state_are_skipped_by_name(
    tmp_path: Path, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path)
    with artifact.create(
        checkpoints.folder / "step-000000001", "checkpoint", settings=checkpoints.settings
    ) as target:
        save_file({"a": torch.zeros(1)}, target / "state.safetensors")
        (target / "state.json").write_text('{"step": 1}')
        (target / "metrics.jsonl").write_text("")
        (target / name).write_text(content)
    assert checkpoints.load("ndcg@10") is None
    assert f"step-000000001/{name}" in capsys.readouterr().err.replace("\n", "")


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = manager(tmp_path, save_model_every=2)
    with pytest.raises(RuntimeError):
        fit(Stopping(9, RuntimeError), SETTINGS, "line", checkpoints)
    (checkpoints.folder / "step-000000008" / "state.json").write_text("{}")
    (
        checkpoints.folder / ".step-000000010.7.rqrec-partial"
    ).mkdir()  # left by a run that was killed during a write
    task = Stopping(None)
    fit(task, SETTINGS, "line", checkpoints)
    assert task.steps[0] == 6
    assert "step-000000008" in capsys.readouterr().err
    assert ".step-000000010.7.rqrec-partial" not in names(checkpoints.folder)


def test_a_full_disk_names_the_path_and_leaves_the_last_checkpoint_intact(small_disk: Path) -> None:
    checkpoints = manager(small_disk)
    checkpoints.save(TrainingState(1, {"model.w": torch.zeros(20_000)}, {"elapsed": 1.0}, History()))
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoints.save(TrainingState(2, {"model.w": torch.zeros(40_000)}, {}, History()))
    assert caught.value.filename == str(checkpoints.folder / "step-000000002")
    state = checkpoints.load()
    assert state
    assert (state.step, state.values) == (1, {"elapsed": 1.0})
    assert names(checkpoints.folder) == ["step-000000001"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"resume": "yes"}, "'yes'.*'auto'"),
        ({"keep_last": 0}, "keep_last is 0"),
        ({"save_model_every": -1}, "-1"),
    ],
)
def test_invalid_checkpoint_settings_are_refused(values: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        manager(tmp_path, **values)


def test_two_trainings_do_not_share_a_folder(tmp_path: Path) -> None:
    checkpoints = manager(tmp_path)
    with (
        checkpoints.locked(),
        pytest.raises(ValueError, match=r"Another training is running in .*save_dir_root"),
    ):
        fit(Stopping(None), SETTINGS, "line", checkpoints)
    fit(Stopping(None), SETTINGS, "line", checkpoints)  # the lock is gone with who held it
