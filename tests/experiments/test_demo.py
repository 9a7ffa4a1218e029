"""The demo on real data, as a new user runs it, and the snippets of docs/start.md on its output."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import create
from rqrec.experiments.demo_report import EVALUATIONS, result_table

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 0.03  # of a metric, from the runs in docs/evaluation.md


def demo(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rqrec", "demo", "--json", *options]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1
    )


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo was interrupted while it trained the retrieval model."""
    folder = tmp_path_factory.mktemp("demo")
    process = demo(folder)
    deadline = time.monotonic() + 900
    while not (folder / "out/demo/semantic_ids/manifest.json").exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(process.communicate()[1])
        time.sleep(0.5)
    time.sleep(5)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 130, log
    assert "interrupted" in log
    assert "is saved in" in log
    assert "Traceback" not in log
    return folder


@pytest.fixture(scope="module")
def finished(interrupted: Path) -> tuple[Path, dict, str]:
    """The demo, resumed and finished: its folder, its JSON object and its log."""
    process = demo(interrupted)
    out, log = process.communicate(timeout=1500)
    assert process.returncode == 0, log
    return interrupted, json.loads(out), log


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_the_demo_resumes_and_beats_popularity(finished: tuple[Path, dict, str]) -> None:
    _, result, log = finished
    for stage in ("embeddings", "rqvae", "semantic_ids"):
        assert f"{stage}: found" in log
    assert "Training the retrieval model, from step" in log
    assert result["ndcg@10"] >= 1.5 * result["popularity"]["ndcg@10"] > 0
    assert result["recall@10"] > result["popularity"]["recall@10"]
    assert 0 <= result["collision_rate"] < 0.2
    assert len(result["codebook_usage"]) == 3
    assert min(result["codebook_usage"]) > 0.9
    assert len(result["recommendations"]) == 10
    assert set(result["recommendations"][0]) == {"item_id", "title", "semantic_id", "score"}
    stages = {"dataset", "embeddings", "tokenizer/rqvae", "semantic_ids", "retrieval"}
    stages |= {"evaluation", "evaluation_popularity"}
    assert set(result["seconds"]) == stages


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_the_report_needs_no_other_file(finished: tuple[Path, dict, str]) -> None:
    folder, result, _ = finished
    page = (folder / "out/demo/report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    # It links to the page that `rqrec serve` shows on this machine, and to nothing else.
    addresses = set(re.findall(r"https?://[^/\"\s]+", page))
    assert addresses == {"http://127.0.0.1:8000"}
    assert not re.search(r"""(?:src|@import|url\()\s*=?\s*["']?https?:""", page)
    assert result["recommendations"][0]["title"].split("&")[0] in page
    markdown = (folder / "out/demo/report.md").read_text()
    for figure in re.findall(r"!\[.*?\]\((.*?)\)", markdown):
        assert (folder / "out/demo" / figure).stat().st_size > 5000


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_a_second_run_reuses_everything_and_prints_the_same(finished: tuple[Path, dict, str]) -> None:
    folder, result, _ = finished
    process = demo(folder)
    out, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert log.count(": found in") == 7
    assert json.loads(out) == result


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_the_snippets_of_the_page_run(finished: tuple[Path, dict, str]) -> None:
    folder, _, _ = finished
    page = (ROOT / "docs/start.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert snippets
    for snippet in snippets:
        done = subprocess.run([sys.executable, "-c", snippet], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
    commands = re.findall(r"^rqrec recommend .*$", page, flags=re.M)
    assert commands
    for command in commands:
        arguments = [sys.executable, "-m", "rqrec", *command.split()[1:]]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def rows_of(markdown: str) -> dict[str, list[float]]:
    """The numbers of the demo's table by row, from docs/start.md or from `table.md`."""
    lines = markdown[markdown.index("| decoder-only, selected on validation") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: [float(number) for number in numbers] for name, *numbers in cells}


@pytest.mark.slow
@pytest.mark.timeout(2500)
def test_the_documented_table_is_what_the_demo_measured(finished: tuple[Path, dict, str]) -> None:
    measured = rows_of((finished[0] / "out/demo/table.md").read_text())
    for name, numbers in rows_of((ROOT / "docs/start.md").read_text()).items():
        # Popularity is counted: only a trained model differs between machines and seeds.
        tolerance = 1e-4 if name.startswith("popularity") else TOLERANCE
        assert measured[name] == pytest.approx(numbers, abs=tolerance), name


def test_the_page_has_the_rows_of_the_demos_table(tmp_path: Path) -> None:
    metrics = {"metrics": dict.fromkeys(("recall@5", "ndcg@5", "recall@10", "ndcg@10"), 0.25)}
    for name in EVALUATIONS:
        (tmp_path / name).mkdir()
        evaluation = {"seen_items": {"excluded": metrics, "allowed": metrics}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(evaluation))
    table = result_table(tmp_path)
    assert rows_of(table).keys() == rows_of(page := (ROOT / "docs/start.md").read_text()).keys()
    assert table.splitlines()[:2] == page[: page.index("| decoder-only, selected")].splitlines()[-2:]


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["demo", *map(str, arguments)])
    assert isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and an empty package index."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@pytest.mark.usefixtures("offline")
def test_offline_the_error_says_which_file_to_put_where(tmp_path: Path) -> None:
    status, log = run("--out", tmp_path / "out", "--data-dir", tmp_path / "data")
    assert status == 1
    assert "ml-100k.zip" in log
    assert str(tmp_path / "data") in log


@pytest.mark.usefixtures("offline")
def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    archive = tmp_path / "data" / "ml-100k" / "ml-100k.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"PK\x03\x04 and then the line broke")
    status, log = run("--out", tmp_path / "out", "--data-dir", tmp_path / "data")
    assert status == 1
    assert str(archive) in log
    assert "elete it" in log


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    status, log = run("--out", "/proc/nowhere", "--data-dir", "/proc/nowhere")
    assert status == 1
    assert "/proc/nowhere" in log


def test_a_demo_of_another_version_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "seconds.json").write_text("{}")
    with create(tmp_path / "dataset", "dataset") as folder:
        (folder / "file").write_text("precious")
    manifest = tmp_path / "dataset" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format_version": 2', '"format_version": 0'))
    status, log = run("--out", tmp_path, "--data-dir", tmp_path / "data")
    assert status == 1
    assert "format_version 0" in log
    assert "Choose another folder" in log
    assert (tmp_path / "dataset" / "file").read_text() == "precious"
