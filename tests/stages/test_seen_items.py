"""`exclude_seen` is one choice of training, which evaluation and recommendation follow by default."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from rqrec.cli import app
from rqrec.core.artifact import create, read_json, read_manifest
from rqrec.core.config import with_settings
from rqrec.core.workers import LocalProcesses
from rqrec.data.catalog import Catalog
from rqrec.data.dataset import Dataset
from rqrec.serving.app import create_app
from rqrec.serving.batch import BatchConfig, batch_recommend
from rqrec.serving.config import ServiceConfig
from rqrec.serving.metrics import Metrics
from rqrec.serving.model_registry import ModelRegistry
from rqrec.serving.recommender import Recommender
from rqrec.stages.evaluate import EvaluateConfig, evaluate, evaluate_baseline
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_sasrec import TrainSasRecConfig, train_sasrec
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from tests.data.test_splits import sequences_of
from tests.serving.running import LOCAL

N_ITEMS = 8  # a list of 10 holds all of them, so a target is missed only if it is excluded
USERS = 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every user takes one item again and again; and semantic IDs of the items."""
    root = tmp_path_factory.mktemp("again")
    ids = [f"item {item}" for item in range(N_ITEMS)]
    catalog = Catalog(pl.DataFrame({"item_id": ids, "title": ids, "text": ids}))
    sequences = sequences_of(*([user % N_ITEMS] * 5 for user in range(USERS)))
    Dataset(catalog, sequences).write(root / "dataset", {"source": "again"}, {})
    codes_NL = np.stack([np.arange(N_ITEMS) % 4, np.arange(N_ITEMS) // 4], axis=1)
    with create(root / "semantic_ids", "semantic_ids") as target:
        SemanticIdTable.from_codes(catalog.id_map, codes_NL, (4, 2), "made by hand").write(target)
    return root


def train(root: Path, out: Path, name: str, **more: Any) -> Path:
    common = {"iterations": 2, "batch_size": 8, "attn_embed_dim": 16, "attn_layers": 1, "attn_heads": 2}
    settings = {**common, "save_dir_root": str(out), "full_eval_every": 0, **more}
    if name == "sasrec":
        return train_sasrec(with_settings(TrainSasRecConfig(), settings), dataset=root / "dataset")
    config = with_settings(TrainDecoderConfig(), {"architecture": name, "decoder_embed_dim": 16, **settings})
    return train_decoder(config, dataset=root / "dataset", semantic_ids=root / "semantic_ids")


@pytest.mark.parametrize("name", ["sasrec", "decoder_only", "encoder_decoder", "hierarchical"])
def test_models_are_selected_and_evaluated_with_or_without_seen_items(
    root: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for exclude_seen, recall in ((True, 0), (False, 1)):
        model = train(root, tmp_path / str(exclude_seen), name, exclude_seen=exclude_seen)
        warned = "20 of the 20 validation targets are in their history" in capsys.readouterr().err
        assert warned is exclude_seen
        manifest = read_manifest(model)
        assert manifest.settings["exclude_seen"] is exclude_seen
        assert manifest.metrics["validation"]["recall@10"] == recall
        out = evaluate(EvaluateConfig(), model, root / "dataset", out=model.parent / "e")
        result = read_json(out / "evaluation.json")
        assert result["exclude_seen"] is exclude_seen
        assert result["metrics"]["recall@10"] == recall
        assert result["targets_in_history"] == USERS
        seen = {choice: row["metrics"]["recall@10"] for choice, row in result["seen_items"].items()}
        assert seen == {"excluded": 0, "allowed": 1}
        report = (out / "report.md").read_text()
        assert ("20 of the 20 targets are in their history" in report) is exclude_seen
        assert f"seen items {'excluded' if exclude_seen else 'allowed'}" in result["selected"]


def test_the_command_warns_of_targets_that_cannot_be_hit(root: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", "--baseline", "popularity", "--dataset", str(root), "--out", str(tmp_path / "e")]
    done = CliRunner().invoke(app, arguments)
    assert "20 of the 20 targets are in their history" in done.stdout
    assert "seen items excluded:\n  recall@5   0.0000" in done.stdout
    done = CliRunner().invoke(app, [*arguments, "--allow-seen", "--force"])
    assert "targets are in their history" not in done.stdout
    result = read_json(
        evaluate_baseline(
            EvaluateConfig(exclude_seen=False), "popularity", root / "dataset", out=tmp_path / "e"
        )
        / "evaluation.json"
    )
    assert result["metrics"]["recall@10"] == 1


def test_recommendations_follow_the_model_unless_told_otherwise(root: Path, tmp_path: Path) -> None:
    history = [["item 1", "item 2"]]
    log = pl.DataFrame({"user_id": ["u"], "history": history})
    log.write_parquet(tmp_path / "users.parquet")
    for exclude_seen in (True, False):
        run = tmp_path / str(exclude_seen)
        train(root, run, "hierarchical", exclude_seen=exclude_seen)
        expected = {None: N_ITEMS - 2 * exclude_seen, True: N_ITEMS - 2, False: N_ITEMS}
        recommender = Recommender.load(run)
        config, metrics = ServiceConfig(), Metrics()
        registry = ModelRegistry({"m": run}, config, metrics)
        client = TestClient(create_app(registry, config, metrics), LOCAL)
        with closing(registry):
            for choice, count in expected.items():
                (items,) = recommender.recommend(history, N_ITEMS, exclude_seen=choice)
                assert len(items) == items.n_allowed == count
                body = {"history": history[0], "k": N_ITEMS, "exclude_seen": choice}
                answer = client.post("/v1/recommendations", json=body).json()
                assert len(answer["recommendations"][0]["items"]) == count
                flag = {None: [], True: ["--exclude-seen"], False: ["--allow-seen"]}[choice]
                command = [
                    "recommend",
                    "--artifact",
                    str(run),
                    "--history",
                    "item 1,item 2",
                    "--k",
                    "8",
                    "--json",
                ]
                printed = CliRunner().invoke(app, [*command, *flag])
                assert printed.stdout.count('"item_id"') == count
                folder = tmp_path / f"{exclude_seen} {choice}"
                options = BatchConfig(k=N_ITEMS, exclude_seen=choice)
                batch_recommend(run, tmp_path / "users.parquet", folder, options, LocalProcesses(1))
                (row,) = pl.read_parquet(folder / "*.parquet")["item_ids"].to_list()
                assert len(row) == count
