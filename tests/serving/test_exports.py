"""Vectors of a model: states of users from Python, items and codes as files."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.models.architectures import ARCHITECTURES
from tests.retrieval.test_artifact import fresh_artifact
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
        (("--out", tmp_path / "x.csv"), "must end in .npy or .safetensors"),
        (("--out", tmp_path / "x.npy", "--expert", "neighbours"), "no trained expert 'neighbours'"),
        (("--out", tmp_path / "x.npy", "--expert", "dense", "--what", "codes"), "'dense' has no codes"),
    ):
        status, said = run(*options)
        assert (status, problem in said) == (1, True), said
