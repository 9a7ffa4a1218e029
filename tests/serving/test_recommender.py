import shutil
from pathlib import Path

import pytest

from rqrec import Recommender
from rqrec.artifact import read_json, write_json
from rqrec.data.ids import UnknownIdError
from tests.tiny import SIZE


@pytest.fixture(scope="module")
def recommender(tiny_run: Path) -> Recommender:
    return Recommender.load(tiny_run)


def items(*numbers: int) -> list[str]:
    return [f"item {number}" for number in numbers]


def test_it_has_learned_which_item_comes_next(recommender: Recommender) -> None:
    for family in range(6):
        first = family * SIZE
        (found,) = recommender.recommend([items(first, first + 1, first + 2)], k=3)
        assert found[0].item_id == f"item {first + 3}"
        assert found[0].title == f"Title {first + 3}"


def test_seen_items_come_back_only_when_asked_for(recommender: Recommender) -> None:
    history = items(*range(40))
    (unseen,) = recommender.recommend([history], k=48)
    assert sorted(item.item_id for item in unseen) == sorted(items(*range(40, 48)))
    (everything,) = recommender.recommend([history], k=48, exclude_seen=False)
    assert len({item.item_id for item in everything}) == 48


def test_scores_fall_and_belong_to_the_items_codes(recommender: Recommender) -> None:
    (found,) = recommender.recommend([items(9, 10)], k=20)
    scores = [item.score for item in found]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) <= 0
    assert len({item.semantic_id for item in found}) == 20


def test_one_user_gets_the_same_alone_and_in_a_batch(recommender: Recommender) -> None:
    histories = [items(0, 1), [], items(20, 21, 22, 23), items(47)]
    together = recommender.recommend(histories, k=5)
    for history, expected in zip(histories, together, strict=True):
        (alone,) = recommender.recommend([history], k=5)
        assert [item.item_id for item in alone] == [item.item_id for item in expected]


def test_unknown_ids_and_k_below_one_are_sentences(recommender: Recommender) -> None:
    with pytest.raises(UnknownIdError, match=r"'item 99'.*48 items"):
        recommender.recommend([["item 99"]])
    with pytest.raises(ValueError, match="k is 0"):
        recommender.recommend([[]], k=0)


def test_a_copied_folder_recommends_the_same(
    recommender: Recommender, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run / "retrieval", tmp_path / "copy")
    (found,) = Recommender.load(tmp_path / "copy").recommend([items(3, 4, 5)], k=10)
    assert found == recommender.recommend([items(3, 4, 5)], k=10)[0]


def test_a_table_of_another_model_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    from rqrec.retrieval.checkpoint import read_checkpoint
    from rqrec.retrieval.retriever import Retriever
    from rqrec.tokenizer.semantic_ids import SemanticIdTable

    checkpoint = read_checkpoint(tiny_run)
    table = checkpoint.table
    other = SemanticIdTable(table.item_ids, table.codes_NL, (9, *table.level_sizes[1:]), "other")
    with pytest.raises(ValueError, match="they don't belong together"):
        Retriever(checkpoint.model, other)


def test_an_architecture_of_the_future_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run / "retrieval", tmp_path / "copy")
    config = read_json(tmp_path / "copy" / "config.json") | {"architecture": "mamba"}
    write_json(tmp_path / "copy" / "config.json", config)
    with pytest.raises(ValueError, match=r"config.json is missing or differs"):
        Recommender.load(tmp_path / "copy")
