"""A folder in which the commands of the docs can be run as they are written: their files and models, but tiny."""

from pathlib import Path

import numpy as np
import polars as pl
from typer.testing import CliRunner

from rqrec.cli import app

N_FILMS, N_SHOP, N_USERS = 260, 40, 90
GENRES = ("Comedy", "Drama", "War", "Western", "Romance")
SMALL = ("--gin", "train.iterations=2", "--gin", "train.full_eval_every=0", "--gin", "train.batch_size=32")


def rqrec(*words: object) -> str:
    """Run a command that must succeed; returns what it prints on standard output."""
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, f"rqrec {' '.join(map(str, words))}\n{done.stderr}\n{done.exception!r}"
    return done.stdout


def shortened(words: tuple[str, ...]) -> tuple[str, ...]:
    """The same command with less work: a training takes two steps."""
    if words[0] in ("train-rqvae", "train-decoder", "train-sasrec"):
        section = words[0].replace("-", "_")
        settings = ["iterations=2", "full_eval_every=0", "epochs=0"]
        settings = settings[:1] if section == "train_rqvae" else settings
        return (*words, *(part for setting in settings for part in ("--gin", f"{section}.{setting}")))
    return words


def write_files(folder: Path) -> None:
    """The files that the docs name: a log, items, new and changed items, vectors and users."""
    ids = [str(number) for number in range(1, N_FILMS + 1)]
    ids += [f"B{number:05d}" for number in range(1, N_SHOP + 1) if number != 9]  # B00009 is added later
    items = pl.DataFrame(
        {
            "item_id": ids,
            "title": [f"Title {place}" for place in range(len(ids))],
            "text": [f"A {GENRES[place % 5]} called {place}" for place in range(len(ids))],
            "genres": [GENRES[place % 5] for place in range(len(ids))],
            "year": [1980 + place % 20 for place in range(len(ids))],
            "stock": [place % 3 for place in range(len(ids))],
            "price": [5.0 + place % 30 for place in range(len(ids))],
        }
    )
    items.write_parquet(folder / "items.parquet")
    rng = np.random.default_rng(0)
    rows = [
        (str(190 + user), ids[(user % 5 + 5 * int(step)) % len(ids)], 891_000_000 + 3600 * place)
        for user in range(N_USERS)
        for place, step in enumerate(rng.choice(60, 7, replace=False))
    ]
    log = pl.DataFrame(rows, ["user_id", "item_id", "timestamp"], orient="row")
    log.write_parquet(folder / "log.parquet")
    histories = log.group_by("user_id", maintain_order=True).agg(history=pl.col("item_id"))
    histories.write_parquet(folder / "users.parquet")
    new = {"item_id": ["N1"], "title": ["Mouse"], "text": ["A wireless mouse"], "price": [9.0]}
    pl.DataFrame(new).write_csv(folder / "new.csv")
    pl.DataFrame({"item_id": ["B00003"], "title": ["Cup"]}).write_csv(folder / "changed.csv")
    (folder / "new.txt").write_text("N2\nN3\n")
    own = folder / "dataset" / "custom"
    own.mkdir(parents=True)
    np.save(own / "item_embeddings.npy", rng.normal(size=(N_FILMS, 16)).astype(np.float32))


def write_demo(folder: Path) -> None:
    """`out/demo` as `rqrec demo` lays it out. Runs in `folder`."""
    run = folder / "out" / "demo"
    rqrec(
        "prepare",
        "custom",
        "--interactions",
        "log.parquet",
        "--items",
        "items.parquet",
        "--out",
        run / "dataset",
    )
    encoder = ("--encoder", "all-MiniLM-L6-v2", "--collaborative", 8)
    rqrec("embed", run / "dataset", *encoder, "--out", run / "embeddings")
    root = ("--gin", f'train.save_dir_root="{run / "tokenizer"}"', "--gin", "train.vae_codebook_size=16")
    rqrec("train-rqvae", "--embeddings", run / "embeddings", "--gin", "train.iterations=2", *root)
    inputs = ("--dataset", run / "dataset", "--embeddings", run / "embeddings")
    rqrec("tokenize", run / "tokenizer", run / "embeddings", *inputs[:2], "--out", run / "semantic_ids")
    ids = ("--semantic-ids", run / "semantic_ids", "--gin", f'train.save_dir_root="{run}"')
    rqrec("train-decoder", *inputs, *ids, *SMALL, "--gin", "train.max_items=10")
    vectors = np.load(run / "embeddings" / "item_embeddings.npy")
    np.save(folder / "new.npy", vectors[:2] + 0.01)
