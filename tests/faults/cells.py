"""What faults do to commands: each fault is tried on each command, and what came of it is one cell of a table.

    python -m tests.faults.cells --write             runs all of them, and writes the table into docs/reliability.md
    python -m tests.faults.cells killed              prints the cells of one fault as JSON
    python -m tests.faults.cells --write quickstart  writes the cells of one command

The process loads the packages once and forks each command, so it must not use polars or several threads itself.
"""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import numpy as np

os.environ["OMP_NUM_THREADS"] = "1"

import rqrec.evaluation.evaluation_report
import rqrec.experiments.demo
import rqrec.experiments.quickstart
import rqrec.serving.exports
import rqrec.serving.recommender
import rqrec.stages.inspect_ids
import rqrec.stages.join
import rqrec.stages.train_rqvae  # noqa: F401  (loaded before the commands are forked)
from rqrec.cli import app
from rqrec.core.address_space import NEEDED
from rqrec.core.artifact import MANIFEST, file_hash, read_manifest
from rqrec.core.lock import is_lock
from rqrec.retrieval.versions import live_hash
from tests.faults.changes import count_changes, signal_at_change
from tests.stages.world import write_world

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
START, END = "<!-- table -->\n", "<!-- end of the table -->\n"
# When a command is killed, as a part of the time that it takes, and of its changes of files.
MOMENTS = (0.35, 0.6, 0.85)
KILL = (signal.SIGKILL, -9)  # with the exit statuses that follow
TERMINATE = (signal.SIGTERM, 143, -15)  # -15: before the command began
TAKES = "takes.json"  # how many seconds and changes of files each command takes
HELD = 20  # seconds at most that a command is held beside a second one
DISK = "64m"  # size of a disk that every output fits on
# Commands that change a model: the command whose result they begin with.
CHANGED = {
    "items add": "join",
    "items remove": "join",
    "items update": "join",
    "items rollback": "items add",
}
# What commands say when they find that their change has been made.
DONE = {"items add": "is in the catalogue already", "items remove": "was removed from the catalogue already"}
# Commands of which one refuses to run beside another in the same folder, and what it says.
REFUSES_A_SECOND = {
    *(
        "train-rqvae",
        "train-decoder",
        "train-sasrec",
        "batch-recommend",
        "quickstart",
        "reproduce",
        "compare",
    ),
    *DONE,
}
# Commands that train for a time, so that their models differ from run to run.
TIMED = ("quickstart", "reproduce")
SECOND = (
    *(f"Another {one} is running" for one in ("command", "training", "batch-recommend")),
    *DONE.values(),
)


def gin(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("--gin", f"train.{name}={value!r}")]


TRAINING = {
    "iterations": 30,
    "warmup": 2,
    "batch_size": 16,
    "full_eval_every": 10,
    "save_model_every": 4,
    "mixed_precision_type": "no",  # else the faster one, which depends on the load
}
SIZES = {"max_items": 5, "attn_heads": 2, "attn_embed_dim": 16, "attn_layers": 1}
RQVAE = {"vae_hidden_dims": [16], "vae_embed_dim": 8, "vae_codebook_size": 8, "vae_n_layers": 2}
COMPARISON = {
    "dataset": "custom",
    "semantic_ids": ["random"],
    "seeds": [0],
    "baselines": ["popularity"],
    "jobs": 1,
    "parameters": 20_000,
    "teraflops": 0.0002,
    "max_items": 5,
    "attn_heads": 1,
    "attn_layers": {"decoder_only": 2, "encoder_decoder": 1, "hierarchical": 1},
    "batch_size": 16,
    "validations": 1,
    "validation_users": 60,
    "vae_codebook_size": 8,
    "vae_n_layers": 2,
}


def preparations(base: Path) -> dict[str, list[list[object]]]:
    """By command, others that make what it reads, and that `commands` does not have."""
    warm = {"dataset": "custom", "dataset_folder": str(base / "hold-out-items/warm")}
    rqvae = gin(**TRAINING, **warm, **RQVAE, do_eval=False, save_dir_root=str(base / "warm rqvae"))
    decoder = gin(
        **{**TRAINING, **warm, **SIZES, "decoder_embed_dim": 16},
        pretrained_rqvae_path=str(base / "warm rqvae"),
        save_dir_root=str(base / "warm decoder"),
    )
    vectors = base / "raw/item_embeddings.npy"
    return {
        "hold-out-items": [
            ["embed", base / "prepare", "--embeddings", vectors, "--out", base / "content"],
        ],
        "evaluate-cold": [["train-rqvae", *rqvae], ["train-decoder", *decoder]],
    }


def commands(base: Path, out: Path) -> dict[str, list[object]]:
    """The arguments of each command, which reads artefacts in `base` and writes into `out`."""
    log, vectors = base / "raw/log.parquet", base / "raw/item_embeddings.npy"
    dataset, embeddings = ["--dataset", base / "prepare"], ["--embeddings", base / "embed"]
    log_and_vectors = [log, "--embeddings", vectors]
    content = ["--embeddings", base / "content"]
    root = gin(**TRAINING, save_dir_root=str(out))
    retrieval = ["--artifact", base / "join"]
    new = base / "raw/new.csv"
    return {
        "prepare": ["prepare", "custom", "--interactions", log, "--embeddings", vectors, "--out", out],
        "embed": ["embed", base / "prepare", "--embeddings", vectors, "--collaborative", 4, "--out", out],
        "fit-rqkmeans": ["fit-rqkmeans", base / "embed", "--codebook-size", 8, "--levels", 2, "--out", out],
        "train-rqvae": ["train-rqvae", *embeddings, *root, *gin(**RQVAE, do_eval=False)],
        "tokenize": ["tokenize", base / "fit-rqkmeans", base / "embed", *dataset, "--out", out],
        "train-decoder": [
            *("train-decoder", *dataset, "--semantic-ids", base / "tokenize", *root),
            *gin(**SIZES, decoder_embed_dim=16),
        ],
        "train-sasrec": ["train-sasrec", *dataset, *root, *gin(attn_embed_dim=16, max_items=5)],
        "join": [
            *("join", base / "train-decoder", base / "train-sasrec", *dataset, *embeddings, "--out", out),
        ],
        "evaluate": ["evaluate", *retrieval, *dataset, "--out", out],
        "inspect-ids": ["inspect-ids", base / "tokenize", "--dataset", base / "prepare", "--out", out],
        "batch-recommend": [
            *("batch-recommend", *retrieval, "--input", log, "--out", out, "--unknown", "skip"),
            *("--processes", 1),
        ],
        "hold-out-items": ["hold-out-items", *dataset, *content, "--share", 0.1, "--out", out],
        "evaluate-cold": [
            *("evaluate-cold", base / "hold-out-items", *dataset, *content),
            *("--artifact", base / "warm decoder", "--out", out),
        ],
        "run-rqvae": [
            "run-rqvae",
            *("--gin", f"train.dataset_folder={str(base / 'raw')!r}"),
            *("--gin", f"generate_semantic_ids.pretrained_model_path={str(base / 'warm rqvae')!r}"),
            *("--gin", f"generate_semantic_ids.output_path={str(out / 'ids.npy')!r}"),
        ],
        "pull": ["pull", "owner/model", out],
        "export": ["export", base / "join", "--out", out / "items.npy"],
        "items add": ["items", "add", out, "--items", new, "--embeddings", base / "raw/new.npy"],
        "items remove": ["items", "remove", out, 3, 4],
        "items update": ["items", "update", out, "--items", base / "raw/changed.csv"],
        "items rollback": ["items", "rollback", out, 0],
        "quickstart": [
            *("quickstart", *log_and_vectors, "--minutes", 0.05, "--jobs", 1, "--no-serve", "--out", out),
        ],
        "reproduce": [
            *("reproduce", "custom", "--interactions", *log_and_vectors, "--max-minutes", 0.05, "--jobs", 1),
            *("--out", out),
        ],
        "compare": [
            "compare",
            *(
                f"--gin=compare.{name}={value!r}"
                for name, value in {
                    **COMPARISON,
                    "dataset_folder": str(base / "raw"),
                    "save_dir_root": str(out),
                }.items()
            ),
        ],
    }


def write_changes(folder: Path) -> None:
    """New items with their embeddings, and changes of old ones."""
    (folder / "new.csv").write_text("item_id,title\nnew 1,First\nnew 2,Second\n")
    np.save(folder / "new.npy", np.load(folder / "item_embeddings.npy")[[0, 20]] + 0.1)
    (folder / "changed.csv").write_text("item_id,title\n3,Another title\n")


def begin(name: str, base: Path, out: Path) -> None:
    """Copy the model that a command changes."""
    if name in CHANGED:
        shutil.copytree(base / CHANGED[name], out)


def start(arguments: list[object], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Fork a command, whose output goes to `log`; returns its process id."""
    if pid := os.fork():
        return pid
    status = 70
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        prepare()
        app([*map(str, arguments)])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def end(pid: int) -> int:
    """The exit status of a process; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Cell:
    """One command under one fault."""

    def __init__(self, name: str, base: Path, folder: Path) -> None:
        self.name, self.base, self.folder = name, base, folder
        self.log = folder / "log.txt"
        self.place(folder / "out")

    def place(self, out: Path) -> None:
        """Let the command write into `out`, which holds what it begins with."""
        self.out = out
        begin(self.name, self.base, out)

    @property
    def arguments(self) -> list[object]:
        return commands(self.base, self.out)[self.name]

    def run(self, prepare: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Run the command; its exit status and output."""
        status = end(start(self.arguments, self.log, prepare))
        return status, self.log.read_text(errors="replace")

    def start(self, log: str = "log.txt", prepare: Callable[[], None] = lambda: None) -> int:
        return start(self.arguments, self.folder / log, prepare)

    def same_result(self, prepare: Callable[[], None] = lambda: None) -> str:
        """Run the command again, undisturbed: it must end with the result of an undisturbed run."""
        status, text = self.run(prepare)
        if status and self.name in DONE:
            sentence(status, text, DONE[self.name])
        else:
            assert status == 0, text
        assert result_of(self.name, self.out) == result_of(self.name, self.base / self.name), "another result"
        left = [
            path for path in self.out.parent.rglob(".*") if not is_lock(path.name) and path.suffix != ".tmp"
        ]
        assert not left, left
        if self.name in TIMED:
            return "the same command goes on, to a model"
        return f"the same command gives the same result{', or finds it' if self.name in DONE else ''}"


def result_of(name: str, folder: Path) -> object:
    """The hashes of the artefacts in a folder, or of its files if there are none.

    Of a changed model that of its current version; of a command whose models depend on the time, the artefacts.
    """
    if name in CHANGED:
        return live_hash(folder)
    # What training prepares inside held-out data is none of the command that held it out.
    manifests = [own] if (own := folder / MANIFEST).is_file() else sorted(folder.rglob(MANIFEST))
    if not manifests:
        files = (path for path in folder.rglob("[!.]*") if path.is_file())
        return {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    hashes = {
        path.parent.relative_to(folder).as_posix(): read_manifest(path.parent, verify=True).hash
        for path in manifests
        if "checkpoints" not in path.parts
    }
    if name == "compare":  # its evaluations say how long they took
        hashes = {key: "" if key.endswith("evaluation") else found for key, found in hashes.items()}
    return sorted(hashes) if name in TIMED else hashes


def sentence(status: int, text: str, *expected: str) -> None:
    """The command was refused in a sentence."""
    assert status == 1, (status, text)
    assert "Traceback" not in text, text
    assert "panicked" not in text, text
    assert any(part in text for part in expected), text


def stop(cell: Cell, number: signal.Signals, *statuses: int) -> None:
    """Stop the command at several moments, in the same folder; it ends before, or with one of these exit statuses."""
    takes = json.loads((cell.base / TAKES).read_text())[cell.name]
    for moment in MOMENTS:
        pid = cell.start()
        time.sleep(moment * takes["seconds"])
        os.kill(pid, number)
        check_stopped(cell, end(pid), *statuses)
    for moment in MOMENTS:
        stop_at_change(cell, round(moment * takes["changes"]), number, *statuses)


def stop_at_change(cell: Cell, change: int, number: signal.Signals, *statuses: int) -> None:
    """Stop the command before it changes a file for this time; it ends before, or with one of these statuses."""
    pid = cell.start(prepare=lambda: signal_at_change(cell.out.parent, change, number))
    check_stopped(cell, end(pid), *statuses)


def check_stopped(cell: Cell, status: int, *statuses: int) -> None:
    text = cell.log.read_text()
    if status == 1 and cell.name in DONE:  # the one before was stopped when its change was made
        sentence(status, text, DONE[cell.name])
    else:
        assert status in (0, *statuses), (status, text)
        assert "Traceback" not in text, text


def killed(cell: Cell) -> str:
    stop(cell, *KILL)
    return f"stops; {cell.same_result()}"


def terminated(cell: Cell) -> str:
    stop(cell, *TERMINATE)
    return f"status 143; {cell.same_result()}"


@contextmanager
def disk(cell: Cell) -> Iterator[Path]:
    """A small file system, on which the command writes."""
    folder = cell.folder / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)], check=True)
    try:
        cell.place(folder / "out")
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_disk(cell: Cell) -> str:
    with disk(cell) as folder:
        found = os.statvfs(folder)
        (folder / "ballast").write_bytes(bytes(found.f_bavail * found.f_frsize))
        sentence(*cell.run(), "No space left on device")
        (folder / "ballast").unlink()
        return f"status 1 and a sentence; with more space, {cell.same_result()}"


def read_only(cell: Cell) -> str:
    with disk(cell) as folder:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        sentence(*cell.run(), "Read-only file system")
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        return f"status 1 and a sentence; once writable, {cell.same_result()}"


def limit_memory(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def small_memory(cell: Cell) -> str:
    sentence(*cell.run(lambda: limit_memory(NEEDED - 1)), f"ulimit -v {NEEDED >> 10}")
    how = cell.same_result(lambda: limit_memory(NEEDED))
    return f"status 1 and a sentence with what is needed; with that, {how}"


def two_at_once(cell: Cell) -> str:
    first, second = cell.start("log.txt"), cell.start("second.txt")
    return check_both(cell, {"log.txt": end(first), "second.txt": end(second)})


def second_at_change(cell: Cell, change: int) -> str:
    """Start the command a second time while the first one is held before a change of a file."""
    held = cell.start(prepare=lambda: signal_at_change(cell.out.parent, change, signal.SIGSTOP))
    _, first = os.waitpid(held, os.WUNTRACED)
    second, until = cell.start("second.txt"), time.monotonic() + HELD
    while (ended := os.waitpid(second, os.WNOHANG)) == (0, 0) and time.monotonic() < until:
        time.sleep(0.05)  # it may wait for the first
    if os.WIFSTOPPED(first):
        os.kill(held, signal.SIGCONT)
        _, first = os.waitpid(held, 0)
    _, last = ended if ended[0] else os.waitpid(second, 0)
    statuses = {"log.txt": first, "second.txt": last}
    return check_both(cell, {log: os.waitstatus_to_exitcode(status) for log, status in statuses.items()})


def check_both(cell: Cell, statuses: dict[str, int]) -> str:
    """Of two runs with these exit statuses, by log, one succeeded, or both if the command refuses no second one."""
    for log, status in statuses.items():
        text = (cell.folder / log).read_text()
        if status:
            sentence(status, text, *SECOND)
    assert 0 in statuses.values(), statuses
    may_refuse = cell.name in REFUSES_A_SECOND
    assert may_refuse or not any(statuses.values()), statuses
    how = "one is refused in a sentence, or finds the result" if may_refuse else "both succeed"
    return f"{how}; {cell.same_result()}"


FAULTS: dict[str, tuple[str, Callable[[Cell], str]]] = {
    "killed": ("SIGKILL", killed),
    "terminated": ("SIGTERM", terminated),
    "full_disk": ("full disk", full_disk),
    "read_only": ("read-only disk", read_only),
    "small_memory": ("small memory", small_memory),
    "two_at_once": ("the same command twice at once", two_at_once),
}
NEED_A_DISK = ("full_disk", "read_only")  # of their own, which only root may mount


def write_base(base: Path) -> None:
    """What the commands read, made by the commands themselves, and how long each takes."""
    if not (pid := os.fork()):
        write_world(base / "raw")
        write_changes(base / "raw")
        os._exit(0)
    assert end(pid) == 0
    huggingface_hub.snapshot_download = lambda *_, **__: str(base / "join")
    takes, tally = {}, base / "changes"
    for name in commands(base, base):
        for arguments in preparations(base).get(name, []):
            succeed(arguments, base / "log.txt")
        begin(name, base, base / name)
        tally.unlink(missing_ok=True)
        begun = time.monotonic()
        succeed(commands(base, base / name)[name], base / "log.txt", lambda: count_changes(base, tally))
        takes[name] = {"seconds": time.monotonic() - begun, "changes": tally.stat().st_size}
    (base / TAKES).write_text(json.dumps(takes))


def succeed(arguments: list[object], log: Path, prepare: Callable[[], None] = lambda: None) -> None:
    assert end(start(arguments, log, prepare)) == 0, (arguments, log.read_text())


def tried(name: str, base: Path, fault: Callable[[Cell], str]) -> str:
    """What this fault does to a command."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return fault(Cell(name, base, Path(folder)))
        except (AssertionError, ValueError, OSError) as error:
            return f"FAILED: {' '.join(str(error).split())[-1500:]}"


def documented() -> dict[str, dict[str, str]]:
    """The table of the page: by title of the fault, what it does to each command."""
    lines = PAGE.read_text().partition(START)[2].partition(END)[0].splitlines()
    titles, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        title: {row[0].strip("`"): row[column] for row in rows}
        for column, title in enumerate(titles)
        if column
    }


def write(columns: dict[str, dict[str, str]], names: list[str]) -> None:
    """Put these cells into the table of the page."""
    there = documented()
    titles = {title: there.get(title, {}) | columns.get(fault, {}) for fault, (title, _) in FAULTS.items()}
    rows = [["command", *titles], ["---"] * (1 + len(titles))]
    rows += [[f"`{name}`", *(cells.get(name, "") for cells in titles.values())] for name in names]
    text = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(before + START + text + END + rest.partition(END)[2])


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        names = list(commands(base, base))
        write_base(base)
        faults = [one for one in arguments if one in FAULTS] or list(FAULTS)
        chosen = [one for one in arguments if one in names] or names
        columns = {fault: {name: tried(name, base, FAULTS[fault][1]) for name in chosen} for fault in faults}
    if "--write" in arguments:
        write(columns, names)
    print(json.dumps(columns))


if __name__ == "__main__":
    main(sys.argv[1:])
