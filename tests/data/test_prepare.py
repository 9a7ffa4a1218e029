from pathlib import Path

import pytest

from rqrec.artifact import read_manifest
from rqrec.data import prepare as module
from rqrec.data.prepare import Settings, prepare

SETTINGS = Settings("movielens", "latest-small")


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
    dataset = prepare(SETTINGS, raw, tmp_path / "dataset")
    assert dataset.sequences.of_user(0).tolist() == [1, 0]
    manifest = read_manifest(tmp_path / "dataset", "dataset", verify=True)
    assert manifest.facts == {"users": 1, "items": 2, "interactions": 2}
    assert manifest.settings["template"] == "{title} ({year}), {genres}"


def test_an_equal_request_reads_what_is_there(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(SETTINGS, raw, tmp_path / "dataset")
    loads = []
    load = module.load
    monkeypatch.setattr(module, "load", lambda *args: loads.append(1) or load(*args))
    again = prepare(SETTINGS, raw, tmp_path / "dataset")
    assert again.catalog.items.equals(first.catalog.items)
    assert not loads
    prepare(SETTINGS, tmp_path / "gone", tmp_path / "dataset")  # the raw files are no longer needed
    assert not loads
    prepare(SETTINGS, raw, tmp_path / "dataset", force=True)
    assert len(loads) == 1
    (raw / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,3,4\n")  # other data
    assert prepare(SETTINGS, raw, tmp_path / "dataset").facts()["interactions"] == 1
    assert len(loads) == 2


def test_an_unknown_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no source 'netflix'; allowed"):
        prepare(Settings("netflix", "all"), tmp_path, tmp_path / "dataset")
