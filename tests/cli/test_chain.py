"""All stages through the command line, each reading the artefacts of earlier ones."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import read_manifest
from rqrec.experiments import reproduce
from rqrec.experiments.reproduce import CODES, DENSE, RECIPE
from tests.serving.test_server import Process
from tests.stages.world import write_world

ROOT = Path(__file__).resolve().parents[2]


def rqrec(*arguments: object) -> dict:
    """Run a command that must succeed; returns its JSON object."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def settings(**values: object) -> list[str]:
    return [part for name, value in values.items() for part in ("--gin", f"train.{name}={value!r}")]


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL_MODEL = settings(
    iterations=30,
    warmup=2,
    batch_size=16,
    max_items=5,
    attn_heads=2,
    attn_embed_dim=16,
    attn_layers=1,
    decoder_embed_dim=16,
    full_eval_every=0,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["rqkmeans", "rqvae"])
def test_each_command_reads_the_artefacts_of_the_previous_ones(kind: str, tmp_path: Path) -> None:
    raw, folder = write_world(tmp_path / "raw"), tmp_path.joinpath
    log, own = raw / "log.parquet", raw / "item_embeddings.npy"
    files = ("--interactions", log, "--embeddings", own)
    rqrec("prepare", "custom", *files, "--user-core", 4, "--out", folder("interactions"))
    embed = ("--embeddings", own, "--collaborative", 4, "--out", folder("vectors"))
    rqrec("embed", folder("interactions"), *embed)
    if kind == "rqkmeans":
        sizes = ("--codebook-size", 8, "--levels", 2)
        rqrec("fit-rqkmeans", folder("vectors"), *sizes, "--out", folder("codes"))
    else:
        small = settings(
            iterations=30, vae_hidden_dims=[16], vae_embed_dim=8, vae_codebook_size=8, vae_n_layers=2
        )
        root = settings(save_dir_root=str(folder("codes")))
        rqrec(
            "train-rqvae", ROOT / "configs/rqvae_amazon.gin", "--embeddings", folder("vectors"), *small, *root
        )
    ids = ("--dataset", folder("interactions"), "--out", folder("ids"))
    rqrec("tokenize", folder("codes"), folder("vectors"), *ids)
    before = {name: read_manifest(folder(name)).hash for name in ("interactions", "vectors", "ids")}

    inputs = ("--dataset", folder("interactions"), "--semantic-ids", folder("ids"))
    root = settings(save_dir_root=str(folder("model")))
    rqrec("train-decoder", ROOT / "configs/decoder_custom.gin", *inputs, *SMALL_MODEL, *root)
    trained_on = read_manifest(folder("model", "retrieval")).inputs
    assert trained_on == {"dataset": before["interactions"], "semantic_ids": before["ids"]}
    small = settings(iterations=30, warmup=2, attn_embed_dim=16, max_items=5)
    root = settings(save_dir_root=str(folder("dense")))
    rqrec("train-sasrec", *inputs[:2], *small, *root)
    inputs = ("--dataset", folder("interactions"), "--embeddings", folder("vectors"))
    rqrec("join", folder("model"), folder("dense"), *inputs, "--out", folder("joined"))
    assert {name: read_manifest(folder(name)).hash for name in before} == before
    assert read_manifest(folder("joined")).inputs == {
        "dataset": before["interactions"],
        "embeddings": before["vectors"],
        "codes": read_manifest(folder("model", "retrieval")).hash,
        "dense": read_manifest(folder("dense", "sasrec")).hash,
    }

    measured = ("--dataset", folder("interactions"), "--out", folder("figures"))
    assert rqrec("evaluate", "--artifact", folder("joined"), *measured)["metrics"]["recall@10"] > 0.5
    asked = rqrec("recommend", "--artifact", folder("joined"), "--history", "8,9", "--k", 3)
    assert len(asked["recommendations"]) == 3
    service = Process(folder("joined"))
    service.wait_until_listening()
    status, answer = service.ask("POST", "/v1/recommendations", {"history": ["8", "9"], "k": 3})
    assert (status, service.stop()) == (200, 0)
    found = [item["item_id"] for item in answer["recommendations"][0]["items"]]
    assert found == [item["item_id"] for item in asked["recommendations"]]


def test_raw_data_that_was_prepared_differently_is_not_replaced_by_training(tmp_path: Path) -> None:
    raw = write_world(tmp_path / "raw")
    prepared = raw / "processed/own/dataset"
    rqrec("prepare", "custom", "--data-dir", raw, "--user-core", 4, "--out", prepared)
    before = read_manifest(prepared).hash
    data = settings(dataset="custom", dataset_folder=str(raw), save_dir_root=str(tmp_path / "run"))
    done = CliRunner().invoke(app, ["train-decoder", *data, *SMALL_MODEL])
    assert done.exit_code == 1
    for expected in ("user_core was 4 and is 1", "--dataset", "train.force_dataset_process=True"):
        assert expected in done.stderr
    assert read_manifest(prepared).hash == before
    given = ("--dataset", prepared, "--embeddings", raw)
    rqrec("train-decoder", *given, *data, *SMALL_MODEL, *settings(vae_codebook_size=8))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_reproduce_and_the_commands_one_by_one_give_the_same_hashes(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one thread per process, because floating-point sums depend on the number of threads."""
    raw, small = write_world(tmp_path / "raw"), tmp_path / "recipe"
    small.mkdir()
    for file in RECIPE.parent.glob("recipe*.gin"):
        shutil.copy(file, small)
    with (small / "recipe.gin").open("a") as recipe_file:  # few steps: each model is trained twice here
        for name in ("train_decoder", "train_sasrec"):
            recipe_file.write(f"\n{name}.iterations = 30\n{name}.epochs = 0\n")
    monkeypatch.setattr(reproduce, "RECIPE", small / "recipe.gin")
    log, own = raw / "log.parquet", raw / "item_embeddings.npy"
    files, folder = ("--interactions", log, "--embeddings", own), tmp_path.joinpath
    rqrec("reproduce", "custom", *files, "--max-minutes", 10_000, "--out", folder("run"))

    rqrec("prepare", "custom", *files, "--out", folder("dataset"))
    recipe = ("--config", small / "recipe.gin")
    rqrec("embed", folder("dataset"), "--embeddings", own, *recipe, "--out", folder("embeddings"))
    experts, dataset = folder("seed_0", "experts"), ("--dataset", folder("dataset"))
    inputs = (*dataset, "--embeddings", folder("embeddings"))
    for number, ending in enumerate(("", "_2")):
        codes, ids = folder(f"rqkmeans{ending}"), folder(f"semantic_ids{ending}")
        rqrec("fit-rqkmeans", folder("embeddings"), *recipe, "--seed", number, "--out", codes)
        rqrec("tokenize", codes, folder("embeddings"), *dataset, "--out", ids)
    for number, (name, differing, table) in enumerate(CODES):
        files = [small / file for file in ("recipe.gin", differing) if file]
        made = ("--semantic-ids", folder("semantic_ids_2" if table else "semantic_ids"))
        root = settings(save_dir_root=str(experts / name), seed=number + 1)
        rqrec("train-decoder", *files, *inputs, *made, *root)
    for number, (name, differing) in enumerate(DENSE):
        files = [small / file for file in ("recipe.gin", differing) if file]
        root = settings(save_dir_root=str(experts / name), seed=number)
        rqrec("train-sasrec", *files, *inputs, *root)
    models = [*(experts / name for name, _, _ in CODES), *(experts / name for name, _ in DENSE)]
    rqrec("join", *models, *inputs, *recipe, "--out", folder("seed_0", "retrieval"))
    names = ("dataset", "embeddings", "rqkmeans", "rqkmeans_2", "semantic_ids", "semantic_ids_2")
    trained = (*(f"{name}/retrieval" for name, _, _ in CODES), *(f"{name}/sasrec" for name, _ in DENSE))
    for name in (*names, *(f"seed_0/experts/{one}" for one in trained), "seed_0/retrieval"):
        assert read_manifest(folder(name)).hash == read_manifest(folder("run", name)).hash, name
    reproduced = json.loads((folder("run") / "reproduction.json").read_text())
    for row, options in (("all", ()), ("trained", ("--experts", "trained"))):
        figures = rqrec("evaluate", "--artifact", folder("seed_0"), *dataset, *options)["metrics"]
        assert reproduced["test"][row]["ndcg@10"]["mean"] == figures["ndcg@10"]
