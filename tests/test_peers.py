"""Other packages beside ours: the data that they get, how their lists are judged, and the page."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest

from rqrec.data.dataset import Dataset
from rqrec.data.splits import leave_one_out

PEERS = Path(__file__).resolve().parents[1] / "benchmarks" / "peers"
MODULES = ("adapter", "page", "rows", "run", "split")


@pytest.fixture
def peers() -> Iterator[SimpleNamespace]:
    """The modules of benchmarks/peers, whose short names are free again afterwards."""
    with patch.object(sys, "path", [str(PEERS), *sys.path]), patch.dict(sys.modules):
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})


def test_a_peer_sees_histories_and_never_the_test_items(
    peers: SimpleNamespace, tiny_run: Path, tmp_path: Path
) -> None:
    peers.split.export(tiny_run, tmp_path)
    log, sequences = peers.adapter.Log(tmp_path), Dataset.read(tiny_run).sequences
    assert len(log) == len(sequences)
    for user in range(len(log)):
        *history, validation, _ = sequences.of_user(user).tolist()
        assert log.train(user) == history
        assert log.history(user) == [*history, validation]
    with np.load(tmp_path / "split.npz") as arrays:
        assert set(arrays) == {"items", "offsets", "validation", "n_items"}
    assert len(log.embeddings) == log.n_items


def test_histories_are_padded_on_the_right(peers: SimpleNamespace, tiny_run: Path, tmp_path: Path) -> None:
    peers.split.export(tiny_run, tmp_path)
    log = peers.adapter.Log(tmp_path)
    padded = log.padded(np.array([1, 0]), 50, -1)
    for row, user in zip(padded.tolist(), (1, 0), strict=True):
        history = log.history(user)
        assert row == history + [-1] * (50 - len(history))
    assert log.padded(np.array([0]), 2, -1).tolist() == [log.history(0)[-2:]]


def test_lists_are_judged_by_the_test_items(peers: SimpleNamespace, tiny_run: Path, tmp_path: Path) -> None:
    peers.split.export(tiny_run, tmp_path)
    log, test = peers.adapter.Log(tmp_path), leave_one_out(Dataset.read(tiny_run).sequences).test
    unseen = [user for user, target in enumerate(test.targets) if target not in log.history(user)]
    users = np.array(unseen[:2])
    lists = np.full((2, 10), -1)
    lists[0, 0] = test.targets[users[0]]  # a hit at the first place, and none
    assert peers.split.evaluate(tmp_path, users, lists) == {"recall@10": 0.5, "ndcg@10": 0.5}
    lists[1, :2] = log.history(users[1])[0], -1
    with pytest.raises(ValueError, match=f"user {users[1]} "):
        peers.split.evaluate(tmp_path, users, lists)
    lists[1, :2] = test.targets[users[1]]
    with pytest.raises(ValueError, match="repeats items"):
        peers.split.evaluate(tmp_path, users, lists)


def test_the_highest_scores_without_seen_items(
    peers: SimpleNamespace, tiny_run: Path, tmp_path: Path
) -> None:
    peers.split.export(tiny_run, tmp_path)
    log = peers.adapter.Log(tmp_path)
    scores = np.arange(log.n_items, dtype=np.float32)[None]
    (found,) = peers.adapter.without_seen(log, np.array([3]), scores.copy())
    unseen = [item for item in reversed(range(log.n_items)) if item not in log.history(3)]
    assert found.tolist() == unseen[: peers.adapter.K]


def results(folder: Path, **records: dict) -> Path:
    folder.mkdir()
    for key, record in records.items():
        (folder / f"{key.replace('__', '-')}.json").write_text(json.dumps(record))
    return folder


def test_the_page_says_first_where_a_peer_is_better(peers: SimpleNamespace, tmp_path: Path) -> None:
    ours = {
        "packages": {"rqrec": "9"},
        "recall@10": 0.06,
        "ndcg@10": 0.03,
        "peak_mib": 800,
        "evaluated_users": 99,
    }
    theirs = {**ours, "packages": {"recbole": "1.2.1"}, "recall@10": 0.03, "peak_mib": 400}
    folder = results(
        tmp_path / "results",
        ours_sasrec__5=ours,
        recbole_sasrec__5=theirs,
        vq_residual={"failed": "no wheel for this Python"},
        ours_rqvae={"packages": {"rqrec": "9"}, "collision_rate": 0.1},
        rechub_rqvae={"packages": {"torch-rechub": "0.9"}, "collision_rate": 0.05},
    )
    with patch.dict(peers.page.REASONS, {("recbole_sasrec", "peak_mib"): "fewer imports"}):
        peers.page.write_page(folder, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    behind, rest = text.split("## Where we are behind")[1].split("## Quality")
    assert "| recbole 1.2.1: SASRec, 5 minutes | peak MiB | 400 | 800 | 0.50 | fewer imports |" in behind
    assert (
        "| torch-rechub 0.9: RQ-VAE | collisions | 0.0500 | 0.1000 | 0.50 | not looked into yet |" in behind
    )
    assert "recall" not in behind  # ours is better
    assert "0.0300 (0.50)" in rest
    assert "| `vq_residual` | no wheel for this Python |" in rest
    assert text.index("## Where we are behind") < text.index("## Quality")


def test_what_is_measured_is_kept_and_what_failed_is_tried_again(
    peers: SimpleNamespace, tmp_path: Path
) -> None:
    def failing() -> dict:
        raise RuntimeError("no space left")

    file = tmp_path / "results" / "row.json"
    peers.run.measured("row", tmp_path, failing)
    assert json.loads(file.read_text()) == {"failed": "no space left"}
    peers.run.measured("row", tmp_path, lambda: {"recall@10": 0.5})
    peers.run.measured("row", tmp_path, failing)
    assert json.loads(file.read_text()) == {"recall@10": 0.5}


def test_every_row_has_its_script_requirements_and_counterpart(peers: SimpleNamespace) -> None:
    for row in peers.rows.ROWS.values():
        assert peers.page.code_lines(row.script) > 5
        if row.is_ours:
            continue
        assert peers.rows.ROWS[row.against].is_ours
        pinned = (PEERS / f"requirements-{row.package}.txt").read_text().splitlines()
        assert pinned
        assert all("==" in line for line in pinned)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_installs_a_peer_measures_it_and_writes_the_page(
    peers: SimpleNamespace, tiny_run: Path, tmp_path: Path
) -> None:
    try:
        peers.run.environment("implicit", tmp_path / "out")
    except RuntimeError as error:
        pytest.skip(f"implicit cannot be installed here: {error}")
    options = ["--peers", "rqrec", "implicit", "--minutes", "0.02", "--rows", "quality"]
    paths = ["--out", str(tmp_path / "out"), "--run", str(tiny_run), "--page", str(tmp_path / "page.md")]
    with patch.object(sys, "argv", ["run.py", *options, *paths]):
        peers.run.main()
    found = {
        file.stem: json.loads(file.read_text()) for file in (tmp_path / "out" / "results").glob("*.json")
    }
    assert set(found) == {"implicit_bm25-0.02", "ours_codes-0.02", "ours_sasrec-0.02", "ours_joined-0.02"}
    for record in found.values():
        assert "failed" not in record, record
        assert 0 <= record["recall@10"] <= 1
        assert record["users_per_second"] > 0
    page = (tmp_path / "page.md").read_text()
    assert f"implicit {found['implicit_bm25-0.02']['packages']['implicit']}" in page
