"""Own data through the command line: one command for files as they are, and its options on every road."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import read_manifest
from rqrec.core.config import configured, settings_of
from rqrec.data.dataset import Dataset
from rqrec.experiments.reproduce import ReproduceConfig
from rqrec.stages.prepare import PrepareConfig, PrepareOptions
from rqrec.stages.raw_data import dataset_from_raw
from rqrec.stages.train_decoder import TrainDecoderConfig
from rqrec.stages.train_rqvae import TrainRqVaeConfig
from rqrec.stages.train_sasrec import TrainSasRecConfig

RATINGS = """userId,movieId,rating,timestamp
1,1,4.0,964982703
1,2,2.0,964981247
1,3,5.0,964982224
1,1,4.5,964982931
2,3,4.0,1445714835
2,3,4.0,1445714835
2,9,4.0,1445714900
"""
MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
2,Jumanji (1995),Adventure
3,"American President, The (1995)",(no genres listed)
"""


def rqrec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    (tmp_path / "movies.csv").write_text(MOVIES)
    return ("--interactions", str(tmp_path / "ratings.csv"), "--items", str(tmp_path / "movies.csv"))


def test_the_files_of_movielens_are_prepared_by_one_command(files: tuple[str, ...], tmp_path: Path) -> None:
    out = ("--out", tmp_path / "dataset")
    refused = rqrec("prepare", "custom", *files, *out)
    assert refused.exit_code == 1
    assert "1 has an item_id that is not among the items (the first is '9' in line 8)" in refused.stderr
    done = rqrec("prepare", "custom", *files, *out, "--drop-invalid")
    assert done.exit_code == 0, done.stderr
    assert "2 users, 3 items, 5 interactions" in done.stdout
    assert (
        "1 of 1 test targets and 0 of 1 validation targets are already in their user's history."
        in done.stdout
    )
    for said in (
        "ratings.csv: it reads user_id from userId, item_id from movieId.",
        "movies.csv: it reads item_id from movieId; it has no column text, so the texts are made with the template "
        "'{title}; genres: {genres}'; rules can use the fields genres.",
        "1 of 7 rows cannot be used and are dropped",
        "1 of 6 rows repeat the user, item and time of an earlier row and are dropped.",
    ):
        assert said in done.stderr
    dataset = Dataset.read(tmp_path / "dataset")
    assert dataset.catalog.items["text"][0] == "Toy Story (1995); genres: Adventure, Animation, Children"
    metrics = read_manifest(tmp_path / "dataset").metrics
    assert (metrics["evaluated_users"], metrics["test_targets_in_history"]) == (1, 1)
    again = rqrec("prepare", "custom", *files, *out, "--drop-invalid", "--json")
    assert json.loads(again.stdout)["test_targets_in_history"] == 1
    assert "dropped" not in again.stderr  # the dataset is reused
    other = rqrec("prepare", "custom", *files, *out, "--drop-invalid", "--min-rating", 4)
    assert "min_rating was None and is 4.0" in other.stderr
    assert (
        rqrec("prepare", "custom", *files, *out, "--drop-invalid", "--min-rating", 4, "--force").exit_code
        == 0
    )
    assert len(Dataset.read(tmp_path / "dataset").sequences.items) == 4


def test_options_that_have_no_effect_are_refused(files: tuple[str, ...], tmp_path: Path) -> None:
    for arguments, problem in (
        (("--rating-column", "rating"), "rating_column has no effect without min_rating"),
        (("--item-column", "isbn"), "No file has a column 'isbn'"),
        (("--template", "{title"), "The template '{title' is not valid"),
    ):
        done = rqrec("prepare", "custom", *files, "--out", tmp_path / "dataset", *arguments)
        assert done.exit_code in (1, 2)
        assert problem in " ".join(done.stderr.split())
    done = rqrec("prepare", "movielens", "--variant", "100k", "--min-rating", "4")
    assert done.exit_code == 2
    assert "min_rating can be set for custom data only" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    "config", [ReproduceConfig(), TrainDecoderConfig(), TrainRqVaeConfig(), TrainSasRecConfig()]
)
def test_every_road_has_every_option_of_prepare(config: object) -> None:
    options = settings_of(PrepareOptions())
    assert set(options) <= set(settings_of(config))
    assert set(settings_of(PrepareConfig())) == set(options) | {"source", "variant"}


def test_gin_files_set_the_options_of_prepare(files: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").rename(tmp_path / "LOG.CSV")
    (tmp_path / "movies.csv").rename(tmp_path / "items.csv")
    bindings = [
        'train.dataset="custom"',
        f'train.dataset_folder="{tmp_path}"',
        "train.min_rating=4",
        "train.drop_invalid=True",
        "train.keep_duplicates=True",
        "train.max_history=2",
    ]
    config = configured(TrainDecoderConfig(), ["train", "train_decoder"], [], bindings)
    dataset = Dataset.read(dataset_from_raw(config.data))
    ids = dataset.catalog.id_map
    assert [ids.ids(dataset.sequences.of_user(user)) for user in (0, 1)] == [["1", "1"], ["3", "3"]]


def test_reproduce_takes_the_options_of_prepare(files: tuple[str, ...], tmp_path: Path) -> None:
    options = ("--user-column", "nobody", "--out", tmp_path / "out")
    done = rqrec("reproduce", "custom", *files, *options)
    assert done.exit_code == 1
    assert "lacks nobody; its columns are userId, movieId, rating, timestamp" in done.stderr


def test_one_file_as_log_and_items_is_read_as_both(tmp_path: Path) -> None:
    (tmp_path / "both.csv").write_text("user_id,item_id,timestamp,title\nu,a,100,A\nu,b,200,B\nv,c,300,C\n")
    one = ("--interactions", tmp_path / "both.csv", "--items", tmp_path / "both.csv")
    done = rqrec("prepare", "custom", *one, "--out", tmp_path / "dataset")
    assert done.exit_code == 0, done.stderr
