"""`rqrec evaluate` and the commands for cold items as a user sees them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import read_json, read_manifest
from rqrec.data.dataset import Dataset
from rqrec.data.splits import leave_one_out
from rqrec.evaluation.evaluate import evaluate
from rqrec.evaluation.measure import EvalResult
from rqrec.retrieval.artifact import read_retrieval
from rqrec.retrieval.retriever import Retriever
from tests.stages.world import bindings, decoder_settings, rqvae_settings, write_world
from tests.tiny import tiny_dataset, write_inputs

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def rqrec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def result_of(done: Result) -> dict:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def fails(done: Result, *expected: str) -> None:
    assert done.exit_code == 1, done.stderr
    for part in expected:
        assert part in done.stderr


@pytest.fixture(scope="module")
def evaluated(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluations of the model and of popularity on the tiny dataset."""
    root = tmp_path_factory.mktemp("evaluated")
    result_of(rqrec("evaluate", "--artifact", tiny_run, "--out", root / "model", "--json"))
    baseline = ("--baseline", "popularity", "--dataset", tiny_run)
    result_of(rqrec("evaluate", *baseline, "--out", root / "popularity", "--json"))
    return root


def test_an_evaluation_is_an_artefact_with_metrics_ranks_and_a_report(
    tiny_run: Path, evaluated: Path
) -> None:
    manifest = read_manifest(evaluated / "model", "evaluation", verify=True)
    result = read_json(evaluated / "model" / "evaluation.json")
    checkpoint = read_retrieval(tiny_run)
    cases = leave_one_out(Dataset.read(tiny_run).sequences).test
    light = evaluate(Retriever(checkpoint.model, checkpoint.table), cases)
    for name, value in light.metrics.items():
        assert result["metrics"][name] == pytest.approx(value)
        low, high = result["intervals"][name]
        assert low <= value <= high
    assert result["id_level"]["metrics"]["recall@10"] >= result["metrics"]["recall@10"]
    assert manifest.inputs["retrieval"] == read_manifest(tiny_run / "retrieval").hash
    saved = EvalResult.read(evaluated / "model")
    assert (saved.ranks_C[light.ranks_C < 10] == light.ranks_C[light.ranks_C < 10]).all()
    report = (evaluated / "model" / "report.md").read_text()
    assert "Selected on validation NDCG@10" in report
    assert "tested once" in report
    share = result["metrics"]["recall@10"]
    assert f"For {share:.1%} of the users, the item that they really took is among the first ten" in report
    assert f"Settings: beam width {result['settings']['beam_width']}" in report
    assert "ID-level" in report
    assert (evaluated / "model" / "report.html").read_text().count("data:image/png;base64,") == 1


def test_evaluation_on_the_selection_split_is_reported(tiny_run: Path, tmp_path: Path) -> None:
    options = ("--split", "validation", "--beam-width", 20, "--out", tmp_path / "e")
    result = result_of(rqrec("evaluate", "--artifact", tiny_run, *options, "--json"))
    assert result["settings"] == {"beam_width": 20}
    assert "flatter" in result["selected"]
    best = read_manifest(tiny_run / "retrieval").metrics["validation"]
    assert result["metrics"]["ndcg@10"] == pytest.approx(best["ndcg@10"], abs=0.02)


def test_two_runs_are_compared_on_the_same_examples(tiny_run: Path, evaluated: Path, tmp_path: Path) -> None:
    options = ("--compare", evaluated / "popularity", "--out", tmp_path / "e")
    done = rqrec("evaluate", "--artifact", tiny_run, *options)
    assert done.exit_code == 0, done.stderr
    assert "ndcg@10 against popularity: +0." in done.stdout
    result = read_json(tmp_path / "e" / "evaluation.json")
    compared = result["comparison"]["metrics"]["ndcg@10"]
    other = read_json(evaluated / "popularity" / "evaluation.json")["metrics"]["ndcg@10"]
    assert compared["mean"] == pytest.approx(result["metrics"]["ndcg@10"] - other)
    assert compared["p_value"] < 0.01
    assert compared["better"] + compared["worse"] + compared["equal"] == result["cases"]
    assert "Comparison with popularity" in (tmp_path / "e" / "report.md").read_text()
    other = ("--compare", evaluated / "popularity", "--out", tmp_path / "other", "--json")
    seen = result_of(rqrec("evaluate", "--artifact", tiny_run, "--allow-seen", *other))
    baseline = read_json(evaluated / "popularity" / "evaluation.json")["seen_items"]["allowed"]["metrics"]
    gain = seen["metrics"]["ndcg@10"] - baseline["ndcg@10"]
    assert seen["comparison"]["metrics"]["ndcg@10"]["mean"] == pytest.approx(gain)
    other = ("--split", "validation", "--compare", evaluated / "popularity", "--out", tmp_path / "third")
    fails(
        rqrec("evaluate", "--artifact", tiny_run, *other),
        "other examples",
        "split is test and not validation",
    )


def test_the_snippets_of_the_docs_run(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    shutil.copytree(tiny_run, tmp_path / "out" / "demo")
    monkeypatch.chdir(tmp_path)
    text = (CONFIGS.parent / "docs" / "evaluation.md").read_text()
    snippets = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(snippets) == 2
    exec("\n".join(snippets), {})
    assert "Difference(mean=" in capsys.readouterr().out
    commands = re.findall(r"^rqrec (evaluate --.*)$", text, flags=re.M)
    assert len(commands) == 4
    for command in commands:
        done = rqrec(*command.split())
        assert done.exit_code == 0, done.stderr


@pytest.mark.parametrize("name", ["popularity", "item_knn", "content_knn", "hybrid_knn"])
@pytest.mark.parametrize("protocol", ["leave_one_out", "temporal"])
def test_each_baseline_is_evaluated(name: str, protocol: str, tiny_run: Path, tmp_path: Path) -> None:
    options = ["--dataset", tiny_run, "--protocol", protocol]
    options += ["--embeddings", tiny_run] if name in ("content_knn", "hybrid_knn") else []
    result = result_of(rqrec("evaluate", "--baseline", name, *options, "--out", tmp_path / "e", "--json"))
    assert result["recommender"] == name
    assert result["protocol"] == protocol
    assert "id_level" not in result
    # The next item is of the family of the last: 8 of 48 items.
    assert result["metrics"]["recall@10"] > (0.1 if name == "popularity" else 0.8)


def test_mismatched_inputs_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    other = tmp_path / "dataset"
    tiny_dataset(100).write(other, {"source": "tiny"}, {})
    out = ("--out", tmp_path / "e")
    fails(
        rqrec("evaluate", "--artifact", tiny_run, "--dataset", other, *out), "was not made from", str(other)
    )
    fails(
        rqrec("evaluate", "--artifact", tiny_run, "--protocol", "temporal", *out),
        "leave_one_out",
        "training data may contain",
    )
    alone = shutil.copytree(tiny_run / "retrieval", tmp_path / "alone")
    fails(rqrec("evaluate", "--artifact", alone, *out), "--dataset")
    fails(rqrec("evaluate", "--artifact", tiny_run / "dataset", *out), "cannot recommend")
    (tmp_path / "nothing").mkdir()
    fails(rqrec("evaluate", "--artifact", tmp_path / "nothing", *out), "rqrec train-decoder")
    done = rqrec("evaluate", "--artifact", tiny_run, "--split", "train", *out)
    assert done.exit_code == 2
    assert "'train'" in done.stderr
    assert "validation" in done.stderr
    fails(rqrec("evaluate", "--baseline", "content_knn", "--dataset", tiny_run, *out), "--embeddings")
    fails(rqrec("evaluate", "--artifact", tiny_run, "--experts", "dense", *out), "no expert 'dense'")
    assert not (tmp_path / "e").exists()


def test_wrong_usage_is_status_2(tiny_run: Path) -> None:
    for arguments in (
        (),
        ("--artifact", tiny_run, "--baseline", "popularity"),
        ("--baseline", "popularity"),
        ("--baseline", "bpr", "--dataset", tiny_run),
        ("--baseline", "popularity", "--dataset", tiny_run, "--beam-width", 5),
        ("--baseline", "popularity", "--dataset", tiny_run, "--experts", "codes"),
        ("--artifact", tiny_run, "--embeddings", tiny_run),
        ("--baseline", "item_knn", "--dataset", tiny_run, "--embeddings", tiny_run),
    ):
        assert rqrec("evaluate", *arguments).exit_code == 2, arguments


def test_some_experts_of_a_joined_model_are_evaluated_beside_all(tiny_joined: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in ("dataset", "retrieval"):
        shutil.copytree(tiny_joined / name, run / name)
    histories = leave_one_out(Dataset.read(run).sequences).test
    recommender = Recommender.load(run)
    ids = recommender.catalog.id_map
    asked = [ids.ids(items[items >= 0].tolist()) for items in histories.histories(slice(None)).items_BT]
    targets = ids.ids(histories.targets)
    for words, names in (
        ((), ["codes", "codes_2", "dense", "neighbours"]),
        (("neighbours",), ["neighbours"]),
        (("dense", "codes"), ["codes", "codes_2", "dense"]),
    ):
        options = [part for word in words for part in ("--experts", word)]
        result = result_of(rqrec("evaluate", "--artifact", run, *options, "--json"))
        folder = run / "_".join(("evaluation_test", *words))
        assert list(read_manifest(folder, "evaluation").settings["experts"]) == names
        assert result["recommender"] == ", ".join(names)
        found = recommender.recommend(asked, k=10, experts=words or None)
        hits = [
            target in [item.item_id for item in each] for target, each in zip(targets, found, strict=True)
        ]
        assert result["metrics"]["recall@10"] == pytest.approx(np.mean(hits), abs=0.01)
    assert len(list(run.glob("evaluation_*"))) == 3


def train(command: str, config: str, settings: dict[str, Any]) -> dict:
    given = [part for setting in bindings(settings) for part in ("--gin", setting)]
    return result_of(rqrec(command, CONFIGS / config, *given, "--json"))


def test_sasrec_trains_by_command_and_is_evaluated_like_any_model(tmp_path: Path) -> None:
    world = write_world(tmp_path / "world")
    settings = {
        "dataset": "custom",
        "dataset_folder": str(world),
        "save_dir_root": str(tmp_path / "run"),
        "iterations": 20,
        "learning_rate": 1e-2,
        "warmup": 2,
        "batch_size": 32,
        "max_items": 4,
        "attn_embed_dim": 16,
        "attn_layers": 1,
        "attn_dropout": 0.1,
        "full_eval_every": 10,
    }
    trained = train("train-sasrec", "sasrec_amazon.gin", settings)
    assert trained["artifact"] == str(tmp_path / "run" / "sasrec")
    assert trained["validation"]["step"] in (10, 20)
    dataset = world / "processed" / "own"
    result = result_of(rqrec("evaluate", "--artifact", tmp_path / "run", "--dataset", dataset, "--json"))
    assert result["artifact"] == str(tmp_path / "run" / "evaluation_test")
    assert result["recommender"] == "SASRec"
    beam = ("--beam-width", 10)
    fails(rqrec("evaluate", "--artifact", tmp_path / "run", "--dataset", dataset, *beam), "no beam")


def test_items_added_after_training_are_measured_separately(tmp_path: Path) -> None:
    whole, cold = tmp_path / "whole", tmp_path / "cold"
    write_inputs(whole)
    options = ("--dataset", whole, "--embeddings", whole)
    held = result_of(rqrec("hold-out-items", *options, "--out", cold, "--share", 0.1, "--json"))
    assert held["held_out"] == 5
    new_ids = set((cold / "new_ids.txt").read_text().split("\n")[:-1])
    log = pl.read_parquet(cold / "warm" / "log.parquet")
    assert len(new_ids) == 5
    assert new_ids.isdisjoint(log["item_id"])
    assert new_ids.isdisjoint(pl.read_parquet(cold / "warm" / "items.parquet")["item_id"])
    assert len(np.load(cold / "warm" / "item_embeddings.npy")) == 43

    tokenizer, run = tmp_path / "rqvae", tmp_path / "run"
    train("train-rqvae", "custom.gin", rqvae_settings(cold / "warm", tokenizer))
    settings = decoder_settings(cold / "warm", run, pretrained_rqvae_path=str(tokenizer), time_gaps=6)
    train("train-decoder", "decoder_custom.gin", settings)

    # Training prepared the data where it lies, inside the artefact, which is found again.
    again = result_of(rqrec("hold-out-items", *options, "--out", cold, "--share", 0.1, "--json"))
    assert again == held

    more = ("--artifact", run, "--json")
    result = result_of(rqrec("evaluate-cold", cold, *options, *more))
    targets = leave_one_out(Dataset.read(whole).sequences).test.targets
    ids = np.array(Dataset.read(whole).catalog.id_map.all)
    n_cold = int(np.isin(ids[targets], sorted(new_ids)).sum())
    for row in result["recommenders"].values():
        assert row["cold"]["cases"] == n_cold
        assert row["warm"]["cases"] == len(targets) - n_cold
    rows = {name: row["cold"]["metrics"]["recall@10"] for name, row in result["recommenders"].items()}
    assert rows["popularity"] == 0
    assert rows["content_knn"] > 0.8
    assert rows["without new items"] == 0
    assert rows["with new items"] == result["chosen"]["cold"]
    assert result["curve"][-1]["cold"] > 0.5
    warm = [one["warm"] for one in result["curve"]]
    assert warm == sorted(warm, reverse=True)
    assert (run / "evaluation_cold" / "curve.png").stat().st_size > 1000
    assert "cold targets" in (run / "evaluation_cold" / "report.md").read_text()

    # A model of the complete log may know the targets, even if it has the items of the rest.
    leaky, log = tmp_path / "leaky", pl.read_parquet(cold / "warm" / "log.parquet")
    shutil.copytree(cold / "warm", leaky, ignore=shutil.ignore_patterns("processed"))
    pl.concat([log, log.head(1).with_columns(pl.col("timestamp") + 10**9)]).write_parquet(
        leaky / "log.parquet"
    )
    settings = decoder_settings(leaky, tmp_path / "leaky_run", pretrained_rqvae_path=str(tokenizer))
    train("train-decoder", "decoder_custom.gin", settings)
    command = ("evaluate-cold", cold, *options, "--artifact", tmp_path / "leaky_run")
    fails(rqrec(*command), "may know the targets", "train.dataset_folder")

    others = tmp_path / "others"
    write_inputs(others)
    tiny_dataset(100).write(others / "dataset", {"source": "tiny"}, {})
    fails(
        rqrec("evaluate-cold", cold, "--dataset", others, "--embeddings", whole, *more), "was not made from"
    )


@pytest.mark.parametrize("command", ["evaluate", "batch-recommend"])
def test_a_device_that_is_not_there_is_refused(command: str, tiny_run: Path, tmp_path: Path) -> None:
    options = {"evaluate": (), "batch-recommend": ("--input", tmp_path / "x.csv", "--out", tmp_path / "out")}
    (tmp_path / "x.csv").write_text("user_id,history\n1,2\n")
    done = rqrec(command, "--artifact", tiny_run, "--device", "cuda:99", *options[command])
    fails(done, "device is 'cuda:99', but there ")
