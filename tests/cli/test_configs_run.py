"""Every config trains for a few steps on real raw files, with the packaged encoder."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app

ROOT = Path(__file__).resolve().parents[2]


def amazon(data: Path, folder: Path) -> None:
    shutil.copytree(data / "amazon/raw/beauty", folder, dirs_exist_ok=True)


def ml32m(data: Path, folder: Path) -> None:
    shutil.copytree(data / "ml-latest-small", folder, dirs_exist_ok=True)


def ml1m(data: Path, folder: Path) -> None:
    """The real list of movies, and ratings of a few of them in the layout of ratings.dat."""
    shutil.copytree(data / "ml-1m", folder, dirs_exist_ok=True)
    rng = np.random.default_rng(0)
    movies = [line.split("::")[0] for line in (folder / "movies.dat").read_text("latin-1").splitlines()]
    lines = [
        f"{user}::{movies[movie]}::5::{1000 + place}"
        for user in range(1, 200)
        for place, movie in enumerate(rng.choice(300, 12, replace=False))
    ]
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")


def custom(data: Path, folder: Path) -> None:
    """Scientific: items with their full text, and a log made of the sequences."""
    with gzip.open(data / "scientific/items.json.gz", "rt") as file:
        items = json.load(file)
    sequences = json.loads((data / "scientific/sequences.json").read_text())
    folder.mkdir(exist_ok=True)
    rows = [(user, str(item), time) for user, items in sequences.items() for time, item in enumerate(items)]
    pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row").write_parquet(
        folder / "log.parquet"
    )
    texts = {"item_id": list(items), "text": [item["title"] for item in items.values()]}
    pl.DataFrame(texts).write_parquet(folder / "items.parquet")


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    ("tokenizer", "decoder", "lay_out"),
    [
        ("rqvae_amazon.gin", "decoder_amazon.gin", amazon),
        ("rqvae_amazon.gin", "hierarchical_amazon.gin", amazon),
        ("rqvae_ml32m.gin", "decoder_ml32m.gin", ml32m),
        ("rqvae_ml1m.gin", "decoder_ml1m.gin", ml1m),
        ("custom.gin", "decoder_custom.gin", custom),
    ],
    ids=["amazon", "amazon hierarchical", "ml32m", "ml1m", "custom"],
)
def test_a_config_trains_from_raw_files_to_recommendations(
    tokenizer: str, decoder: str, lay_out: object, shared_data: Path, tmp_path: Path
) -> None:
    lay_out(shared_data, tmp_path / "raw")  # type: ignore[operator]
    common = [
        f'train.dataset_folder="{tmp_path}/raw"',
        'train.text_encoder="all-MiniLM-L6-v2"',
        "train.iterations=5",
    ]
    for command, config, more in (
        ("train-rqvae", tokenizer, [f'train.save_dir_root="{tmp_path}/rqvae"', "train.batch_size=256"]),
        (
            "train-decoder",
            decoder,
            [
                f'train.save_dir_root="{tmp_path}/decoder"',
                f'train.pretrained_rqvae_path="{tmp_path}/rqvae"',
                "train.batch_size=8",
                "train.max_items=5",
                "train.full_eval_every=0",
            ],
        ),
    ):
        bindings = [part for setting in (*common, *more) for part in ("--gin", setting)]
        done = CliRunner().invoke(app, [command, str(ROOT / "configs" / config), *bindings, "--json"])
        assert done.exit_code == 0, done.stderr
        assert Path(json.loads(done.stdout)["artifact"]).is_dir()
    recommender = Recommender.load(tmp_path / "decoder")
    (found,) = recommender.recommend([recommender.catalog.id_map.ids([0, 1, 2])], k=10)
    assert len(found) == 10
