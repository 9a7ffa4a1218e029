import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rqrec import Dataset, Recommender, Rules, leave_one_out
from rqrec.core.artifact import read_json, write_json
from rqrec.data.ids import IdMap, UnknownIdError
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.layers import CodeEmbedding
from rqrec.retrieval.defaults import DEFAULT_K
from rqrec.retrieval.similar import similar_items
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.tokenizer.trie import Trie
from tests.retrieval.test_artifact import fresh_artifact
from tests.tiny import N_ITEMS, SIZE, train_tiny


@pytest.fixture(scope="module")
def recommender(tiny_run: Path) -> Recommender:
    return Recommender.load(tiny_run)


def items(*numbers: int) -> list[str]:
    return [f"item {number}" for number in numbers]


def assert_predicts_the_next_item(recommender: Recommender) -> None:
    for family in range(6):
        first = family * SIZE
        (recommended,) = recommender.recommend([items(first, first + 1, first + 2)], k=3)
        assert recommended[0].item_id == f"item {first + 3}"
        assert recommended[0].title == f"Title {first + 3}"


def test_it_predicts_the_next_item(recommender: Recommender) -> None:
    assert_predicts_the_next_item(recommender)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["encoder_decoder", "hierarchical"])
def test_the_other_architectures_predict_the_next_item(name: str, tmp_path: Path) -> None:
    train_tiny(tmp_path / "run", name=name, iterations=800)
    assert_predicts_the_next_item(Recommender.load(tmp_path / "run"))


def test_seen_items_are_returned_only_on_request(recommender: Recommender) -> None:
    history = items(*range(40))
    (unseen,) = recommender.recommend([history], k=48)
    assert sorted(item.item_id for item in unseen) == sorted(items(*range(40, 48)))
    (everything,) = recommender.recommend([history], k=48, exclude_seen=False)
    assert len({item.item_id for item in everything}) == 48


def test_scores_are_descending_log_probabilities_of_distinct_items(recommender: Recommender) -> None:
    (recommended,) = recommender.recommend([items(9, 10)], k=20)
    scores = [item.score for item in recommended]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= 0
    assert len({item.semantic_id for item in recommended}) == 20


def test_a_history_gets_the_same_items_alone_and_in_a_batch(recommender: Recommender) -> None:
    histories = [items(0, 1), [], items(20, 21, 22, 23), items(47)]
    together = recommender.recommend(histories, k=5)
    for history, expected in zip(histories, together, strict=True):
        (alone,) = recommender.recommend([history], k=5)
        assert [item.item_id for item in alone] == [item.item_id for item in expected]


def test_allow_and_block_filter_the_items(recommender: Recommender) -> None:
    history = items(0, 1, 2)
    everything = recommender.recommend([history], k=48)[0]
    assert (len(everything), everything.n_allowed) == (45, 45)
    for allow, block in ((items(2, 3, 30, 40), None), (None, items(3, 4)), (items(3, 4, 5), items(3))):
        (recommended,) = recommender.recommend([history], k=48, allow=allow, block=block)
        kept = [
            item
            for item in everything
            if (allow is None or item.item_id in allow) and item.item_id not in (block or ())
        ]
        assert [item.item_id for item in recommended] == [item.item_id for item in kept]
        assert recommended[0].score == pytest.approx(kept[0].score, abs=1e-5)
        assert recommended.n_allowed == len(kept)
    (seen,) = recommender.recommend([history], k=48, allow=items(2, 3), exclude_seen=False)
    assert (len(seen), seen.n_allowed) == (2, 2)


def test_n_allowed_explains_fewer_than_k_items(recommender: Recommender) -> None:
    (recommended,) = recommender.recommend([items(1, 1, 2)], k=10, allow=items(1, 5, 9))
    assert [len(recommended), recommended.n_allowed] == [2, 2]
    (nothing,) = recommender.recommend([[]], k=10, allow=[])
    assert [len(nothing), nothing.n_allowed] == [0, 0]


def test_items_can_be_spread_over_first_codes(recommender: Recommender) -> None:
    (recommended,) = recommender.recommend([items(8, 9)], k=4, rules=Rules(max_per={"first_code": 1}))
    assert len({item.semantic_id[0] for item in recommended}) == len(recommended) == 4
    assert recommended[0] == recommender.recommend([items(8, 9)], k=1)[0][0]


@pytest.mark.parametrize(
    ("histories", "advice"),
    [
        (["item 8"], "pass [['item 8']] for one user, not 'item 8' by itself"),
        ("item 8", "must be a list of histories: [['item 8']]"),
        ([8], "pass [['8']] for one user, not 8 by itself"),
        ([["item 8"], "item 9"], "'item 9' is in the place of one"),
        (None, "histories is None, but must be a list of histories"),
        ([[8]], "Item ids are strings: pass '8' instead of 8"),
        ([["item 8", None]], "Item ids are strings"),
    ],
)
def test_histories_of_another_shape_are_refused_with_what_to_pass(
    recommender: Recommender, histories: Any, advice: str
) -> None:
    for unknown in ("raise", "skip"):
        with pytest.raises(ValueError, match=re.escape(advice)):
            recommender.recommend(histories, unknown=unknown)
    with pytest.raises(ValueError, match="Item ids are strings: pass '8' instead of 8"):
        recommender.similar_items(8)  # type: ignore[arg-type]


def test_notebooks_show_tables_and_short_lines(recommender: Recommender, tiny_run: Path) -> None:
    (recommended,) = recommender.recommend([items(8, 9)], k=2)
    assert re.fullmatch(r"Title 10  -\d\.\d{3}  \(item 10, codes \d+(-\d+)*\)", repr(recommended[0]))
    html = recommended._repr_html_()
    assert html.count("<tr>") == 3
    assert ">Title 10<td>" in html
    dataset = Dataset.read(tiny_run)
    assert re.fullmatch(r"Dataset\(480 users, 48 items, [\d,]+ interactions\)", repr(dataset))
    assert repr(dataset.catalog) == "Catalog(48 items: Title 0, Title 1, Title 2, ...)"
    assert repr(dataset.sequences).startswith("Sequences(480 users, ")
    assert repr(leave_one_out(dataset.sequences).test) == "EvalExamples(480 histories with their next items)"
    assert repr(recommender.table).startswith("SemanticIdTable(48 items, 8 x 8")
    assert repr(recommender.artifact) == "RetrievalArtifact(48 items, experts codes)"


def test_reprs_name_the_model_and_list_the_items(recommender: Recommender) -> None:
    assert repr(recommender) == "Recommender(decoder_only, 48 items)"
    (recommended,) = recommender.recommend([items(8)], k=2)
    first, second, third = repr(recommended).splitlines()
    assert first.startswith("2 of 47 items")
    for line, item in zip((second, third), recommended, strict=True):
        assert f"{item.title}  {item.score:.3f}  ({item.item_id})" in line
    similar = recommender.similar_items("item 8", k=1)[0]
    assert re.fullmatch(r"Title \d+  \d\.\d{3}  \(item \d+, codes \d+(-\d+)*\)", repr(similar))


def test_explanations_read_as_lines(recommender: Recommender, tiny_joined: Path) -> None:
    history = items(8, 9)
    one = recommender.explain(history, "item 10")
    what, codes, near = repr(one).splitlines()
    assert what == repr(one.recommendation)
    assert codes == "  codes with their probabilities: " + ", ".join(
        f"{step.code} ({step.probability:.2g})" for step in one.path
    )
    assert re.fullmatch(
        r"  nearest in the history, with the number of shared codes: item \d \(\d\), item \d \(\d\)", near
    )
    joined = repr(Recommender.load(tiny_joined).explain(history, "item 10")).splitlines()
    assert re.fullmatch(r"  neighbour of item \d \(\d+%\)(, item \d \(\d+%\))?", joined[2])


def test_unknown_ids_can_be_skipped_and_are_listed(recommender: Recommender) -> None:
    history = ["gone", *items(3, 4), "lost"]
    (recommended,) = recommender.recommend([history], k=5, block=["never"], unknown="skip")
    assert recommended.skipped == ("gone", "lost", "never")
    assert recommended.items == recommender.recommend([items(3, 4)], k=5)[0].items
    with pytest.raises(UnknownIdError, match="'never'"):
        recommender.recommend([items(3)], block=["never"])
    with pytest.raises(ValueError, match="unknown is 'ignore'; allowed are 'raise' and 'skip'"):
        recommender.recommend([items(3)], unknown="ignore")  # type: ignore[arg-type]


def test_an_explanation_is_the_path_of_codes_to_an_item(recommender: Recommender) -> None:
    history = items(8, 9, 10)
    (best, *_) = recommender.recommend([history], k=3)[0]
    explained = recommender.explain(history, best.item_id)
    assert explained.recommendation.item_id == best.item_id
    assert explained.recommendation.score == pytest.approx(best.score, abs=1e-5)
    assert np.log([step.probability for step in explained.path]).sum() == pytest.approx(best.score, abs=1e-4)
    assert tuple(step.code for step in explained.path) == best.semantic_id
    codes = recommender.table.codes_NL
    for level, step in enumerate(explained.path, start=1):
        sharing = [
            f"item {i}" for i, row in enumerate(codes) if tuple(row[:level]) == best.semantic_id[:level]
        ]
        assert step.n_items == len(sharing)
        assert len(step.others) == min(3, len(sharing) - 1)
        assert set(step.others) < set(sharing)
        assert best.item_id not in step.others


def test_explain_all_equals_explaining_items_one_by_one(recommender: Recommender) -> None:
    histories = [items(8, 9, 10), ["gone", *items(30)], []]
    answers = [items(11, 12), items(31), []]
    together = recommender.explain_all(histories, answers, unknown="skip")
    assert [len(explained) for explained in together] == [2, 1, 0]
    for history, answer, explained in zip([items(8, 9, 10), items(30), []], answers, together, strict=True):
        for item_id, one in zip(answer, explained, strict=True):
            alone = recommender.explain(history, item_id)
            assert one.recommendation.item_id == item_id
            assert one.recommendation.score == pytest.approx(alone.recommendation.score, abs=1e-5)
            for step, expected in zip(one.path, alone.path, strict=True):
                assert step.probability == pytest.approx(expected.probability, abs=1e-5)
                assert (step.code, step.n_items, step.others) == (
                    expected.code,
                    expected.n_items,
                    expected.others,
                )


def test_similar_items_share_the_longest_prefix(recommender: Recommender) -> None:
    codes = recommender.table.codes_NL
    for item in (0, 17, 47):
        shared = [
            int(np.logical_and.accumulate(codes[item] == codes[other]).sum()) if other != item else -1
            for other in range(48)
        ]
        for k in (1, 7, 47, 100):
            recommended = recommender.similar_items(f"item {item}", k)
            assert len({neighbour.item_id for neighbour in recommended} - {f"item {item}"}) == min(k, 47)
            lengths = [shared[int(neighbour.item_id.removeprefix("item "))] for neighbour in recommended]
            assert lengths == sorted(shared, reverse=True)[: len(recommended)]
            scores = [neighbour.score for neighbour in recommended]
            assert scores == sorted(scores, reverse=True)
            for score, length in zip(scores, lengths, strict=True):
                assert length <= score <= length + 1
    with pytest.raises(UnknownIdError, match="'nope'"):
        recommender.similar_items("nope")
    with pytest.raises(ValueError, match="k is 0"):
        recommender.similar_items("item 0", 0)


def test_threads_can_share_a_recommender(recommender: Recommender) -> None:
    histories = [items(first, first + 1) for first in range(46)]

    def ask(history: list[str]) -> tuple:
        (recommended,) = recommender.recommend([history], k=5)
        explained = recommender.explain(history, recommended[0].item_id)
        return recommended, explained, recommender.similar_items(history[0], 3)

    one_by_one = [ask(history) for history in histories]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, histories)) == one_by_one


def test_a_long_unknown_id_is_cut_in_the_message(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError) as raised:
        recommender.recommend([["x" * 1_000_000]])
    assert len(str(raised.value)) < 500


def test_unknown_ids_and_k_below_one_are_refused(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError, match=r"'item 99'.*48 items"):
        recommender.recommend([["item 99"]])
    with pytest.raises(ValueError, match="k is 0"):
        recommender.recommend([[]], k=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_users_and_timestamps_reach_a_model_that_uses_them(name: str) -> None:
    recommender = Recommender(fresh_artifact(name, user_buckets=50, time_gaps=8))
    with torch.no_grad():  # make users and time gaps count
        recommender._retriever.model.side.user.weight.mul_(50)
        recommender._retriever.model.side.gap.weight.mul_(50)
    history, times = items(1, 2, 3), [0, 10, 10**6]

    def scores(history: list[str] = history, times: list[Any] = times, **more: Any) -> list[float]:
        recommended = recommender.recommend([history], 30, timestamps=[times], exclude_seen=False, **more)[0]
        return [item.score for item in sorted(recommended, key=lambda item: item.item_id)]

    nobody = scores()
    assert scores(users=[None]) == nobody
    assert scores(users=["ann"]) != nobody
    assert scores(users=["ann"]) != scores(users=["bob"])
    assert scores(times=[0, 10**6, 10**6]) != nobody
    with_gone = ["item 1", "gone", "item 2", "item 3"]
    assert scores(with_gone, [0, 5, 10, 10**6], unknown="skip") == nobody
    with pytest.raises(ValueError, match="Give the timestamp of each item"):
        recommender.recommend([history])
    with pytest.raises(ValueError, match="'soon' is not a valid timestamp"):
        scores(times=["soon", 10, 10**6])
    moments = [datetime(2023, 11, 14, 22, 13, 20) + timedelta(seconds=seconds) for seconds in times]
    assert scores(times=moments) == nobody
    assert scores(times=[moment.isoformat() for moment in moments]) == nobody
    assert scores(times=[(1_700_000_000 + seconds) * 1000 for seconds in times]) == nobody
    best = recommender.recommend([history], 1, timestamps=[times], users=["ann"])[0][0]
    explained = recommender.explain(history, best.item_id, timestamps=times, user="ann")
    assert explained.recommendation.score == pytest.approx(best.score, abs=1e-5)


@pytest.mark.parametrize("options", [{}, {"user_buckets": 9, "time_gaps": 5}])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_without_a_history_the_most_probable_first_items_are_recommended(
    name: str, options: dict[str, int]
) -> None:
    recommender = Recommender(fresh_artifact(name, **options))
    (nothing,) = recommender.recommend([[]], k=30)
    assert len(nothing) == nothing.n_allowed == 30
    assert sum(np.exp(item.score) for item in nothing) == pytest.approx(1, abs=1e-3)
    (unknown,) = recommender.recommend([["gone", "lost"]], k=30, unknown="skip", timestamps=[[5, 6]])
    assert (unknown.items, unknown.skipped) == (nothing.items, ("gone", "lost"))
    (few,) = recommender.recommend([[]], k=5, rules=Rules("item_id in ('item 3', 'item 4')"))
    assert [item.item_id for item in few] == [item.item_id for item in nothing if item.item_id in items(3, 4)]


def test_items_can_be_taken_again_if_seen_items_are_allowed(recommender: Recommender) -> None:
    history = items(3, 4, 3)
    (again,) = recommender.recommend([history], k=N_ITEMS, exclude_seen=False)
    assert set(items(3, 4)) < {item.item_id for item in again}
    assert len(again) == again.n_allowed == N_ITEMS
    (fresh,) = recommender.recommend([history], k=N_ITEMS, exclude_seen=True)
    assert len(fresh) == fresh.n_allowed == N_ITEMS - 2
    scores = {item.item_id: item.score for item in again}
    assert all(item.score == pytest.approx(scores[item.item_id], abs=1e-5) for item in fresh)


def test_a_copied_folder_recommends_the_same(
    recommender: Recommender, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "retrieval", tmp_path / "copy")
    (recommended,) = Recommender.load(tmp_path / "copy").recommend([items(3, 4, 5)], k=10)
    assert recommended == recommender.recommend([items(3, 4, 5)], k=10)[0]


def test_a_semantic_id_table_of_another_model_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    from rqrec.retrieval.artifact import read_retrieval
    from rqrec.retrieval.retriever import Retriever
    from rqrec.tokenizer.semantic_ids import SemanticIdTable

    checkpoint = read_retrieval(tiny_run)
    table = checkpoint.table
    other = SemanticIdTable(table.item_ids, table.codes_NL, (9, *table.level_sizes[1:]), "other")
    with pytest.raises(ValueError, match="table that the model was trained with"):
        Retriever(checkpoint.model, other)


def test_an_unknown_architecture_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "retrieval", tmp_path / "copy")
    config = read_json(tmp_path / "copy" / "config.json") | {"architecture": "mamba"}
    write_json(tmp_path / "copy" / "config.json", config)
    with pytest.raises(ValueError, match=r"config.json is missing or differs"):
        Recommender.load(tmp_path / "copy")


@pytest.mark.parametrize("has_extra_code", [True, False])
def test_the_last_level_counts_for_similarity_only_where_it_is_content(has_extra_code: bool) -> None:
    codes = np.array([[0, 0], [0, 1], [0, 2], [1, 0]])
    embedding = CodeEmbedding((2, 3), 4)
    with torch.no_grad():
        embedding.rows(1).copy_(torch.tensor([[1.0, 0, 0, 0], [-1, 0, 0, 0], [0.9, 0.1, 0, 0]]))
    table = SemanticIdTable(IdMap(["a", "b", "c", "d"]), codes, (2, 3), "", has_extra_code)
    found = similar_items(
        embedding, torch.from_numpy(codes), Trie.build(codes), 0, 2, content_levels=table.content_levels
    )
    assert found.items.tolist() == ([1, 2] if has_extra_code else [2, 1])
    assert (found.scores[0] == found.scores[1]) == has_extra_code


def test_a_search_finds_items_by_their_ids_and_titles_with_typos(recommender: Recommender) -> None:
    assert [item.item_id for item in recommender.search("Titel 40", k=3)] == ["item 40"]
    assert len(recommender.search("title", k=3)) == 3
    assert recommender.search("zebra") == []
    with pytest.raises(ValueError, match="k is 0"):
        recommender.search("title", k=0)


@pytest.mark.parametrize("model", ["tiny_run", "tiny_joined"])
def test_the_command_finds_the_same_items_without_reading_the_model(
    model: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    code = (
        "import sys; from rqrec.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: print(sorted({'torch', 'sklearn', 'fastapi'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "items", "find", str(folder), "title", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found, loaded = done.stdout.splitlines()
    items = Recommender.load(folder).search("title")
    assert json.loads(found)["items"] == [asdict(item) for item in items]
    assert len(items) == DEFAULT_K
    assert loaded == "[]"


def test_an_explanation_names_the_items_of_the_history_nearest_by_their_codes(
    recommender: Recommender,
) -> None:
    history = ["item 1", "item 8", "item 9", "item 8"]
    codes = {
        item: recommender.table.codes_NL[int(item.removeprefix("item "))] for item in (*history, "item 10")
    }
    near = recommender.explain(history, "item 10").beside
    assert sorted(one.item_id for one in near) == ["item 1", "item 8", "item 9"]
    by_score = {one.item_id: one.score for one in recommender.similar_items("item 10", k=47)}
    assert [one.item_id for one in near] == sorted(set(history), key=lambda item: -by_score[item])
    for one in near:
        equal = (codes[one.item_id] == codes["item 10"]).tolist()
        assert one.shared == (equal.index(False) if False in equal else len(equal))
        assert one.shared + one.closeness == pytest.approx(by_score[one.item_id], abs=1e-5)
    assert recommender.explain(["item 10"], "item 10").beside == ()
    assert recommender.explain([], "item 10").beside == ()
