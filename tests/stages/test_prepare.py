from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rqrec.core.artifact import read_manifest
from rqrec.core.config import with_settings
from rqrec.data.dataset import Dataset
from rqrec.stages import prepare as module
from rqrec.stages.prepare import PrepareConfig, PrepareOptions, load, prepare

SETTINGS = PrepareConfig("movielens", "latest-small")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "movies.csv").write_text(
        "movieId,title,genres\n1,Toy Story (1995),Animation\n2,Heat (1995),Crime\n"
    )
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3,4\n1,2,5,2\n")
    return raw


def test_a_prepared_dataset_is_an_artefact(raw: Path, tmp_path: Path) -> None:
    dataset = Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset"))
    assert dataset.sequences.of_user(0).tolist() == [1, 0]
    manifest = read_manifest(tmp_path / "dataset", "dataset", verify=True)
    assert manifest.metrics == {
        "users": 1,
        "items": 2,
        "interactions": 2,
        "evaluated_users": 0,
        "validation_targets_in_history": 0,
        "test_targets_in_history": 0,
    }
    assert manifest.settings["template"] == "{title} ({year}), {genres}"


def test_equal_settings_reuse_the_dataset(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset"))
    loads = []
    monkeypatch.setattr(module, "load", lambda *args: loads.append(1) or load(*args))
    again = Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset"))
    assert again.catalog.items.equals(first.catalog.items)
    assert not loads
    prepare(SETTINGS, tmp_path / "gone", tmp_path / "dataset")  # the raw files are no longer needed
    assert not loads
    prepare(SETTINGS, raw, tmp_path / "dataset", force=True)
    assert len(loads) == 1
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3,4\n")  # other data
    with pytest.raises(ValueError, match=r"its input 'raw' was another one.*replace it with --force"):
        prepare(SETTINGS, raw, tmp_path / "dataset")
    assert len(Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset", force=True)).sequences.items) == 1


def test_a_dataset_that_was_prepared_differently_is_never_replaced(raw: Path, tmp_path: Path) -> None:
    folder = prepare(with_settings(SETTINGS, {"max_history": 4}), raw, tmp_path / "dataset")
    before = read_manifest(folder).hash
    with pytest.raises(ValueError, match="max_history was 4 and is None"):
        prepare(SETTINGS, raw, folder)
    assert read_manifest(folder).hash == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"source": "netflix"}, "source is 'netflix'; allowed are amazon, movielens, custom"),
        ({"variant": "20m"}, "variant is '20m'; allowed for movielens are 100k"),
        ({"template": "{title}"}, "template of movielens is always"),
        ({"tie_break": "random"}, "tie_break is 'random'; allowed are keep, hash"),
        ({"user_core": 0}, "user_core is 0, but must be at least 1"),
        ({"max_history": 0}, "max_history is 0"),
        ({"min_rating": 4.0}, "min_rating can be set for custom data only, not for movielens"),
        ({"rating_column": "stars"}, "rating_column has no effect without min_rating"),
    ],
)
def test_invalid_settings_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        with_settings(SETTINGS, change)


def test_a_dataset_is_the_same_whichever_form_the_times_have(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    milliseconds = pl.Series(1_700_000_000_000 + rng.integers(0, 10**7, 200))  # often several in a second
    seconds = milliseconds / 1000
    moments = pl.from_epoch(milliseconds, "ms")
    columns = {
        "seconds": seconds,
        "text": seconds.cast(pl.String),
        "milliseconds": milliseconds,
        "microseconds": milliseconds * 10**3,
        "nanoseconds": milliseconds * 10**6,
        "datetimes": moments.cast(pl.Datetime("ns")),
        "with a zone": moments.dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo"),
        "iso": moments.dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ"),
    }
    users, items = rng.integers(0, 5, 200).astype(str), rng.integers(0, 9, 200)
    expected = None
    for name, times in columns.items():
        folder = tmp_path / name
        folder.mkdir()
        log = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
        log.write_parquet(folder / "log.parquet")
        np.save(folder / "item_embeddings.npy", np.eye(9))
        found = Dataset.read(prepare(PrepareConfig(), folder, folder / "dataset")).sequences
        expected = expected or found
        assert found.timestamps.tolist() == expected.timestamps.tolist(), name
        assert found.items.tolist() == expected.items.tolist(), name
    assert expected is not None
    in_order = log.with_columns(time=milliseconds).filter(user_id=expected.user_ids[0]).sort("time")
    assert expected.of_user(0).tolist() == in_order["item_id"].to_list()


def test_a_dataset_whose_times_are_not_seconds_is_refused(raw: Path, tmp_path: Path) -> None:
    dataset = Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset"))
    microseconds = replace(dataset.sequences, timestamps=dataset.sequences.timestamps + 1_700_000_000_000_000)
    manifest = read_manifest(tmp_path / "dataset", "dataset")
    Dataset(dataset.catalog, microseconds).write(tmp_path / "dataset", manifest.settings, manifest.inputs)
    for read in (Dataset.read, lambda folder: prepare(SETTINGS, raw, folder)):
        with pytest.raises(ValueError, match=r"earlier version .* Remove it, and prepare it again"):
            read(tmp_path / "dataset")
    assert Dataset.read(prepare(SETTINGS, raw, tmp_path / "dataset", force=True)).sequences.times is not None


def test_filters_and_max_history(tmp_path: Path) -> None:
    write_log(tmp_path, "1a 1b 1c 2a 2b 2c 3a")
    dataset = load(
        PrepareConfig("custom", options=PrepareOptions(user_core=2, item_core=2, max_history=2)), tmp_path
    )
    assert dataset.sequences.user_ids == ("1", "2")
    assert dataset.sequences.items.tolist() == [1, 2, 1, 2]
    assert len(dataset.catalog) == 3  # "d", without interactions, is below the core


def test_ties_by_hash_are_random_and_the_same_in_every_run(tmp_path: Path) -> None:
    pairs = [f"{user}{item}" for item in "abcd" for user in range(9)]
    write_log(tmp_path, " ".join(pairs), tied=True)
    kept, hashed, again = (
        load(PrepareConfig("custom", options=PrepareOptions(tie_break=tie_break)), tmp_path).sequences
        for tie_break in ("keep", "hash", "hash")
    )
    assert [kept.of_user(user).tolist() for user in range(9)] == [[0, 1, 2, 3]] * 9
    assert hashed.items.tolist() == again.items.tolist()
    orders = {tuple(hashed.of_user(user)) for user in range(9)}
    assert len(orders) > 4
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3)}


def test_ties_cannot_be_broken_without_timestamps(tmp_path: Path) -> None:
    write_log(tmp_path, "1a 1b 1c")  # at the times 0, 1, 2
    with pytest.raises(ValueError, match="have no timestamps"):
        load(PrepareConfig("custom", options=PrepareOptions(tie_break="hash")), tmp_path)


def test_possible_ties_in_p5s_order_are_shuffled(shared_data: Path) -> None:
    raw = shared_data / "amazon" / "raw" / "beauty"
    kept, hashed, again = (
        load(PrepareConfig("amazon", "beauty", PrepareOptions(tie_break=tie_break)), raw)
        for tie_break in ("keep", "hash", "hash")
    )
    assert hashed.sequences.order_only
    assert hashed.sequences.items.tolist() == again.sequences.items.tolist()
    ids = np.array(kept.catalog.id_map.all)

    def ascending(dataset: Dataset) -> float:
        item_ids, inner = ids[dataset.sequences.items], np.ones(len(dataset.sequences.items), dtype=bool)
        inner[dataset.sequences.offsets[:-1]] = False
        return (item_ids[1:] > item_ids[:-1])[inner[1:]].mean()

    assert ascending(kept) > 0.65  # in half of all pairs, were there no order of ids within a day
    assert 0.45 < ascending(hashed) < 0.5
    for user in range(50):
        before, after = (ids[dataset.sequences.of_user(user)] for dataset in (kept, hashed))
        runs = np.split(np.arange(len(before)), np.flatnonzero(before[1:] <= before[:-1]) + 1)
        for run in runs:
            assert sorted(before[run]) == sorted(after[run])


def write_log(folder: Path, pairs: str, *, tied: bool = False) -> None:
    users, items = zip(*pairs.split(), strict=True)
    times = [7] * len(users) if tied else list(range(len(users)))
    pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times}).write_csv(folder / "log.csv")
    pl.DataFrame({"item_id": list("abcd"), "text": list("ABCD")}).write_csv(folder / "items.csv")
