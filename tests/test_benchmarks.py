"""The benchmarks run, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def test_decoding_measures_each_architecture() -> None:
    small = [
        "--items",
        "300",
        "--beams",
        "4",
        "--threads",
        "1",
        "--batch",
        "2",
        "--seconds",
        "0.01",
        "--json",
    ]
    command = [sys.executable, str(ROOT / "benchmarks" / "decoding.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    names = ["decoder_only", "encoder_decoder", "hierarchical", "t5_generate"]
    assert [row["architecture"] for row in rows] == names
    for row in rows:
        assert row["items"] == 300
        assert row["users_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]


def test_scale_measures_and_plans(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--json"]
    small = ["--parts", "trie", "dedup", "--catalogs", "500", "--tuples", "500", "--seconds", "0.01"]
    done = subprocess.run([*script, *small], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)["measured"]
    (trie,) = measured["trie"]
    assert (trie["items"], trie["codes_bytes_per_item"]) == (500, 32)
    assert 20 < trie["trie_bytes_per_item"] < 100
    assert measured["dedup"]["largest_group"] >= 1

    measured |= {
        "trie": [trie | {"trie_bytes_per_item": 40, "codes_bytes_per_item": 32, "ids_bytes_per_item": 28}],
        "search": [{"items": 500, "users_per_second": {"slow": 1.0, "fast": 100.0}}],
        "text": {"texts_per_second": 50.0},
        "tokenizer": {"steps_per_second": 10.0, "items_tokenized_per_second": 1000.0},
        "training": {"items_per_second": {"slow": 1.0, "fast": 1000.0}},
        "storage": {
            "history_bytes_per_user": 100,
            "recommendation_bytes_per_user": 200,
            "sequence_bytes_per_interaction": 12,
        },
    }
    (tmp_path / "scale.json").write_text(json.dumps({"measured": measured}))
    sizes = ["--plan", str(tmp_path / "scale.json"), "--items", "36e6", "--users", "72e6"]
    done = subprocess.run([*script, *sizes], capture_output=True, text=True, check=True)
    plan = json.loads(done.stdout)["plan"]
    assert plan["core_hours"]["texts"] == 200
    assert plan["core_hours"]["tokenizing"] == 10
    assert plan["core_hours"]["recommending, fast"] == 200
    assert plan["core_hours"]["training fast"] == 3 * 20 * 72e6 / 1000 / 3600
    assert plan["gigabytes"]["memory of a replica: trie, codes and ids"] == 3.6
    assert plan["gigabytes"]["histories"] == 7.2


@pytest.mark.slow
def test_serving_loses_nothing_at_any_load() -> None:
    small = ["--items", "300", "--connections", "4", "--seconds", "2", "--json"]
    command = [sys.executable, str(ROOT / "benchmarks" / "serving.py"), *small]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [row["load"] for row in rows] == ["closed", "closed", "paced", "reloading", "overload"]
    for row in rows:
        assert row["requests_per_second"] > 0
        assert 0 < row["p50_ms"] <= row["p99_ms"]
        assert (row["lost"], row["429_without_retry_after"]) == (0, 0)


def test_quality_trains_each_model_for_its_minutes(tiny_run: Path, tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "quality.py"), "--run", str(tiny_run), "--json"]
    small = ["--minutes", "0.02", "0.04", "--models", "hierarchical", "sasrec", "--batch", "16"]
    figure = ["--figure", str(tmp_path / "quality.png")]
    done = subprocess.run([*script, *small, *figure], capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)["rows"]
    assert [(row["model"], row["minutes"]) for row in rows] == [
        ("hierarchical", 0.02),
        ("hierarchical", 0.04),
        ("sasrec", 0.02),
        ("sasrec", 0.04),
    ]
    assert all(row["steps"] >= 1 and 0 <= row["ndcg@10"] <= 1 for row in rows)
    assert (tmp_path / "quality.png").stat().st_size > 1000
