"""Saving and loading a model changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from rqrec.core.artifact import create, file_hash
from rqrec.data.catalog import Catalog
from rqrec.data.ids import PADDING, IdMap
from rqrec.data.sequences import Histories
from rqrec.knn.index import KnnIndex
from rqrec.models.architectures import ARCHITECTURES, architecture, build_model
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.retrieval.artifact import (
    CONFIG_FILE,
    EXPERTS_FILE,
    CodesModel,
    RetrievalArtifact,
    read_retrieval,
    write_retrieval,
)
from rqrec.retrieval.ensemble import ExpertSettings
from rqrec.retrieval.retriever import Retriever
from rqrec.tokenizer.semantic_ids import SemanticIdTable


def fresh_artifact(name: str, n_items: int = 30, **options: Any) -> RetrievalArtifact:
    codes_NL = np.random.default_rng(0).integers(0, 4, (n_items, 2))
    ids = [f"item {item}" for item in range(n_items)]
    table = SemanticIdTable.from_codes(IdMap(ids), codes_NL, (4, 4), "a test")
    catalog = Catalog(pl.DataFrame({"item_id": ids, "title": ids, "text": ids}))
    model = build_model(architecture(name).config(table.level_sizes, 5, 12, 16, 2, 1, 0.3, **options))
    return RetrievalArtifact(model.eval(), table, catalog)


def write(folder: Path, artifact: RetrievalArtifact) -> None:
    with create(folder, "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, artifact)


@pytest.mark.parametrize("options", [{}, {"user_buckets": 9, "time_gaps": 5, "tie_codes": True}])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_loaded_model_has_the_same_config_and_recommends_the_same(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    before = fresh_artifact(name, **options)
    write(tmp_path / "model", before)
    after = read_retrieval(tmp_path / "model")
    assert after.model.config == before.model.config
    histories = Histories.of([[1, 2, 3], [4]], [[100, 200, 90_000], [5]], ["ann", None])
    one, other = (Retriever(c.model, c.table).recommend(histories, 5) for c in (before, after))
    assert one.items.tolist() == other.items.tolist()
    assert one.scores.tolist() == other.scores.tolist()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_config_without_the_newer_options_gets_their_defaults(name: str, tmp_path: Path) -> None:
    before = fresh_artifact(name)
    with create(tmp_path / "model", "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, before)
        config = json.loads((target / CONFIG_FILE).read_text())
        for option in ("user_buckets", "time_gaps", "tie_codes"):
            del config[option]
        (target / CONFIG_FILE).write_text(json.dumps(config))
    assert read_retrieval(tmp_path / "model").model.config == before.model.config


def test_scores_of_all_items_equal_those_of_the_search_and_the_sums_over_codes() -> None:
    model, table, *_ = fresh_artifact("hierarchical")
    retriever, histories = Retriever(model, table), Histories.of([[1, 2, 3], [4]])
    scores = retriever.score_items(histories)
    assert scores.shape == (2, 30)
    found = retriever.recommend(histories, 30, exclude_seen=False)
    torch.testing.assert_close(found.scores, scores.gather(1, found.items), atol=1e-5, rtol=0)
    items = np.array([[7, 3, 29], [8, 7, PADDING]])
    by_code = retriever.code_log_probs(histories, items)
    expected = scores.gather(1, torch.from_numpy(items).clamp(min=0))
    torch.testing.assert_close(by_code.sum(2)[:, :2], expected[:, :2], atol=1e-5, rtol=0)
    torch.testing.assert_close(by_code.sum(2)[0, 2], expected[0, 2], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"architecture": "mamba"},
            r"Unknown architecture 'mamba'; allowed are decoder_only, enc.*hierarchical",
        ),
        ({"colour": 1}, "colour"),
        ({"attn_layers": 3}, r"does not match model\.safetensors"),
    ],
)
def test_a_config_of_another_version_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    with create(tmp_path / "model", "retrieval", settings={}, inputs={}) as target:
        write_retrieval(target, fresh_artifact("hierarchical"))
        config = json.loads((target / CONFIG_FILE).read_text())
        (target / CONFIG_FILE).write_text(json.dumps(config | change))
    with pytest.raises(ValueError, match=message):
        read_retrieval(tmp_path / "model")


def rewrite(folder: Path, name: str, change: Callable[[Path], None]) -> None:
    """Change a file of an artefact, and its manifest with it."""
    change(folder / name)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = file_hash(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def with_values(**values: Any) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | values)) and None


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda path: path.write_text("3"), "holds int instead of settings"),
        ("config.json", lambda path: path.write_text("[" * 100_000), "is not valid JSON"),
        ("config.json", with_values(attn_layers=10**9), "attn_layers is 1000000000, but must be at least 1"),
        ("config.json", with_values(attn_embed_dim="12"), "attn_embed_dim is '12'"),
        ("config.json", with_values(user_buckets=10**9), "lacks the tensors side"),
        ("config.json", with_values(time_gaps=10**9), "time_gaps is 1000000000"),
        ("config.json", with_values(max_items=10**6), "by its settings the shape must be"),
        ("semantic_ids.json", lambda path: path.write_text("[]"), "has format_version None"),
        ("semantic_ids.json", with_values(level_sizes=["4"]), "level_sizes is '4'"),
        ("semantic_ids.json", with_values(level_sizes=float("nan")), "level_sizes is nan"),
        ("semantic_ids.json", with_values(tokenizer_hash=None), "tokenizer_hash is None"),
        (
            "semantic_ids.parquet",
            lambda path: path.write_bytes(b"PAR1 PAR1"),
            r"semantic_ids\.parquet cannot be read",
        ),
        (
            "semantic_ids.parquet",
            lambda path: (
                pl.read_parquet(path).with_columns(pl.col("code_0").cast(pl.Float32)).write_parquet(path)
            ),
            "'code_0' has Float32, but must have whole numbers",
        ),
        (
            "catalog.parquet",
            lambda path: pl.read_parquet(path).with_columns(title=pl.lit(1)).write_parquet(path),
            "'title' has Int32, but must have strings",
        ),
        ("model.safetensors", lambda path: path.write_bytes(path.read_bytes()[:99]), "is damaged or missing"),
        (
            "model.safetensors",
            lambda path: save_file({name: one.int() for name, one in load_file(path).items()}, path),
            r"of torch\.int32; torch\.float32 is required",
        ),
    ],
)
def test_a_damaged_file_is_refused_in_a_sentence_before_anything_is_allocated(
    name: str, change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "model", fresh_artifact("decoder_only"))
    rewrite(tmp_path / "model", name, change)
    with pytest.raises(ValueError, match=message) as caught:
        read_retrieval(tmp_path / "model")
    assert name in str(caught.value) or "model.safetensors" in str(caught.value)


def test_weights_and_neighbours_that_are_not_finite_are_refused_by_name(tmp_path: Path) -> None:
    artifact = fresh_artifact("hierarchical")
    neighbours_NM = torch.zeros(30, 1, dtype=torch.int32)
    knn = KnnIndex(neighbours_NM, torch.full((30, 1), float("inf")))
    joined = {"codes": ExpertSettings(), "neighbours": ExpertSettings(share=0.5)}
    write(tmp_path / "knn", artifact._replace(others={"neighbours": knn}, settings=joined))
    with pytest.raises(ValueError, match=r"knn\.safetensors: the tensor similarity has 30 NaN"):
        read_retrieval(tmp_path / "knn")
    name, weight = next(iter(artifact.model.named_parameters()))
    weight.data.view(-1)[0] = float("nan")
    write(tmp_path / "model", artifact)
    with pytest.raises(ValueError, match=rf"model\.safetensors: the tensor {name} has 1 NaN"):
        read_retrieval(tmp_path / "model")


def joined_artifact() -> RetrievalArtifact:
    """Four experts of the same catalogue."""
    artifact, other = fresh_artifact("hierarchical"), fresh_artifact("decoder_only")
    index = KnnIndex(torch.arange(30, dtype=torch.int32).roll(1)[:, None], torch.full((30, 1), 0.5))
    return artifact._replace(
        others={
            "codes_2": CodesModel(other.model, other.table),
            "dense": SasRec(SasRecConfig(30, 5, 8, 2, 1)).eval(),
            "neighbours": index.with_settings(decay=0.9),
        },
        settings={
            "codes": ExpertSettings(0.5),
            "codes_2": ExpertSettings(0.2),
            "dense": ExpertSettings(0.3),
            "neighbours": ExpertSettings(2.0, 0.4),
        },
    )


@pytest.mark.parametrize("experts", [None, ["codes"], ["dense"], ["neighbours"], ["trained"], ["codes_2"]])
def test_loaded_experts_recommend_the_same(experts: list[str] | None, tmp_path: Path) -> None:
    before = joined_artifact()
    write(tmp_path / "model", before)
    after = read_retrieval(tmp_path / "model")
    assert after.settings == before.settings
    assert after.types == before.types
    histories = Histories.of([[1, 2, 3], [4], []])
    one, other = (each.ensemble(experts=experts).recommend(histories, 5) for each in (before, after))
    assert one.items.tolist() == other.items.tolist()
    assert one.scores.tolist() == other.scores.tolist()


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (None, ["codes", "codes_2", "dense", "neighbours"]),
        (["all"], ["codes", "codes_2", "dense", "neighbours"]),
        (["trained"], ["codes", "codes_2", "dense"]),
        (["codes"], ["codes", "codes_2"]),
        (["codes_2"], ["codes_2"]),
        (["neighbours", "dense"], ["dense", "neighbours"]),
    ],
)
def test_experts_are_chosen_by_name_type_or_group(words: list[str] | None, names: list[str]) -> None:
    artifact = joined_artifact()
    assert artifact.select(words) == names
    assert [*artifact.ensemble(experts=words).experts] == names


def test_an_unknown_expert_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="no expert 'oracle'; this model has codes, codes_2, dense, neigh"):
        joined_artifact().select(["codes", "oracle"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_text("[]"), "does not say how experts are joined"),
        (lambda path: path.write_text('{"dense": {"type": "dense"}}'), "it has no expert 'codes'"),
        (with_values(oracle={"type": "oracle"}), "expert 'oracle' of no known type"),
        (with_values(**{"../up": {"type": "dense"}}), r"expert '\.\./up' of no known type"),
        (with_values(dense={"type": "dense", "power": 0}), "power is 0"),
        (with_values(dense={"type": "dense", "colour": 1}), "colour"),
        (with_values(dense=3), "does not say how experts are joined"),
        (with_values(more={"type": "dense"}), "more/config.json"),
        (with_values(neighbours={"type": "neighbours", "share": 1.0}), "share is 1"),
    ],
)
def test_damaged_settings_of_experts_are_refused(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "model", joined_artifact())
    rewrite(tmp_path / "model", EXPERTS_FILE, change)
    with pytest.raises((ValueError, OSError), match=message):
        read_retrieval(tmp_path / "model")


def test_an_expert_of_another_catalogue_is_refused(tmp_path: Path) -> None:
    artifact = joined_artifact()
    dense = SasRec(SasRecConfig(31, 5, 8, 2, 1)).eval()
    write(tmp_path / "dense", artifact._replace(others={**artifact.others, "dense": dense}))
    with pytest.raises(ValueError, match="ranks 31 items, but the catalogue has 30"):
        read_retrieval(tmp_path / "dense")
    other = fresh_artifact("hierarchical", 29)
    write(
        tmp_path / "codes",
        artifact._replace(others={**artifact.others, "codes_2": CodesModel(other.model, other.table)}),
    )
    with pytest.raises(ValueError, match="list different items"):
        read_retrieval(tmp_path / "codes")
