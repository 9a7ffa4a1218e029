"""From two files, as others export them, to a page: one command, which resumes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import read_manifest
from tests.tiny import FAMILIES, SIZE, tiny_dataset

KINDS = ("space", "western", "music", "horror", "romance", "animals")
MINUTES = 0.05


def write_movielens(folder: Path, *, strays: int = 1) -> tuple[Path, Path]:
    """ratings.csv and movies.csv in MovieLens's form; `strays`: ratings of a film that is not in movies.csv."""
    assert len(KINDS) == FAMILIES
    folder.mkdir(parents=True, exist_ok=True)
    dataset = tiny_dataset(240)
    sequences = dataset.sequences
    films = [f"{n},Film {n} about {KINDS[n // SIZE]} (1990),Drama|Comedy" for n in range(FAMILIES * SIZE)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *films]))
    rows = [
        f"{user},{item},4.0,{1_000_000_000 + 60 * place}"
        for user in range(len(sequences))
        for place, item in enumerate(sequences.of_user(user).tolist())
    ]
    rows += [f"{user},9999,4.0,1000000000" for user in range(strays)]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    return folder / "ratings.csv", folder / "movies.csv"


def quickstart(files: tuple[Path, ...], out: Path, *more: str, minutes: float = MINUTES) -> Result:
    budget = ["--minutes", str(minutes)]
    arguments = ["quickstart", *map(str, files), "--out", str(out), *budget, "--no-serve", *more]
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], Path, Result]:
    folder = tmp_path_factory.mktemp("quickstart")
    files = write_movielens(folder / "films")
    done = quickstart(files, folder / "out")
    assert done.exit_code == 0, done.stderr
    return files, folder / "out", done


def test_it_says_what_it_reads_and_how_good_the_model_is(
    finished: tuple[tuple[Path, Path], Path, Result],
) -> None:
    _, out, done = finished
    said = " ".join(done.stderr.split())
    assert "it reads user_id from userId, item_id from movieId" in said
    assert "cannot be used and are dropped: 1 has an item_id that is not among the items" in said
    found = re.search(r"For ([\d.]+)% of the users, .* recommendations; for ([\d.]+)% if", done.stdout)
    assert found, done.stdout
    assert float(found[1]) > float(found[2])
    assert (out / "evaluation" / "report.html").is_file()
    assert f"serve --artifact {out}" in said
    searched = re.search(r"items find (\S+) '(Film (\d+) about .*?)'", done.stderr)
    assert searched, done.stderr
    found = CliRunner().invoke(app, ["items", "find", searched[1], searched[2], "--k", "1"])
    assert found.stdout.split()[0] == searched[3]
    recommender = Recommender.load(out)
    assert {*recommender.experts} == {"codes", "dense", "neighbours"}
    assert len(recommender.recommend([["8", "9"]], k=3)[0]) == 3


def test_it_resumes_and_serves_a_page_with_sample_users(
    finished: tuple[tuple[Path, Path], Path, Result],
) -> None:
    files, out, _ = finished
    before = read_manifest(out / "retrieval").hash
    command = [sys.executable, "-m", "rqrec", "quickstart", *map(str, files), "--out", str(out)]
    command += ["--minutes", str(MINUTES)]
    process = subprocess.Popen(
        [*command, "--no-open", "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    stop = threading.Timer(200, process.kill)
    stop.start()
    try:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"Open (http://\S+) in a browser", line):
                break
        else:
            pytest.fail("".join(lines))
        assert "Training the experts" not in "".join(lines)
        with urllib.request.urlopen(f"{found[1]}v1/users") as answer:
            users = json.load(answer)["users"]
        assert users
        assert "about" in users[0]["history"][0]["title"]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        stop.cancel()
        process.kill()
    assert read_manifest(out / "retrieval").hash == before


@pytest.mark.slow
def test_with_other_minutes_the_models_are_trained_again(
    finished: tuple[tuple[Path, Path], Path, Result], tmp_path: Path
) -> None:
    files, first, _ = finished
    out = tmp_path / "out"
    shutil.copytree(first, out)
    before = {name: read_manifest(out / name).hash for name in ("embeddings", "retrieval")}
    done = quickstart(files, out, minutes=0.06)
    assert done.exit_code == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "The models here were made with --minutes 0.05: they are trained again." in said
    after = {name: read_manifest(out / name).hash for name in before}
    assert after["embeddings"] == before["embeddings"]
    assert after["retrieval"] != before["retrieval"]
    assert read_manifest(out / "evaluation").inputs["retrieval"] == after["retrieval"]
    assert len(Recommender.load(out).recommend([["8", "9"]], k=3)[0]) == 3
    again = quickstart(files, out, minutes=0.06)
    assert again.exit_code == 0, again.stderr
    assert "trained again" not in again.stderr
    assert read_manifest(out / "retrieval").hash == after["retrieval"]


@pytest.mark.parametrize(
    ("content", "needed"),
    [
        ("{}", "minutes and training"),
        ('{"minutes": 8}', "minutes and training"),
        ("[]", "numbers by name"),
        ('{"minutes": "8", "training": 1}', "numbers by name"),
    ],
)
def test_a_damaged_note_of_the_minutes_ends_in_a_sentence(
    content: str, needed: str, finished: tuple[tuple[Path, Path], Path, Result], tmp_path: Path
) -> None:
    files, made, _ = finished
    out = shutil.copytree(made, tmp_path / "out")
    (out / "minutes.json").write_text(content)
    done = quickstart(files, out)
    assert done.exit_code == 1
    assert f"minutes.json must hold {needed}. Remove {out} to begin again." in done.stderr


def test_many_rows_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    done = quickstart(write_movielens(tmp_path, strays=100), tmp_path / "out")
    assert done.exit_code == 1
    assert "no more than 5% are dropped: 100 have an item_id that is not among the items" in done.stderr
    assert "--max-invalid 1" in done.stderr


def test_a_log_that_cannot_be_split_is_refused_before_texts_are_encoded(tmp_path: Path) -> None:
    ratings, films = write_movielens(tmp_path, strays=0)
    rows = ratings.read_text().splitlines()
    alone = [f"user {n},{row.partition(',')[2]}" for n, row in enumerate(rows[1:])]
    ratings.write_text("\n".join([rows[0], *alone]))
    done = quickstart((ratings, films), tmp_path / "out")
    assert done.exit_code == 1
    assert "No user has 3 or more interactions" in done.stderr
    assert "Encoding texts" not in done.stderr
    assert not (tmp_path / "out" / ".embeddings").exists()


def test_columns_that_are_not_recognised_are_named_with_the_options_that_map_them(tmp_path: Path) -> None:
    log, items = write_movielens(tmp_path)
    log.write_text(log.read_text().replace("userId", "who").replace("timestamp", "moment"))
    done = quickstart((log, items), tmp_path / "out")
    assert done.exit_code == 1
    assert "lacks user_id, timestamp; its columns are who, movieId, rating, moment" in done.stderr
    assert "--user-column and --time-column" in done.stderr


def test_files_that_are_swapped_are_recognised(tmp_path: Path) -> None:
    log, items = write_movielens(tmp_path)
    done = quickstart((items, log), tmp_path / "out")
    assert done.exit_code == 1
    assert "movies.csv has neither users nor times" in done.stderr
    assert "seem to be swapped" in done.stderr


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path) -> None:
    files = write_movielens(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    done = quickstart(files, tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path} already holds movies.csv, ratings.csv, and what is made needs a folder" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    done = quickstart(files, files[0])
    assert done.exit_code == 1
    assert "ratings.csv is a file, but what is made needs a folder: choose one with --out" in done.stderr


def test_other_files_do_not_replace_what_was_made(
    finished: tuple[tuple[Path, Path], Path, Result], tmp_path: Path
) -> None:
    _, out, _ = finished
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    done = quickstart(write_movielens(tmp_path, strays=2), out)
    assert done.exit_code == 1
    assert f"choose another folder with --out, or remove {out} to begin again" in done.stderr
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_items_without_titles_are_shown_by_their_ids(tmp_path: Path) -> None:
    log, items = write_movielens(tmp_path, strays=100)  # refused after the items have been read
    items.write_text("\n".join(",".join(line.split(",")[::2]) for line in items.read_text().splitlines()))
    done = quickstart((log, items), tmp_path / "out")
    assert "no column title, so people are shown the ids" in " ".join(done.stderr.split())
    assert "are dropped" in done.stderr


def test_a_log_alone_is_not_enough(tmp_path: Path) -> None:
    done = quickstart((write_movielens(tmp_path)[0],), tmp_path / "out")
    assert done.exit_code == 2
    assert "Give a file of items after the log" in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_movielens_own_files_need_no_preparation(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "ml-latest-small"
    files = (raw / "ratings.csv", raw / "movies.csv")
    arguments = ["quickstart", *map(str, files), "--out", str(tmp_path / "out"), "--minutes", "1.5"]
    done = CliRunner().invoke(app, [*arguments, "--no-serve", "--json"])
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["model"]["recall@10"] > 2 * result["popularity"]["recall@10"]
