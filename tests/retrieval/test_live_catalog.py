"""A catalogue that changes after training: items added, removed and updated, and its versions on disk."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from rqrec.core.artifact import create, read_json, read_manifest
from rqrec.data.catalog import Catalog
from rqrec.data.ids import PADDING, IdMap, UnknownIdError
from rqrec.data.nearest import unit
from rqrec.data.sequences import Histories
from rqrec.knn.graph import content_knn_graph
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import ARCHITECTURES, architecture, build_model
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval import new_items as new_items_module
from rqrec.retrieval.artifact import CodesModel, RetrievalArtifact, read_retrieval, write_retrieval
from rqrec.retrieval.changes import CatalogueChanges, current_version
from rqrec.retrieval.constraints import Constraints, ItemRules, Limit
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.retrieval.item_vectors import ItemVectors, VectorSettings
from rqrec.retrieval.live_catalog import (
    add_items,
    apply_changes,
    describe_items,
    remove_items,
    update_items,
)
from rqrec.retrieval.new_items import ContentExpert, Likeness, NewItemSettings
from rqrec.retrieval.versions import change, live_hash, live_types, read_live, roll_back, versions
from rqrec.tokenizer.loading import KeptTokenizer
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from tests.tiny import DIM, N_ITEMS, tiny_dataset, tiny_vectors

NEW = 5
HISTORIES = Histories.of([[8, 9], [], [40, 41, 42], [3]])


def new_items(count: int = NEW) -> pl.DataFrame:
    ids = [f"new {number}" for number in range(count)]
    return pl.DataFrame({"item_id": ids, "title": [f"New {one}" for one in ids], "text": ids})


def new_vectors(count: int = NEW) -> np.ndarray:
    """Close to the vectors of items 0, 8, 16, ..."""
    return tiny_vectors()[: count * 8 : 8] + 0.01 * np.random.default_rng(3).normal(size=(count, DIM))


def kmeans(seed: int) -> RqKMeans:
    model = RqKMeans(RqKMeansConfig(DIM, codebook_size=(6, 6), n_layers=2))
    model.fit(tiny_vectors(), torch.Generator().manual_seed(seed))
    return model


def trained(
    name: str = "hierarchical", content: bool = True, vectors: np.ndarray | None = None
) -> RetrievalArtifact:
    """Four experts of the tiny catalogue with random weights; both semantic-ID tables have another tokenizer."""
    torch.manual_seed(0)
    x_ND, catalog = tiny_vectors() if vectors is None else vectors, tiny_dataset(6).catalog
    options: dict[str, Any] = {"content_dim": DIM, "item_embed_dim": 4, "n_items": N_ITEMS} if content else {}

    def codes(name: str, seed: int) -> CodesModel:
        tokenizer = kmeans(seed)
        table = SemanticIdTable.from_codes(
            catalog.id_map, tokenizer.semantic_ids(x_ND).numpy(), (6, 6), "tiny"
        )
        model = build_model(architecture(name).config(table.level_sizes, 5, 12, 16, 2, 1, 0.3, **options))
        if content:
            model.item_input.content.set(x_ND)
        return CodesModel(model.eval(), table, KeptTokenizer(tokenizer, "tiny"))

    first, second = codes(name, 0), codes("decoder_only", 1)
    dense = SasRec(SasRecConfig(N_ITEMS, 5, 8, 2, 1, content_dim=DIM if content else 0))
    if dense.content is not None:
        dense.content.set(x_ND)
    index = KnnIndex.from_similarity(content_knn_graph(x_ND, 6)).with_settings(content_weight=0.1)
    return RetrievalArtifact(
        first.model,
        first.table,
        catalog,
        others={"codes_2": second, "dense": dense.eval(), "neighbours": index},
        settings={
            "codes": ExpertSettings(0.5),
            "codes_2": ExpertSettings(0.2),
            "dense": ExpertSettings(0.3),
            "neighbours": ExpertSettings(2.0, 0.4),
        },
        tokenizer=first.tokenizer,
        vectors=ItemVectors(x_ND, VectorSettings("tiny")),
    )


def write(folder: Path, artifact: RetrievalArtifact) -> Path:
    with create(folder, "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, artifact)
    return folder


def with_new(artifact: RetrievalArtifact) -> RetrievalArtifact:
    return apply_changes(artifact, add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors()))


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_about_known_items_do_not_move(name: str, content: bool) -> None:
    before = trained(name, content)
    after = with_new(before)
    known_N = np.arange(N_ITEMS + NEW) < N_ITEMS
    assert np.array_equal(after.table.codes_NL[:N_ITEMS], before.table.codes_NL)
    for experts in (None, ["codes"], ["codes_2"], ["dense"], ["neighbours"], ["trained"]):
        one = before.recommender(experts=experts).recommend(HISTORIES, 7)
        other = after.recommender(experts=experts).recommend(
            HISTORIES, 7, rules=ItemRules(torch.from_numpy(known_N))
        )
        assert one.items.tolist() == other.items.tolist()
        torch.testing.assert_close(one.scores, other.scores)
    everything = after.recommender().recommend(HISTORIES, N_ITEMS + NEW)
    for row, whole in zip(
        everything.items.tolist(),
        before.recommender().recommend(HISTORIES, N_ITEMS).items.tolist(),
        strict=True,
    ):
        assert [item for item in row if 0 <= item < N_ITEMS] == [item for item in whole if item >= 0]
        assert {item for item in row if item >= N_ITEMS} == set(range(N_ITEMS, N_ITEMS + NEW))
    assert (everything.scores.exp().nansum(1) <= 1 + 1e-5).all()


def test_a_new_item_is_recommended_after_a_history_of_similar_ones() -> None:
    after = with_new(trained())
    found = after.recommender(experts=["content"]).recommend(Histories.of([[9, 10], [33, 34]]), 1)
    assert found.items.tolist() == [[N_ITEMS + 1], [N_ITEMS + 4]]
    everything = after.recommender().recommend(Histories.of([[9, 10], [33, 34]]), 20)
    for row, item in zip(everything.items.tolist(), (N_ITEMS + 1, N_ITEMS + 4), strict=True):
        assert item in row


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_added_items_are_as_if_they_had_been_in_the_tables_from_the_start(name: str, content: bool) -> None:
    """Compared with models of all items that are built at once, with untrained vectors of the new ones."""
    before = trained(name, content)
    added = with_new(before)
    assert added.live is not None
    x_ND = tiny_vectors()
    scaled = (new_vectors() - x_ND.mean(0)) / x_ND.std(0, ddof=1).mean()

    def whole(model: Any) -> Any:
        larger = {"n_items": N_ITEMS + NEW} if content or isinstance(model, SasRec) else {}
        config = replace(model.config, **larger)
        other = SasRec(config) if isinstance(model, SasRec) else build_model(config)
        state = model.state_dict()
        for key in ("items.weight", "item_input.vector.weight"):
            if key in state:
                state[key] = torch.cat([state[key], torch.zeros(NEW, state[key].shape[1])])
        for key in ("content.vectors_NC", "item_input.content.vectors_NC"):
            if key in state:
                state[key] = torch.cat([state[key], torch.tensor(scaled, dtype=torch.float16)])
        other.load_state_dict(state)
        return other.eval()

    others = {
        expert: CodesModel(whole(before.others[expert].model), one.table) if expert == "codes_2" else one
        for expert, one in added.others.items()
    }
    others["dense"] = whole(before.others["dense"])
    started = added._replace(model=whole(before.model), others=others)
    histories = Histories.of([[8, N_ITEMS + 1], [N_ITEMS], [40, 41, 42], [], [N_ITEMS + 2, N_ITEMS + 3, 3]])
    for experts in (None, ["codes"], ["codes_2"], ["dense"], ["neighbours"], ["content"]):
        one, other = (each.recommender(experts=experts).recommend(histories, 12) for each in (added, started))
        assert one.items.tolist() == other.items.tolist(), experts
        torch.testing.assert_close(one.scores, other.scores, atol=1e-4, rtol=0)
        assert not {N_ITEMS + 1} & {*one.items[0].tolist()}, "seen items are left out"
    read = added.others["neighbours"].neighbours_NM[N_ITEMS:]
    assert ((read >= 0) & (read < N_ITEMS)).any(1).all()
    assert before.others["dense"].items.num_embeddings == N_ITEMS  # the model before is unchanged
    assert before.model.config.n_items == (N_ITEMS if content else 0)


def test_items_added_in_two_steps_or_read_again_are_as_those_added_at_once(tmp_path: Path) -> None:
    artifact, items, vectors = trained(), new_items(), new_vectors()
    folder = write(tmp_path / "model", artifact)
    at_once = with_new(artifact)
    first = change(folder, "two", lambda *now: add_items(*now, items[:2], vectors[:2]))
    second = change(folder, "three", lambda *now: add_items(*now, items[2:], vectors[2:]), first)
    again = read_live(folder)
    assert (first.version, second.version, again.version) == (1, 2, 2)
    for live in (second, again):
        for histories in (HISTORIES, Histories.of([[N_ITEMS + 1, 3]])):
            one, other = (each.recommender().recommend(histories, 20) for each in (at_once, live.artifact))
            assert one.items.tolist() == other.items.tolist()
            torch.testing.assert_close(one.scores, other.scores)
        assert live.artifact.catalog.items.equals(at_once.catalog.items)
        assert np.array_equal(live.artifact.table.codes_NL, at_once.table.codes_NL)


def test_removed_items_are_never_recommended_and_kept_in_histories() -> None:
    artifact = trained()
    changes = add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors())
    gone = ["item 10", "item 43", "new 1"]
    after = apply_changes(artifact, remove_items(artifact, changes, gone))
    indices = {*after.catalog.id_map.indices(gone).tolist()}
    histories = Histories.of([[8, 9], [10, N_ITEMS + 1], [], [40, 41, 42]])
    for experts in (None, ["codes"], ["codes_2"], ["dense"], ["neighbours"], ["content"]):
        found = after.recommender(experts=experts).recommend(histories, N_ITEMS + NEW)
        assert not indices & {*found.items.flatten().tolist()}
    left = after.recommender().recommend(histories, N_ITEMS + NEW).items
    assert (left[2] >= 0).sum() == N_ITEMS + NEW - 3
    # A history with a removed item is read as before.
    kept_N = np.ones(N_ITEMS, dtype=bool)
    kept_N[[10, 43]] = False
    one = artifact.recommender(experts=["codes"]).recommend(
        Histories.of([[10, 9]]), 5, rules=ItemRules(torch.from_numpy(kept_N))
    )
    other = after.recommender(experts=["codes"]).recommend(Histories.of([[10, 9]]), 5)
    assert one.items.tolist() == other.items.tolist()
    torch.testing.assert_close(one.scores, other.scores)


def test_neighbours_alone_answer_histories_without_neighbours_with_the_most_popular_items(
    tmp_path: Path,
) -> None:
    """For instance histories of removed items: here none of the items 40 to 47 has a neighbour."""
    artifact = trained()
    index = artifact.others["neighbours"]
    isolated_N = np.arange(N_ITEMS) >= 40
    counts = torch.arange(N_ITEMS) // 2
    index = replace(
        index,
        neighbours_NM=index.neighbours_NM.where(~torch.from_numpy(isolated_N)[:, None], -1),
        similarity_NM=index.similarity_NM.where(~torch.from_numpy(isolated_N)[:, None], 0.0),
        counts_N=counts,
    )
    counted = artifact._replace(others={**artifact.others, "neighbours": index})
    folder = write(tmp_path / "model", counted)
    change(folder, "two added", lambda *now: add_items(*now, new_items(2), new_vectors(2)))
    change(folder, "three removed", lambda *now: remove_items(*now, ["item 40", "item 43", "item 47"]))
    live = read_live(folder).artifact
    histories = Histories.of([[40, 43], [], [47, 46, 46], [0]])
    found = live.recommender(experts=["neighbours"]).recommend(histories, 4)
    assert found.items[:3].tolist() == [[46, 44, 45, 42], [46, 44, 45, 42], [44, 45, 42, 41]]
    allowed_N = torch.from_numpy(live.live.available_N & live.live.known) if live.live else torch.empty(0)
    weights_N = (counts + 1.0) * allowed_N[:N_ITEMS]
    torch.testing.assert_close(found.scores[0].exp(), weights_N[[46, 44, 45, 42]] / weights_N.sum())
    rest_N = weights_N.index_fill(0, torch.tensor([46]), 0.0)
    torch.testing.assert_close(found.scores[2].exp(), weights_N[[44, 45, 42, 41]] / rest_N.sum())
    before = apply_changes(artifact, remove_items(artifact, CatalogueChanges.none(), ["item 40"]))
    unchanged = before.recommender(experts=["neighbours"]).recommend(Histories.of([[0]]), 4)
    assert found.items[3].tolist() == unchanged.items[0].tolist()
    # With rules, within limits, and with boosts that lift an item of which nobody has heard.
    even_N = torch.arange(len(live.catalog)) % 2 == 0
    rules = ItemRules(even_N, None, (Limit((torch.arange(len(even_N)) % 4)[:, None], 2),))
    ruled = live.recommender(experts=["neighbours"]).recommend(histories, 4, rules=rules)
    assert ruled.items[0].tolist() == [46, 44, 42, 36]
    boost_N = torch.zeros(len(even_N)).index_fill(0, torch.tensor([1]), 50.0)
    lifted = live.recommender(experts=["neighbours"]).recommend(
        histories, 3, rules=ItemRules(boost_N=boost_N)
    )
    assert lifted.items[0].tolist() == [1, 46, 44]
    # An artefact without counts answers with nothing, and the whole model with the others' items.
    nothing = before.recommender(experts=["neighbours"]).recommend(Histories.of([[]]), 4)
    assert (nothing.items == -1).all()
    whole = [
        one.recommender().recommend(Histories.of([[], [40]]), 9)
        for one in (counted, apply_changes(counted, CatalogueChanges.none()))
    ]
    assert whole[0].items.tolist() == whole[1].items.tolist()


def test_all_new_items_removed_leave_the_answers_of_the_training() -> None:
    artifact = trained()
    changes = add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors())
    after = apply_changes(artifact, remove_items(artifact, changes, new_items()["item_id"].to_list()))
    assert after.types == artifact.types
    one, other = (each.recommender().recommend(HISTORIES, 9) for each in (artifact, after))
    assert one.items.tolist() == other.items.tolist()
    torch.testing.assert_close(one.scores, other.scores)


def test_an_item_that_is_added_again_comes_back_as_it_was() -> None:
    artifact = trained()
    changes = add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors())
    removed = remove_items(artifact, changes, ["item 10", "new 1"])
    again = pl.DataFrame({"item_id": ["new 1", "item 10"], "title": ["Back", "Ten"], "text": ["b", "t"]})
    back = add_items(artifact, removed, again, None)
    assert not len(back.removed)
    assert len(back.added) == NEW
    after = apply_changes(artifact, back)
    assert after.catalog.titles()[10] == "Ten"
    assert after.catalog.titles()[N_ITEMS + 1] == "Back"
    assert np.array_equal(after.table.codes_NL, with_new(artifact).table.codes_NL)
    with pytest.raises(ValueError, match="There are 2 items, but 1 vectors"):
        add_items(artifact, removed, pl.concat([again[:1], new_items(6)[5:]]), new_vectors(1))


def test_an_item_without_a_text_gets_that_of_its_title_and_fields() -> None:
    catalog = Catalog(pl.DataFrame({"item_id": ["a"], "title": ["A"], "text": ["A"], "price": [1.5]}))
    rows = [
        {"item_id": "b", "title": "A pot", "price": 9},
        {"item_id": "c", "title": "A pan"},
        {"item_id": "d", "title": "A lid", "text": "of glass", "price": 3},
    ]
    described = describe_items(rows, catalog, "{Name}; price: {price}")
    assert described["text"].to_list() == ["A pot; price: 9", "A pan", "of glass"]
    assert describe_items(rows, catalog)["text"].to_list() == ["A pot", "A pan", "of glass"]
    assert describe_items(rows[:1], catalog, "{text}")["text"].to_list() == ["A pot"]


@pytest.mark.parametrize("other", ["item", "described anew", "index", "value"])
def test_an_item_that_is_added_again_has_no_fields_but_those_given_now(tmp_path: Path, other: str) -> None:
    plain = trained()
    fields = pl.DataFrame({"price": [5.0] * N_ITEMS, "tags": [["old"]] * N_ITEMS, other: [True] * N_ITEMS})
    artifact = plain._replace(catalog=Catalog(plain.catalog.items.hstack(fields)))
    items = new_items().with_columns(pl.lit(5.0).alias("price"), pl.lit(["old"]).alias("tags"))
    items = items.with_columns(pl.lit(True).alias(other))
    changes = add_items(artifact, CatalogueChanges.none(), items, new_vectors())
    changes = update_items(artifact, changes, pl.DataFrame({"item_id": ["item 8"], other: [False]}))
    ids = ["item 9", "item 10", "new 1", "new 2"]
    before = pl.DataFrame({"item_id": ids[1:3], "price": [6.0, 6.0], "title": ["Old", "Old"]})
    changes = remove_items(artifact, update_items(artifact, changes, before), ids)
    again = {"item_id": ids, "title": list("abcd"), "text": list("abcd"), "price": [7.0, None, 7.0, None]}
    changes = add_items(artifact, changes, pl.DataFrame(again), None)
    changes = update_items(artifact, changes, pl.DataFrame({"item_id": ["new 2"], "tags": [["new"]]}))
    changes.write(tmp_path)
    for one in (changes, CatalogueChanges.read(tmp_path)):
        found = one.catalog(artifact.catalog)
        assert found.items.columns == artifact.catalog.items.columns
        rows = {row["item_id"]: (row["title"], row["price"], row["tags"]) for row in found.items.to_dicts()}
        others = dict(zip(found.items["item_id"], found.items[other], strict=True))
        assert [others[name] for name in ("item 7", "item 8", "item 9", "new 2", "new 3")] == [
            *(True, False, None, None, True)
        ]
        assert [rows[name] for name in ids] == [
            ("a", 7.0, None),
            ("b", None, None),
            ("c", 7.0, None),
            ("d", None, ["new"]),
        ]
        assert rows["item 8"][1:] == rows["new 3"][1:] == (5.0, ["old"])


def test_an_update_changes_title_and_text_and_nothing_else() -> None:
    artifact = trained()
    changes = add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors())
    values = pl.DataFrame({"item_id": ["item 3", "new 2"], "title": ["Three", None], "text": [None, "two"]})
    changes = update_items(artifact, changes, values)
    changes = update_items(artifact, changes, pl.DataFrame({"item_id": ["item 3"], "text": ["third"]}))
    after, plain = apply_changes(artifact, changes), with_new(artifact)
    rows = dict(zip(after.catalog.items["item_id"], after.catalog.items.rows(), strict=True))
    assert rows["item 3"] == ("item 3", "Three", "third")
    assert rows["new 2"] == ("new 2", "New new 2", "two")
    assert after.catalog.items.filter(~pl.col("item_id").is_in(["item 3", "new 2"])).equals(
        plain.catalog.items.filter(~pl.col("item_id").is_in(["item 3", "new 2"]))
    )
    assert np.array_equal(after.table.codes_NL, plain.table.codes_NL)


def test_an_item_whose_tuple_is_full_gets_the_nearest_free_one(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = trained()
    same = np.repeat(tiny_vectors()[:1], 8, axis=0)
    changes = add_items(artifact, CatalogueChanges.none(), new_items(8), same)
    assert "new items get the nearest free semantic ID of codes" in capsys.readouterr().err
    after = apply_changes(artifact, changes)
    assert artifact.tokenizer is not None
    costs = artifact.tokenizer.model.last_level_costs(same[:1])[0]
    first = after.table.codes_NL[0]
    new_ML = after.table.codes_NL[N_ITEMS:]
    assert (new_ML[:, 0] == first[0]).all()
    assert after.table.level_sizes == artifact.table.level_sizes
    chosen = [float(costs[code]) for code in new_ML[:, 1]]
    assert chosen == sorted(chosen)  # the nearest ones are taken first
    many = (
        6 * artifact.table.level_sizes[-1]
    )  # as many as begin with the same code: some must begin with others
    changes = add_items(artifact, changes, new_items(8 + many)[8:], np.repeat(same[:1], many, axis=0))
    codes_NL = apply_changes(artifact, changes).table.codes_NL
    assert len(np.unique(codes_NL, axis=0)) == N_ITEMS + 8 + many
    assert len(np.unique(codes_NL[-many:, 0])) > 1
    full = 36 * artifact.table.level_sizes[-1]
    with pytest.raises(ValueError, match="No semantic ID is free for new item"):
        add_items(
            artifact, changes, new_items(8 + many + full)[8 + many :], np.repeat(same[:1], full, axis=0)
        )


@pytest.mark.parametrize("has_extra_code", [True, False])
def test_free_ids_are_unique_with_and_without_a_deduplication_level(has_extra_code: bool) -> None:
    rng = np.random.default_rng(0)
    codes_NL = np.unique(rng.integers(0, 4, (40, 3)), axis=0)
    ids = IdMap([str(number) for number in range(len(codes_NL))])
    table = SemanticIdTable(ids, codes_NL, (4, 4, 4), "random", has_extra_code)
    new_ML = rng.integers(0, 4, (12, table.content_levels))
    costs_MV = rng.random((12, 4))
    found, moved = table.free_ids(new_ML, lambda rows: costs_MV[rows])
    assert len(np.unique(np.concatenate([codes_NL, found]), axis=0)) == len(codes_NL) + 12
    assert moved == (found[:, : table.content_levels] != new_ML).any(1).sum() > 0
    with pytest.raises(ValueError, match=r"the table needs \d for each new item"):
        table.free_ids(new_ML[:, 1:], lambda rows: costs_MV[rows])


def test_what_cannot_be_done_is_refused_in_a_sentence() -> None:
    artifact, none, items, vectors = trained(), CatalogueChanges.none(), new_items(2), new_vectors(2)
    assert artifact.vectors is not None
    twice = pl.concat([items, items[:1]])
    there = items.with_columns(item_id=pl.Series(["item 3", "new 1"]))
    for given, rows, message in (
        (twice, new_vectors(3), "Item id 'new 0' occurs more than once"),
        (there, vectors, "Item 'item 3' is in the catalogue already"),
        (items, None, "There are 2 items, but none vectors"),
        (items, new_vectors(3), "There are 2 items, but 3 vectors"),
        (items, vectors[:, :5], r"vectors of shape \[2, 5\], but those of this model have 16 dimensions"),
        (items, np.where(np.arange(2)[:, None] == 1, np.nan, vectors), "vector of new item 1 has NaN"),
    ):
        with pytest.raises(ValueError, match=message):
            add_items(artifact, none, given, rows)
    for lacking in (
        artifact._replace(vectors=None),
        artifact._replace(tokenizer=None),
        artifact._replace(vectors=ItemVectors(tiny_vectors(), VectorSettings("others"))),
    ):
        with pytest.raises(ValueError, match=r"does not hold its tokenizers.*rqrec tokenize --force"):
            add_items(lacking, none, items, vectors)
    with pytest.raises(ValueError, match=r"were given, not encoded.*\(--embeddings"):
        artifact.vectors.encode(["a text"])
    with pytest.raises(UnknownIdError, match="Unknown item id 'lost'"):
        remove_items(artifact, none, ["item 1", "lost"])
    removed = remove_items(artifact, none, ["item 1"])
    with pytest.raises(UnknownIdError, match="Item 'item 1' was removed"):
        remove_items(artifact, removed, ["item 1"])
    with pytest.raises(UnknownIdError, match="Item 'item 1' was removed"):
        update_items(artifact, removed, pl.DataFrame({"item_id": ["item 1"], "title": ["One"]}))
    with pytest.raises(ValueError, match="These are all items"):
        remove_items(artifact, none, artifact.catalog.id_map.all.to_list())


def test_versions_are_kept_and_rolled_back_to(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", trained())
    hashes = [live_hash(folder)]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    change(folder, "2 added", lambda *now: add_items(*now, new_items(2), new_vectors(2)))
    hashes.append(live_hash(folder))
    change(folder, "1 removed", lambda *now: remove_items(*now, ["item 3"]))
    hashes.append(live_hash(folder))
    assert len(set(hashes)) == 3
    assert all(path.read_bytes() == content for path, content in before.items())
    found = versions(folder)
    assert [(one.number, one.based_on, one.what, one.items) for one in found] == [
        (0, 0, "as trained", N_ITEMS),
        (1, 0, "2 added", N_ITEMS + 2),
        (2, 1, "1 removed", N_ITEMS + 1),
    ]
    assert (roll_back(folder), live_hash(folder)) == (1, hashes[1])
    assert (roll_back(folder), live_hash(folder)) == (0, hashes[0])
    assert read_live(folder).artifact.live is None
    with pytest.raises(ValueError, match="nothing to roll back"):
        roll_back(folder)
    assert (roll_back(folder, 2), live_hash(folder)) == (2, hashes[2])
    roll_back(folder, 1)
    change(folder, "another", lambda *now: remove_items(*now, ["new 1"]))
    assert [(one.number, one.based_on) for one in versions(folder)][-1] == (3, 1)
    live = read_live(folder).artifact.live
    assert live is not None
    assert int(live.available_N.sum()) == N_ITEMS + 1
    with pytest.raises(ValueError, match=r"no version 9 of its catalogue; there are 0, 1, 2, 3\."):
        roll_back(folder, 9)


def test_only_the_last_versions_are_kept_and_never_too_few(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", trained())
    for number in range(13):
        change(folder, "one removed", lambda *now, number=number: remove_items(*now, [f"item {number}"]))
    assert [one.number for one in versions(folder)] == [0, *range(4, 14)]
    assert roll_back(folder) == 12


def test_a_change_that_fails_or_a_damaged_version_leaves_the_one_before(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", trained())
    change(folder, "one removed", lambda *now: remove_items(*now, ["item 1"]))
    with pytest.raises(UnknownIdError):
        change(folder, "another", lambda *now: remove_items(*now, ["lost"]))
    assert current_version(folder) == 1
    change(folder, "two removed", lambda *now: remove_items(*now, ["item 2"]))
    file = folder / "versions" / "1" / "items.parquet"
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ValueError, match="differs from its manifest"):
        roll_back(folder)
    assert current_version(folder) == 2
    (folder / "versions" / "current.json").write_text('{"version": "2"}')
    with pytest.raises(ValueError, match="does not name a version"):
        read_live(folder)
    roll_back(folder, 2)
    assert read_live(folder).version == 2


@pytest.mark.parametrize("file", ["items.parquet", "arrays.safetensors", "vectors.npy", "manifest.json"])
@pytest.mark.parametrize("forged", [False, True])
def test_a_damaged_file_of_a_version_says_how_to_leave_it(tmp_path: Path, file: str, forged: bool) -> None:
    folder = write(tmp_path / "model", trained())
    change(folder, "2 added", lambda *now: add_items(*now, new_items(2), new_vectors(2)))
    (folder / "versions" / "1" / file).write_bytes(b"damaged")
    if forged:  # its hash is that of the damaged file
        from tests.fuzz.kinds import forge_hashes  # which imports this file

        forge_hashes(folder / "versions" / "1")
    for read in (read_live, live_hash, live_types) if file == "manifest.json" else (read_live,):
        with pytest.raises(ValueError, match="rqrec items rollback"):
            read(folder)
    roll_back(folder, 0)
    assert read_live(folder).version == 0


def test_a_version_that_cannot_be_read_now_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "model", trained())
    change(folder, "2 added", lambda *now: add_items(*now, new_items(2), new_vectors(2)))

    def read(path: Path) -> Any:
        if path.parent.parent.name == "versions":
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return read_json(path)

    monkeypatch.setattr("rqrec.core.artifact.read_json", read)
    with pytest.raises(OSError, match="Too many open files") as found:
        live_types(folder)
    assert "rollback" not in str(found.value)


@pytest.mark.parametrize("metrics", [{}, {"items": "many"}, {"more": 1}])
def test_a_version_that_its_manifest_does_not_describe_is_left_out(
    tmp_path: Path, metrics: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "model", trained())
    for item in ("item 1", "item 2"):
        change(folder, f"{item} removed", lambda *now, item=item: remove_items(*now, [item]))
    manifest = folder / "versions" / "1" / "manifest.json"
    values = json.loads(manifest.read_text())
    found = {**values["metrics"], **metrics} if metrics else {}
    manifest.write_text(json.dumps({**values, "metrics": found}))
    assert [version.number for version in versions(folder)] == [0, 2]
    assert "Version 1 of the catalogue is damaged" in capsys.readouterr().err


DAMAGED: dict[str, tuple[Callable[[CatalogueChanges], dict[str, Any]], str]] = {
    "removed as floats": (lambda one: {"removed": one.removed.astype(np.float32)}, "'removed' is float32"),
    "removed in rows": (lambda one: {"removed": one.removed[None]}, r"'removed' is int64 \[1, 1\]"),
    "an item that is not there": (lambda one: {"removed": np.array([10**6])}, "removed items are not"),
    "the last but none": (lambda one: {"removed": np.array([-1])}, "removed items are not"),
    "codes of another expert": (lambda one: {"codes": {"other": one.codes["codes"]}}, "semantic IDs of"),
    "codes of one row": (lambda one: {"codes": {**one.codes, "codes": one.codes["codes"][:1]}}, "one row"),
    "cosines of other neighbours": (lambda one: {"cosines_MP": one.cosines_MP[:, :1]}, "their cosines"),
    "NaN": (lambda one: {"cosines_MP": np.nan * one.cosines_MP}, "NaN"),
    "no neighbour": (lambda one: {"neighbours_MP": one.neighbours_MP + 10**6}, "neighbours are not"),
    "one number of a vector": (lambda one: {"vectors_MD": np.float32(1)}, "has the shape"),
    "vectors of text": (lambda one: {"vectors_MD": np.full((NEW, DIM), "x")}, "holds <U1"),
    "updated": (lambda one: {"updated": pl.DataFrame({"item": [10**6], "title": ["x"]})}, "updated items"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_changes_that_do_not_fit_each_other_or_the_model_are_refused(damage: str, tmp_path: Path) -> None:
    artifact, (damaged, sentence) = trained(), DAMAGED[damage]
    changes = add_items(artifact, CatalogueChanges.none(), new_items(), new_vectors())
    changes = remove_items(artifact, changes, ["item 1"])
    replace(changes, **damaged(changes)).write(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        apply_changes(artifact, CatalogueChanges.read(tmp_path))


def test_a_model_without_changes_is_read_as_it_was_trained(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", trained())
    artifact = read_retrieval(folder)
    assert artifact.live is None
    assert read_live(folder).artifact.types == artifact.types
    assert live_hash(folder) == read_manifest(folder).hash


def test_rules_hold_for_known_and_new_items_alike() -> None:
    before = trained()
    changes = add_items(before, CatalogueChanges.none(), new_items(), new_vectors())
    artifact = apply_changes(before, remove_items(before, changes, ["item 0", "new 0"]))
    recommender, n_all = artifact.recommender(), len(artifact.catalog)
    new, gone = {N_ITEMS + 2, N_ITEMS + 4}, {0, N_ITEMS}
    allowed_N, groups_N = torch.arange(n_all) % 2 == 0, torch.arange(n_all) % 7
    rules = ItemRules(allowed_N, None, (Limit(groups_N[:, None], 2),))
    for items in recommender.recommend(HISTORIES, 12, exclude_seen=False, rules=rules).items.tolist():
        assert len(set(items)) == 12
        assert all(item % 2 == 0 for item in items)
        assert not gone & set(items)
        assert max([item % 7 for item in items].count(group) for group in range(7)) <= 2
    boost_N = torch.zeros(n_all).index_fill(0, torch.tensor([*new, 5]), 50.0)
    for boost, sign in ((boost_N, 1), (-boost_N, -1)):
        found = recommender.recommend(HISTORIES, n_all, exclude_seen=False, rules=ItemRules(boost_N=boost))
        for row, scores in zip(found.items.tolist(), found.scores, strict=True):
            real = [item for item in row if item >= 0]
            assert {*new, 5} == set(real[:3] if sign > 0 else real[-3:])
            assert (scores[: len(real)].diff() <= 0).all()
        one_by_one = [row.tolist()[:3] for row in found.experts["content"]]
        assert all(log_p <= 0 for row in one_by_one for log_p in row)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("rate", [0.3, 4.0])
def test_new_items_compete_as_known_ones_that_are_as_much_like_the_history(
    rate: float, exclude_seen: bool
) -> None:
    before = trained()._replace(new_items=NewItemSettings(rate, 7.0))
    assert before.vectors is not None

    def odds(count: int) -> Tensor:
        """Of each new item against all known ones."""
        changes = add_items(before, CatalogueChanges.none(), new_items(count), new_vectors(count))
        live = apply_changes(before, changes)
        found = live.recommender().recommend(HISTORIES, N_ITEMS + count, exclude_seen=exclude_seen)
        p_BN = torch.zeros(len(HISTORIES), N_ITEMS + count + 1)
        p_BN.scatter_(1, found.items % (N_ITEMS + count + 1), found.scores.exp())
        torch.testing.assert_close(p_BN[:, :-1].sum(1), torch.ones(len(HISTORIES)), atol=1e-4, rtol=0)
        return p_BN[:, N_ITEMS:-1] / p_BN[:, :N_ITEMS].sum(1, keepdim=True)

    units_NC = torch.from_numpy(
        unit(np.concatenate([before.vectors.content, before.vectors.content_of(new_vectors(2))]))
    )
    likeness_NN = (7.0 * (units_NC @ units_NC.T - 1)).exp()
    expected = torch.zeros(len(HISTORIES), 2)
    for row, items in enumerate(HISTORIES.items_BT):
        history = items[items != PADDING]
        weights = torch.from_numpy(0.7 ** np.arange(len(history))[::-1].astype(np.float32))
        likeness_N = weights @ likeness_NN[history] if len(history) else torch.ones(N_ITEMS + 2)
        known = np.setdiff1d(np.arange(N_ITEMS), history if exclude_seen else [])
        expected[row] = rate * likeness_N[N_ITEMS:] / likeness_N[known].sum()
    torch.testing.assert_close(odds(2), expected, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(odds(1), expected[:, :1], atol=1e-5, rtol=1e-3)  # others do not matter


def likeness_of(items: np.ndarray) -> Likeness:
    return Likeness((tiny_vectors()[:20], tiny_vectors()[20:]), 10.0, items)


def test_items_treated_as_new_have_the_odds_that_new_ones_have() -> None:
    new, every = np.array([3, 9, 41]), np.arange(N_ITEMS)
    treated = ContentExpert(likeness_of(every), new)
    really = ContentExpert(likeness_of(np.setdiff1d(every, new)), new)
    for constraints in (
        Constraints(),
        Constraints(exclude_seen=False),
        Constraints(allowed_N=torch.from_numpy(every % 2 > 0)),
    ):
        found, expected = (one.log_odds(HISTORIES, constraints) for one in (treated, really))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_a_sum_over_many_items_is_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    every = np.arange(N_ITEMS)
    expected = ContentExpert(likeness_of(every), every[:3]).log_odds(
        HISTORIES, Constraints(exclude_seen=False)
    )
    monkeypatch.setattr(new_items_module, "SUMMED", 36)
    found = ContentExpert(likeness_of(every), every[:3]).log_odds(HISTORIES, Constraints(exclude_seen=False))
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, atol=0.5, rtol=0)


def test_new_items_compete_with_those_known_ones_that_rules_allow() -> None:
    """A history that is like no allowed item is not held against the new ones."""
    new, every = np.arange(40, N_ITEMS), np.arange(N_ITEMS)
    expert = ContentExpert(likeness_of(every[:40]), new)
    allowed_N = torch.from_numpy((every < 8) | (every >= 40))
    history = Histories.of([[20, 21]])
    free = expert.log_odds(history, Constraints())
    ruled = expert.log_odds(history, Constraints(allowed_N=allowed_N))
    assert (ruled > free + 1).all()
    everything = expert.log_odds(history, Constraints(allowed_N=torch.ones(N_ITEMS, dtype=torch.bool)))
    torch.testing.assert_close(everything, free, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("histories", [[[]], [[], []], [[0]]])
@pytest.mark.parametrize("allowed", [None, [40, 41], [0, 40, 41]])
def test_odds_are_numbers_also_for_what_is_like_nothing(
    histories: list[list[int]], allowed: list[int] | None
) -> None:
    opposite = np.where(np.arange(N_ITEMS)[:, None] < 40, 1.0, -1.0) * np.ones((N_ITEMS, DIM))
    likeness = Likeness((opposite,), 500.0, np.arange(40))
    expert = ContentExpert(likeness, np.arange(40, N_ITEMS))
    allowed_N = None if allowed is None else torch.from_numpy(np.isin(np.arange(N_ITEMS), allowed))
    found = expert.propose(Histories.of(histories), 5, Constraints(allowed_N=allowed_N))
    assert found.log_odds_B.isfinite().all()
    assert (found.proposal.ranked.items[:, :2] >= 40).all()
