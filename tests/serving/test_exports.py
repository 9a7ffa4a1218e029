"""Vectors of a model: states of users from Python, items and codes as files."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import read_manifest
from rqrec.models.architectures import ARCHITECTURES
from tests.retrieval.test_artifact import fresh_artifact, write
from tests.tiny import N_ITEMS

HISTORIES = [["item 8", "item 9"], [], ["item 3"]]


def test_the_state_of_the_dense_expert_and_its_item_vectors_are_its_ranking(tiny_joined: Path) -> None:
    recommender = Recommender.load(tiny_joined)
    logits_BN = recommender.embed(HISTORIES, expert="dense") @ recommender.item_vectors("dense").T
    found = recommender.recommend(HISTORIES, k=N_ITEMS, experts=["dense"], exclude_seen=False)
    log_p_BN = torch.from_numpy(logits_BN).log_softmax(1)
    for row, recommended in enumerate(found):
        for item in recommended:
            number = int(item.item_id.removeprefix("item "))
            assert item.score == pytest.approx(float(log_p_BN[row, number]), abs=1e-4)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_state_of_the_codes_expert_predicts_the_first_code(name: str) -> None:
    recommender = Recommender(fresh_artifact(name))
    states_BD = recommender.embed(HISTORIES)
    assert states_BD.dtype == np.float32
    model = recommender.model
    states = torch.from_numpy(states_BD)
    with torch.no_grad():
        if name == "hierarchical":  # a small decoder lies between the state and the codes
            first_BV = model.next_logits(states, torch.zeros(len(states), 1, 0, dtype=torch.int64))[:, 0]
        else:
            first_BV = model._logits(states, 0)
    for row, history in enumerate(HISTORIES):
        for item in recommender.recommend([history], k=5, exclude_seen=False)[0]:
            step = recommender.explain(history, item.item_id).path[0]
            in_use = sorted(set(recommender.table.codes_NL[:, 0].tolist()))
            log_p = first_BV[row, in_use].log_softmax(0)[in_use.index(step.code)]
            assert step.probability == pytest.approx(float(log_p.exp()), abs=1e-4)


def test_items_and_codes_are_exported_with_what_their_rows_are(tiny_joined: Path, tmp_path: Path) -> None:
    recommender = Recommender.load(tiny_joined)

    def run(*options: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["export", str(tiny_joined), *map(str, options)])
        return done.exit_code, done.stderr

    assert run("--out", tmp_path / "items.npy", "--expert", "dense")[0] == 0
    assert np.array_equal(np.load(tmp_path / "items.npy"), recommender.item_vectors("dense"))
    rows = pl.read_parquet(tmp_path / "items.rows.parquet")
    assert rows["item_id"].to_list() == recommender.catalog.id_map.all.to_list()
    assert run("--what", "codes", "--out", tmp_path / "codes.safetensors")[0] == 0
    vectors = load_file(tmp_path / "codes.safetensors")["vectors"]
    table = pl.read_parquet(tmp_path / "codes.rows.parquet").with_row_index("row")
    levels = recommender.code_vectors()
    for row, level, code in table.iter_rows():
        assert np.array_equal(vectors[row], levels[level][code])
    assert len(table) == sum(recommender.table.level_sizes)
    for options, problem in (
        (("--out", tmp_path / "x.csv"), "such as vectors.npy or vectors.safetensors"),
        (("--out", tmp_path / ".npy"), "such as vectors.npy or vectors.safetensors"),
        (("--out", tmp_path / "x.npy", "--expert", "neighbours"), "no trained expert 'neighbours'"),
        (("--out", tmp_path / "x.npy", "--expert", "dense", "--what", "codes"), "'dense' has no codes"),
        (
            ("--out", tmp_path / "x", "--expert", "neighbours", "--what", "onnx"),
            "no trained expert 'neighbours'",
        ),
    ):
        status, said = run(*options)
        assert (status, problem in said) == (1, True), said


class OnnxExpert:
    """An exported expert, run without rqrec's models."""

    def __init__(self, folder: Path) -> None:
        onnxruntime = pytest.importorskip("onnxruntime")
        self.settings: Mapping[str, Any] = read_manifest(folder, "onnx", verify=True).settings
        self.items = pl.read_parquet(folder / "items.parquet")
        self.sessions = {
            name: onnxruntime.InferenceSession(folder / name, providers=["CPUExecutionProvider"])
            for name in self.settings["files"]
        }

    def run(self, name: str, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = self.settings["files"][name]
        feed = {one: given[one] for one in names["inputs"]}
        return dict(zip(names["outputs"], self.sessions[name].run(names["outputs"], feed), strict=True))

    def encode(self, histories: list[list[str]]) -> dict[str, np.ndarray]:
        index = {item_id: number for number, item_id in enumerate(self.items["item_id"])}
        items_BT = np.full((len(histories), self.settings["max_items"]), -1, dtype=np.int64)
        for row, history in zip(items_BT, histories, strict=True):
            row[: len(history)] = [index[item_id] for item_id in history]
        return self.run("encoder.onnx", {"items": items_BT})

    def log_probs(self, histories: list[list[str]]) -> np.ndarray:
        """Of all items, [B, N]."""
        context = self.encode(histories)
        if self.settings["type"] == "dense":
            logits_BN = torch.from_numpy(self.run("head.onnx", context)["logits"])
            return logits_BN.log_softmax(1).numpy()
        codes_NL = np.array(self.items["semantic_id"].to_list())
        total_BN = np.zeros((len(histories), len(codes_NL)))
        for level in range(codes_NL.shape[1]):
            prefixes_Kl, of_item_N = np.unique(codes_NL[:, :level], axis=0, return_inverse=True)
            prefix_BKl = np.repeat(prefixes_Kl[None], len(histories), axis=0)
            logits_BKV = self.run(f"level_{level}.onnx", {**context, "prefix": prefix_BKl})["logits"]
            exists_KV = np.zeros(logits_BKV.shape[1:], dtype=bool)
            exists_KV[of_item_N.ravel(), codes_NL[:, level]] = True
            log_p_BKV = torch.from_numpy(np.where(exists_KV, logits_BKV, -np.inf)).log_softmax(2).numpy()
            total_BN += log_p_BKV[:, of_item_N.ravel(), codes_NL[:, level]]
        return total_BN


def check_parity(recommender: Recommender, exported: OnnxExpert) -> None:
    expert = exported.settings["expert"]
    log_p_BN = exported.log_probs(HISTORIES)
    assert np.exp(log_p_BN).sum(1) == pytest.approx(1.0, abs=1e-4)
    found = recommender.recommend(HISTORIES, k=N_ITEMS, experts=[expert], exclude_seen=False)
    rows = {item_id: row for row, item_id in enumerate(exported.items["item_id"])}
    for said, items in zip(log_p_BN, found, strict=True):
        assert len(items) >= N_ITEMS // 2
        for item in items:
            assert item.score == pytest.approx(said[rows[item.item_id]], abs=1e-4)


def test_the_dense_expert_is_the_same_as_onnx_files(tiny_joined: Path, tmp_path: Path) -> None:
    out = tmp_path / "onnx"
    done = CliRunner().invoke(
        app, ["export", str(tiny_joined), "--what", "onnx", "--expert", "dense", "--out", str(out)]
    )
    assert (done.exit_code, done.stdout) == (0, f"{out}: encoder.onnx, head.onnx\n"), done.stderr
    check_parity(Recommender.load(tiny_joined), OnnxExpert(out))
    done = CliRunner().invoke(
        app, ["export", str(tiny_joined), "--what", "onnx", "--expert", "codes", "--out", str(out)]
    )
    assert (done.exit_code, "has the expert 'dense': choose another folder for 'codes'" in done.stderr) == (
        1,
        True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_the_same_as_onnx_files(name: str, tmp_path: Path) -> None:
    model, out = tmp_path / "retrieval", tmp_path / "onnx"
    write(model, fresh_artifact(name))
    done = CliRunner().invoke(app, ["export", str(model), "--what", "onnx", "--out", str(out)])
    assert done.exit_code == 0, done.stderr
    check_parity(Recommender.load(model), OnnxExpert(out))


def test_an_export_replaces_nothing_but_an_earlier_export(tiny_joined: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_joined / "retrieval", tmp_path / "model")
    (tmp_path / "mine.npy").write_bytes(b"mine")

    def run(out: Path, *options: str) -> str:
        done = CliRunner().invoke(app, ["export", str(model), "--out", str(out), *options])
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        return done.stderr

    (tmp_path / "own.rows.parquet").write_bytes(b"mine")
    assert "mine.npy is there already and is no earlier result" in run(tmp_path / "mine.npy")
    assert "own.rows.parquet is there already and is no earlier result" in run(tmp_path / "own.npy")
    assert (tmp_path / "own.rows.parquet").read_bytes() == b"mine"
    assert "an artefact that another file would damage" in run(model / "item_embeddings.npy")
    assert "an artefact that another file would damage" in run(model / "experts" / "onnx", "--what", "onnx")
    assert (tmp_path / "mine.npy").read_bytes() == b"mine"
    read_manifest(model, "retrieval", verify=True)
    for _ in range(2):
        done = CliRunner().invoke(app, ["export", str(model), "--out", str(tmp_path / "items.npy")])
        assert done.exit_code == 0, done.stderr
    said = run(tmp_path / "items.safetensors")
    assert "items.rows.parquet lists the rows of" in said
    (tmp_path / "items.npy").unlink()  # as after a kill between the two files
    done = CliRunner().invoke(app, ["export", str(model), "--out", str(tmp_path / "items.npy")])
    assert done.exit_code == 0, done.stderr
