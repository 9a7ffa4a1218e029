"""The command line as a user sees it: results, JSON, error messages and exit statuses."""

import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.main import get_command
from typer.testing import CliRunner

from rqrec import __version__
from rqrec.cli import GROUPS, app
from rqrec.cli.id_lists import join_ids, split_ids
from rqrec.core.artifact import find, read_json, read_manifest, write_json
from rqrec.evaluation.registry import BASELINES
from rqrec.stages.run_rqvae import GenerateSemanticIdsConfig, generate_semantic_ids
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from tests.stages.world import write_world
from tests.tiny import tiny_vectors

ROOT = Path(__file__).resolve().parents[2]


def rqrec(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def fails(done: Result, *expected: str) -> None:
    assert done.exit_code == 1, done.stderr
    assert isinstance(done.exception, SystemExit)
    for part in expected:
        assert part in done.stderr


def misused(done: Result, *expected: str) -> None:
    assert done.exit_code == 2, done.stderr
    for part in expected:
        assert part in done.stderr


def test_recommend_prints_one_json_object(tiny_run: Path) -> None:
    done = rqrec("recommend", "--artifact", tiny_run, "--history", "item 8, item 9", "--k", 3, "--json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["history"] == ["item 8", "item 9"]
    assert len(result["recommendations"]) == 3
    best = result["recommendations"][0]
    assert (best["item_id"], best["title"]) == ("item 10", "Title 10")
    assert best["score"] <= 0


def test_recommend_as_text_reports_that_fewer_items_are_allowed(tiny_run: Path) -> None:
    history = ",".join(f"item {item}" for item in range(46))
    done = rqrec("recommend", "--artifact", tiny_run, "--history", history, "--k", 5)
    assert "Title 47" in done.stdout
    assert "Only 2 items are allowed" in done.stdout


def test_recommend_with_filters_and_max_per(tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_run, "--history", "item 8,item 9", "--k", 5)
    allow = "item 10, item 11, item 30, item 40"
    done = rqrec(*arguments, "--allow", allow, "--block", "item 10", "--json")
    result = json.loads(done.stdout)
    assert {row["item_id"] for row in result["recommendations"]} == {"item 11", "item 30", "item 40"}
    assert (result["n_allowed"], result["skipped"]) == (3, [])
    assert "Only 3 items are allowed." in rqrec(*arguments, "--allow", allow, "--block", "item 10").stdout
    assert "Only 0 items are allowed." in rqrec(*arguments, "--allow", "").stdout
    spread = json.loads(rqrec(*arguments, "--max-per", "first_code=1", "--json").stdout)["recommendations"]
    assert len({row["semantic_id"][0] for row in spread}) == len(spread)
    many = (
        "recommend",
        "--artifact",
        tiny_run,
        "--history",
        "item 8",
        "--k",
        40,
        "--max-per",
        "first_code=1",
    )
    assert "--max-per excludes the others" in rqrec(*many).stdout


def test_recommend_skips_unknown_ids_and_lists_them(tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_run, "--history", "item 8,gone,item 9", "--block", "lost")
    done = rqrec(*arguments, "--unknown", "skip")
    assert "Skipped, because they are not in the catalogue: gone, lost." in done.stdout
    result = json.loads(rqrec(*arguments, "--unknown", "skip", "--explain", "--json").stdout)
    assert result["skipped"] == ["gone", "lost"]
    assert result["recommendations"][0]["item_id"] == "item 10"
    fails(rqrec(*arguments), "'gone'")
    misused(rqrec(*arguments, "--unknown", "ignore"), "'ignore'", "'raise', 'skip'")


def test_recommend_explains_items_by_their_codes(tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_run, "--history", "item 8,item 9", "--k", 3, "--explain")
    rows = json.loads(rqrec(*arguments, "--json").stdout)["recommendations"]
    for row in rows:
        assert [step["code"] for step in row["path"]] == row["semantic_id"]
        logs = sum(np.log(step["probability"]) for step in row["path"])
        assert logs == pytest.approx(row["score"], abs=1e-4)
        assert row["path"][-1]["n_items"] == 1
    text = rqrec(*arguments).stdout
    first = rows[0]["path"][0]
    assert f"code {first['code']:<5d} {first['probability']:7.2%}  {first['n_items']} item" in text
    assert f", also {', '.join(first['others'])}" in text


def test_invalid_times_are_refused(tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_run, "--history", "item 8,item 9")
    assert rqrec(*arguments, "--times", "1700000000, 1700000001", "--user", "ann").exit_code == 0
    fails(rqrec(*arguments, "--times", "1700000000,soon"), "'soon' is not a valid timestamp", "ISO dates")
    fails(rqrec(*arguments, "--times", "1700000000"), "2 items and 1 timestamps")


def test_seen_items_return_with_allow_seen(tiny_run: Path) -> None:
    arguments = ("recommend", "--artifact", tiny_run, "--history", "item 8,item 9", "--k", 48, "--json")
    ids = [row["item_id"] for row in json.loads(rqrec(*arguments).stdout)["recommendations"]]
    assert len(ids) == 46
    assert not {"item 8", "item 9"} & set(ids)
    seen_too = [
        row["item_id"] for row in json.loads(rqrec(*arguments, "--allow-seen").stdout)["recommendations"]
    ]
    assert len(seen_too) == 48


def test_an_unknown_id_is_an_error_message_and_status_1(tiny_run: Path) -> None:
    fails(rqrec("recommend", "--artifact", tiny_run, "--history", "item 1,nope"), "'nope'", "48 items")


def test_a_folder_without_a_model_is_an_error_message(tmp_path: Path) -> None:
    fails(rqrec("recommend", "--artifact", tmp_path, "--history", "a"), "rqrec train-decoder")
    fails(rqrec("recommend", "--artifact", tmp_path / "no", "--history", "a"), "There is no folder")


def test_wrong_usage_is_status_2(tiny_run: Path) -> None:
    for arguments in (
        ("nonsense",),
        ("recommend", "--history", "a"),
        ("recommend", "--artifact", tiny_run, "--history", "item 1", "--k", 0),
        ("recommend", "--artifact", tiny_run, "--history", "item 1", "--k", "many"),
    ):
        done = rqrec(*arguments)
        assert done.exit_code == 2, arguments
        assert isinstance(done.exception, SystemExit)


COMMANDS = (
    *(
        "demo",
        "quickstart",
        "prepare",
        "embed",
        "train-rqvae",
        "run-rqvae",
        "fit-rqkmeans",
        "tokenize",
        "inspect-ids",
    ),
    *("train-decoder", "train-sasrec", "join", "recommend", "evaluate", "hold-out-items", "evaluate-cold"),
    *("batch-recommend", "push", "pull", "serve", "export", "reproduce", "settings"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_shows_an_example(command: str) -> None:
    done = rqrec(command, "--help")
    assert done.exit_code == 0
    assert f"Example: rqrec {command}" in " ".join(done.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_name_the_same_thing_alike(command: str) -> None:
    lines = rqrec(command, "--help").stdout.splitlines()
    names = {line.split()[0].rstrip(",") for line in lines if line.strip().startswith("--")}
    assert not names & {"--output", "--raw", "--run", "--model"}  # --out, --data-dir, --artifact


def test_help_lists_every_command_in_its_group_with_a_whole_sentence() -> None:
    said = rqrec("--help").stdout
    lines = " ".join(said.split("Start here:")[1].split())
    assert "..." not in lines  # nothing is cut off
    for title, names in GROUPS.items():
        section = said.split(f"\n{title}:\n")[1].split("\n\n")[0]
        assert [line.split()[0] for line in section.splitlines() if line[2:3].strip()] == [*names]
    assert "Go from two files to a page with recommendations" in lines
    assert "..." not in rqrec("items", "--help").stdout.split("Commands:")[1]


def test_items_are_found_by_words_with_their_ids(tiny_run: Path) -> None:
    found = json.loads(rqrec("items", "find", tiny_run, "titel", "12", "--k", 3, "--json").stdout)
    assert found["items"][0] == {"item_id": "item 12", "title": "Title 12"}
    assert "item 12  Title 12" in rqrec("items", "find", tiny_run, "title 12").stdout
    assert "No item has 'quartz' in a field" in rqrec("items", "find", tiny_run, "quartz").stdout


@pytest.fixture
def custom(tmp_path: Path) -> Path:
    """A folder with custom embeddings, and arguments for a short training run."""
    np.save(tmp_path / "item_embeddings.npy", tiny_vectors())
    return tmp_path


def options_for(folder: Path, *bindings: str) -> list[str]:
    """configs/custom.gin with the folders of a test and sizes that train in a second."""
    settings = [
        f'train.dataset_folder="{folder}"',
        f'train.save_dir_root="{folder}/out"',
        "train.iterations=40",
        "train.batch_size=16",
        "train.vae_codebook_size=8",
        "train.vae_hidden_dims=[16]",
        f'generate_semantic_ids.dataset_folder="{folder}"',
        f'generate_semantic_ids.pretrained_model_path="{folder}/out"',
        f'generate_semantic_ids.output_path="{folder}/ids.npy"',
        *bindings,
    ]
    return [str(ROOT / "configs/custom.gin"), *(p for setting in settings for p in ("--gin", setting))]


def train(folder: Path, *bindings: str) -> Result:
    return rqrec("train-rqvae", *options_for(folder, *bindings))


def test_the_documented_commands_give_custom_data_unique_ids(
    custom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train_rqvae.py", "run_rqvae.py"):
        monkeypatch.setattr(sys, "argv", [name, *options_for(custom)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / name), run_name="__main__")
        assert ended.value.code == 0
    ids = np.load(custom / "ids.npy")
    assert (ids.dtype, ids.shape) == (np.int64, (48, 4))
    assert len(np.unique(ids, axis=0)) == 48
    assert ids.min() >= 0
    assert ids[:, :3].max() < 8


@pytest.mark.parametrize(
    ("binding", "expected"),
    [
        ("train.vae_codebok_size=1", ("vae_codebok_size", "did you mean vae_codebook_size")),
        ("train.vae_codebook_mode='soft'", ("soft", "STE")),
        ("train.dataset='netflix'", ("netflix", "amazon")),
        ("train.do_eval=True", ("is_train.npy", "do_eval=False")),
        ("train.vae_input_dim=99", ("99", "16")),
        ("train.iterations=0", ("iterations is 0",)),
        ("train.vae_codebook_size", ("--gin", "expected")),
    ],
)
def test_an_impossible_setting_is_an_error_message(
    custom: Path, binding: str, expected: tuple[str, ...]
) -> None:
    fails(train(custom, binding), *expected)


def test_missing_files_are_error_messages(tmp_path: Path) -> None:
    fails(train(tmp_path), "item_embeddings.npy")
    fails(rqrec("run-rqvae", *options_for(tmp_path)), "rqrec train-rqvae")
    fails(rqrec("train-rqvae", "configs/nowhere.gin"), "configs/nowhere.gin")


def test_a_folder_that_cannot_be_written_is_an_error_message(custom: Path) -> None:
    done = train(custom, "train.save_dir_root='/proc/nowhere'")
    fails(done, "/proc/nowhere")


def test_a_full_disk_is_an_error_message_and_keeps_what_was_saved(custom: Path, small_disk: Path) -> None:
    root = f"train.save_dir_root='{small_disk}/run'"
    assert train(custom, root).exit_code == 0
    before = (small_disk / "run" / "rqvae" / "manifest.json").read_bytes()
    larger = ("train.vae_hidden_dims=[512, 256, 128]", "train.resume='never'")
    fails(train(custom, root, *larger), str(small_disk), "No space left")
    assert (small_disk / "run" / "rqvae" / "manifest.json").read_bytes() == before


def test_a_finished_run_is_reused_and_never_replaced_by_one_with_other_settings(custom: Path) -> None:
    assert train(custom).exit_code == 0
    manifest = custom / "out" / "rqvae" / "manifest.json"
    before = manifest.read_bytes()
    again = train(custom)
    assert again.exit_code == 0
    assert "rqvae: found in" in again.stderr
    fails(train(custom, "train.seed=3"), "training.seed was 0 and is 3", "train.resume='never'")
    assert manifest.read_bytes() == before
    assert train(custom, "train.seed=3", "train.resume='never'").exit_code == 0
    assert manifest.read_bytes() != before


def test_the_version_is_printed_by_the_command_and_the_module() -> None:
    for command in ([str(Path(sys.executable).with_name("rqrec"))], [sys.executable, "-m", "rqrec"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"rqrec {__version__}"


def test_a_model_of_another_version_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "retrieval"
    shutil.copytree(tiny_run / "retrieval", folder)
    manifest = read_json(folder / "manifest.json") | {"format_version": 7, "made_by": "rqrec 9.0"}
    write_json(folder / "manifest.json", manifest)
    done = rqrec("recommend", "--artifact", folder, "--history", "item 1")
    fails(done, "format_version 7", "rqrec 9.0", "rqrec train-decoder")


def result_of(done: Result) -> dict:
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


def test_custom_vectors_are_tokenized_by_k_means_and_new_items_are_added(custom: Path) -> None:
    model, ids = custom / "rqkmeans", custom / "ids"
    fitted = result_of(
        rqrec("fit-rqkmeans", custom, "--out", model, "--codebook-size", 8, "--levels", 2, "--json")
    )
    assert fitted["items"] == 48
    made = result_of(rqrec("tokenize", model, custom, "--out", ids, "--json"))
    assert made["codebook_usage"] == [1.0, 1.0]
    before = SemanticIdTable.read(ids)

    np.save(custom / "new.npy", tiny_vectors()[:3])  # the same content as items 0, 1 and 2
    (custom / "new.txt").write_bytes(b"\xef\xbb\xbfx\r\n\r\n  y \r\nz")  # as Windows tools write it
    options = ("--new", custom / "new.npy", "--table", ids, "--new-ids", custom / "new.txt")
    added = result_of(rqrec("tokenize", model, *options, "--out", custom / "more", "--json"))
    assert (added["items"], added["new_items"]) == (51, 3)
    after = SemanticIdTable.read(custom / "more")
    assert (after.codes_NL[:48] == before.codes_NL).all()
    assert after.item_ids.all[48:].to_list() == ["x", "y", "z"]
    assert (after.codes_NL[48:, :2] == before.codes_NL[:3, :2]).all()
    assert len(np.unique(after.codes_NL, axis=0)) == 51


def test_new_items_are_refused_by_a_table_of_another_tokenizer(custom: Path, tiny_run: Path) -> None:
    model = custom / "rqkmeans"
    assert rqrec("fit-rqkmeans", custom, "--out", model, "--codebook-size", 8).exit_code == 0
    options = ("--new", custom / "item_embeddings.npy", "--table", tiny_run, "--out", custom / "more")
    fails(rqrec("tokenize", model, *options), "another tokenizer", "rqrec tokenize")
    done = rqrec("tokenize", model, "--new", custom / "item_embeddings.npy", "--out", custom / "more")
    assert done.exit_code == 2


def test_inspecting_ids_measures_them_and_writes_a_report(tiny_run: Path, tmp_path: Path) -> None:
    options = ("--out", tmp_path / "report", "--tokens", tmp_path / "tokens.jsonl", "--json")
    result = result_of(rqrec("inspect-ids", tiny_run, *options))
    assert result["items"] == 48
    assert result["codebook_sizes"] == [8, 8]
    assert result["agreement"]["neighbours"][0] > result["agreement"]["random_items"][0]
    assert result["examples"][0]["titles"][0].startswith("Title ")
    assert (tmp_path / "report" / "report.html").read_text().count("data:image/png") == 2
    lines = (tmp_path / "tokens.jsonl").read_text().splitlines()
    assert len(lines) == 48
    assert json.loads(lines[5])["item_id"] == "item 5"
    assert json.loads(lines[5])["tokens"].startswith("<a_")
    assert rqrec("inspect-ids", tiny_run, *options).exit_code == 0  # replaces what it wrote


def test_inspecting_ids_replaces_nothing_else(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    artifact = find(run, "semantic_ids")
    mine = [artifact / "manifest.json", tmp_path / "notes.txt", tmp_path / "notes.jsonl"]
    mine[1].write_text("precious")
    mine[2].write_text('{"item_id": "a"}\n')
    for file in mine:
        before = file.read_bytes()
        fails(rqrec("inspect-ids", run, "--tokens", file), str(file), "choose")
        assert file.read_bytes() == before
    fails(
        rqrec("inspect-ids", run, "--out", artifact / "report"), "an artefact that another file would damage"
    )


@pytest.mark.parametrize("values", [np.ones((3, 2), np.float32), np.arange(3)])
def test_only_semantic_ids_are_replaced_by_semantic_ids(custom: Path, values: NDArray[Any]) -> None:
    output = custom / "other.npy"
    np.save(output, values)
    with pytest.raises(FileExistsError, match=r"other.npy is there already and is no earlier result"):
        generate_semantic_ids(GenerateSemanticIdsConfig(custom, str(custom / "rqvae"), output))
    assert np.array_equal(np.load(output), values)
    output.write_bytes(b"PK\x03\x04 damaged")
    with pytest.raises(FileExistsError, match="no earlier result"):
        generate_semantic_ids(GenerateSemanticIdsConfig(custom, str(custom / "rqvae"), output))


def test_a_collapsed_codebook_is_reported_as_text(custom: Path) -> None:
    np.save(custom / "item_embeddings.npy", np.repeat(tiny_vectors()[:4], 12, axis=0))
    model, ids = custom / "rqkmeans", custom / "ids"
    assert rqrec("fit-rqkmeans", custom, "--out", model, "--codebook-size", 16).exit_code == 0
    assert rqrec("tokenize", model, custom, "--out", ids).exit_code == 0
    done = rqrec("inspect-ids", ids)
    assert "Warning: Level 0 has collapsed" in done.stdout
    assert "100.0% of the items share" in done.stdout


def test_custom_files_are_prepared_and_embedded_with_custom_vectors(tmp_path: Path) -> None:
    rows = ["user_id,item_id,timestamp", *(f"u{n % 9},i{n % 7},{n}" for n in range(60))]
    (tmp_path / "log.csv").write_text("\n".join(rows) + "\n")
    items = ["item_id,title", *(f"i{n},Thing {n}" for n in range(7))]
    (tmp_path / "items.csv").write_text("\n".join(items) + "\n")
    np.save(tmp_path / "vectors.npy", tiny_vectors()[:7])
    files = ("--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv")
    options = (*files, "--embeddings", tmp_path / "vectors.npy", "--template", "{title}")
    out = tmp_path / "run" / "dataset"
    made = result_of(rqrec("prepare", "custom", *options, "--out", out, "--json"))
    assert (made["users"], made["items"], made["interactions"]) == (9, 7, 60)
    assert made["seconds"] > 0
    assert made["peak_memory_mb"] > 0
    vectors = ("--embeddings", tmp_path / "vectors.npy", "--collaborative", 3)
    embedded = result_of(
        rqrec("embed", tmp_path / "run", *vectors, "--out", tmp_path / "run" / "e", "--json")
    )
    assert (embedded["items"], embedded["dim"]) == (7, 16 + 3)
    misused(rqrec("prepare", "netflix", "--out", tmp_path / "x"), "netflix", "amazon, movielens, custom")


def test_tokenizing_in_blocks_gives_the_same_table(tiny_run: Path, tmp_path: Path) -> None:
    inputs = (tiny_run / "tokenizer", tiny_run / "embeddings", "--dataset", tiny_run / "dataset")
    done = rqrec("tokenize", *inputs, "--out", tmp_path / "ids", "--processes", 1)
    assert done.exit_code == 0, done.stderr
    expected = read_manifest(tiny_run / "semantic_ids").hash
    assert read_manifest(tmp_path / "ids", "semantic_ids").hash == expected
    misused(rqrec("tokenize", *inputs, "--out", tmp_path / "x", "--engine", "slurm"), "local", "ray")


@pytest.mark.parametrize("architecture", ["decoder_only", "encoder_decoder", "hierarchical"])
def test_bench_train_reports_the_time_of_each_part_of_a_step(architecture: str) -> None:
    options = ("--architecture", architecture, "--width", 16, "--batch", 4, "--steps", 1)
    result = result_of(rqrec("bench", "train", *options, "--json"))
    assert result["milliseconds_per_step"] > 0
    parts = {"data path", "embedding", "attention", "feed-forward", "norms", "dropout", "heads"}
    parts |= {"softmax and loss", "rest of the forward pass", "backward", "clipping", "optimizer"}
    assert set(result["parts"]) == parts
    assert all(share > 0 for share in result["parts"].values())
    assert sum(result["parts"].values()) == pytest.approx(1, abs=1e-2)
    # Which ones are the slowest of one step, where others have the cores, is chance.
    assert any(name.startswith("aten::") for name in result["operators_ms"])


def test_bench_train_prints_text_too() -> None:
    done = rqrec("bench", "train", "--width", 16, "--batch", 4, "--steps", 1)
    assert "The largest parts are" in done.stdout
    assert "the data path takes" in done.stdout
    assert rqrec("bench", "train", "--architecture", "rnn").exit_code == 2
    assert rqrec("bench", "train", "--precision", "int8").exit_code == 2


def test_max_minutes_on_the_command_line_ends_training(custom: Path) -> None:
    done = rqrec(
        "train-rqvae",
        *options_for(custom, "train.do_eval=False", "train.iterations=1000000"),
        "--max-minutes",
        0.02,
    )
    assert done.exit_code == 0, done.stderr
    assert "max_minutes" in read_json(custom / "out" / "rqvae" / "manifest.json")["metrics"]["stopped"]


@pytest.mark.parametrize(
    ("command", "binding", "problem"),
    [
        ("train-rqvae", "train.batch_size=0", "batch_size is 0"),
        ("train-rqvae", "train.vae_hidden_dims=[16.5]", "An element of vae_hidden_dims is 16.5"),
        ("train-rqvae", "train.vae_codebook_mode='FOO'", "vae_codebook_mode is 'FOO'"),
        ("train-rqvae", "train.reset_dead_codes_every=-1", "reset_dead_codes_every is -1"),
        ("train-decoder", "train.max_items=0", "max_items is 0"),
        ("train-decoder", "train.attn_dropout=1.5", "attn_dropout is 1.5"),
        ("train-decoder", "train.vae_n_layers=0", "vae_n_layers is 0"),
        ("train-sasrec", "train.attn_heads=3", "attn_heads 3"),
        ("train-sasrec", "train.batch_size=0", "batch_size is 0"),
        (
            "compare",
            "compare.attn_layers={'decoder_only': 1}",
            "attn_layers has no entry for encoder_decoder",
        ),
        ("compare", "compare.seeds=[0, 0]", "name each one only once"),
        ("compare", "compare.attn_heads=0", "attn_heads is 0"),
        ("compare", "compare.vae_n_layers=0", "vae_n_layers is 0"),
        ("compare", "compare.seeds=['a']", "An element of seeds is 'a'"),
    ],
)
def test_impossible_settings_are_refused_before_any_work_under_their_own_names(
    command: str, binding: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fails(rqrec(command, "--gin", binding), problem)
    assert list(tmp_path.iterdir()) == []


def test_impossible_options_are_refused_before_any_work(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    misused(rqrec("prepare", "custom", "--items", nowhere), "--interactions")
    misused(rqrec("evaluate", "--baseline", "random", "--dataset", nowhere), *BASELINES)
    misused(rqrec("tokenize", nowhere, nowhere, "--out", tmp_path / "out", "--engine", "foo"), "local", "ray")
    misused(rqrec("prepare", "amazon", "--variant", "beauty", "--interactions", nowhere), "custom data")
    fit = ("fit-rqkmeans", nowhere, "--out", tmp_path / "out")
    misused(rqrec(*fit, "--levels", 0), "levels is 0")
    misused(rqrec(*fit, "--items-per-code", -1), "items_per_code is -1")
    embed = ("embed", nowhere, "--out", tmp_path / "out")
    misused(rqrec(*embed, "--collaborative-weight", -1), "collaborative_weight is -1")
    misused(rqrec(*embed, "--collaborative-window", 0), "collaborative_window is 0")


def test_recommend_reads_its_settings_from_gin(tiny_run: Path, tmp_path: Path) -> None:
    (tmp_path / "r.gin").write_text("recommend.k = 3\nserve.k = 7\n")
    ask = ("recommend", "--artifact", tiny_run, "--history", "item 8", "--json")
    for more in (("--config", tmp_path / "r.gin"), ("--gin", "recommend.k=3")):
        assert json.loads(rqrec(*ask, *more).stdout)["k"] == 3
    assert json.loads(rqrec(*ask, "--gin", "recommend.k=3", "--k", 2).stdout)["k"] == 2


def test_folders_of_another_dataset_or_of_an_artefact_are_refused(tiny_run: Path, tmp_path: Path) -> None:
    dataset, other = tmp_path / "dataset", tmp_path / "other"
    files = ("--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv")
    table = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["x", "y", "y"], "timestamp": [1, 2, 3]})
    for number, folder in enumerate((dataset, other)):
        table.with_columns(pl.col("timestamp") + number).write_csv(tmp_path / "log.csv")
        (tmp_path / "items.csv").write_text("item_id,title,text\nx,X,x\ny,Y,y\n")
        assert rqrec("prepare", "custom", *files, "--out", folder).exit_code == 0
    np.save(tmp_path / "v.npy", np.eye(2, 4, dtype=np.float32))
    vectors = tmp_path / "embeddings"
    done = rqrec("embed", dataset, "--embeddings", tmp_path / "v.npy", "--out", vectors)
    assert done.exit_code == 0, done.stderr
    given = ("--dataset", other, "--embeddings", vectors)
    fails(rqrec("hold-out-items", *given, "--out", tmp_path / "cold"), "was not made from")
    fails(rqrec("inspect-ids", tiny_run, *given), "was not made from")
    fails(rqrec("inspect-ids", tiny_run, "--out", dataset), "is an artefact: choose another folder")


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "d", "--out", "o", "--embeddings", "x.npy", "--device", "cpu"),
        ("tokenize", "t", "--new", "x.npy", "--table", "s", "--collisions", "reassign"),
        ("tokenize", "t", "--new", "x.npy", "--table", "s", "--engine", "ray"),
    ],
)
def test_options_without_effect_are_refused(arguments: tuple[str, ...]) -> None:
    done = rqrec(*arguments)
    assert done.exit_code == 2
    assert "leave out" in " ".join(done.stderr.replace("│", " ").split())


def test_an_empty_entry_of_a_list_is_refused_and_not_dropped(tiny_run: Path) -> None:
    for options in (("--history", "item 1,,item 2"), ("--history", "item 1", "--block", "item 3,")):
        done = rqrec("recommend", "--artifact", tiny_run, *options)
        assert done.exit_code == 2, options
        assert "entry 2" in done.stderr
    assert rqrec("recommend", "--artifact", tiny_run, "--history", "").exit_code == 0
    recommend = ("recommend", "--artifact", tiny_run, "--history", "item 1")
    for command, empty in (
        ((*recommend, "--experts"), ","),
        ((*recommend, "--max-per"), ""),
        (("evaluate", "--artifact", tiny_run, "--experts"), "codes,"),
        (("serve", "--artifact", tiny_run, "--token"), ""),
        (("serve", "--artifact", tiny_run, "--allow-host"), " "),
        (("serve", "--artifact", tiny_run, "--trusted-proxies"), "10.0.0.1,,10.0.0.2"),
    ):
        misused(rqrec(*command, empty), "is empty", str(command[-1]))


def test_an_empty_variable_of_tokens_does_not_open_the_service(
    tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RQREC_TOKEN", " ")
    misused(rqrec("serve", "--artifact", tiny_run), "RQREC_TOKEN", "unset")


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--allow-origin", "shop.example", "https://shop.example"),
        ("--allow-origin", "https://shop.example/", "without a path"),
        ("--allow-origin", "https://Shop.example", "lower case"),
        ("--allow-host", "https://shop.example", "without"),
        ("--allow-host", "shop.example:8000", "port"),
        ("--allow-host", "[::1]", "brackets"),
        ("--allow-host", "*", "host name"),
        ("--trusted-proxies", "proxy", "IP address"),
        ("--trusted-proxies", "10.0.0.256", "IP address"),
        ("--trusted-proxies", "10.0.0.1/8", "host bits"),
        ("--timeout", "100000", "86400"),
        ("--max-wait-ms", "100000", "60000"),
        ("--port", "65536", "65535"),
    ],
)
def test_addresses_and_numbers_of_the_service_are_checked(
    tiny_run: Path, option: str, value: str, expected: str
) -> None:
    misused(rqrec("serve", "--artifact", tiny_run, option, value), value[:20], expected)


def test_quickstart_checks_its_options_before_it_reads_anything() -> None:
    for option, value in (("--port", 99999), ("--minutes", 1e308), ("--minutes", 0)):
        misused(rqrec("quickstart", "log.csv", "items.csv", option, value), option.strip("-"))


def test_an_option_given_twice_is_refused_and_no_value_is_lost(tiny_run: Path) -> None:
    recommend = ("recommend", "--artifact", tiny_run, "--history", "item 1")
    misused(rqrec(*recommend, "--history", "item 2"), "--history is given 2 times")
    misused(rqrec(*recommend, "--exclude-seen", "--allow-seen"), "is given 2 times")
    fails(rqrec(*recommend, "--boost", "title = a: 1", "--boost", "title = a: 2"), "title = a: 2")
    fails(rqrec(*recommend, "--max-per", "title=1,title=2"), "title=2")


def test_an_empty_path_is_not_the_current_folder(tiny_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_run)
    misused(rqrec("recommend", "--artifact", "", "--history", "item 1"), "--artifact is empty")
    misused(rqrec("items", "log", ""), "artifact is empty")
    misused(rqrec("join", ".", "", "--dataset", ".", "--out", "x"), "is empty")
    fails(rqrec("serve", "--artifact", ""), "NAME=FOLDER")
    fails(rqrec("serve", "--artifact", "a="), "NAME=FOLDER")


@given(ids=st.lists(st.text(min_size=1) | st.sampled_from(["a,b", " a", "[1]", '["a"]', "[1", "2]", "1"])))
def test_ids_of_any_text_fit_into_one_option(ids: list[str]) -> None:
    assert split_ids(join_ids(ids)) == ids
    assert split_ids("50, 181,172") == split_ids('["50", "181", "172"]') == split_ids("[50, 181, 172]")


def test_a_model_is_not_joined_with_itself(tiny_run: Path, tmp_path: Path) -> None:
    done = rqrec("join", tiny_run, tiny_run, "--dataset", tiny_run / "dataset", "--out", tmp_path / "joined")
    fails(done, "is the same model as one before it: give each only once")


def test_an_encoder_without_effect_is_said(tiny_run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", tiny_vectors())
    options = ("--embeddings", tmp_path / "x.npy", "--encoder", "another", "--out", tmp_path / "out")
    done = rqrec("embed", tiny_run / "dataset", *options)
    assert done.exit_code == 0, done.stderr
    assert "the encoder another has no effect" in " ".join(done.stderr.split())


def test_one_application_gives_every_command_with_its_options() -> None:
    application: Any = get_command(app)
    for name in ("prepare", "tokenize", "prepare"):
        assert application.get_command(None, name).params, name
    assert "find" in application.get_command(None, "items").commands


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["items", "--help"], ["settings"]])
def test_output_that_cannot_be_written_ends_in_a_sentence(arguments: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("The system has no device that is always full.")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rqrec", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    said = "rqrec: standard output: No space left on device. Everything saved earlier is intact."
    assert done.stderr == f"{said} Make room there, or choose another place.\n"


def test_a_command_without_standard_output_ends_before_it_begins(tmp_path: Path) -> None:
    write_world(tmp_path / "world")
    files = "--interactions world/log.parquet --embeddings world/item_embeddings.npy"
    command = f"{sys.executable} -m rqrec prepare custom {files} --out out"

    def run(redirected: str) -> Any:
        shell = ["sh", "-c", f"exec {command} {redirected}"]
        return subprocess.run(shell, capture_output=True, text=True, check=False, cwd=tmp_path)

    done = run(">&-")
    assert (done.returncode, "Standard output is closed: send it to a file" in done.stderr) == (1, True)
    assert not (tmp_path / "out").exists()
    done = run("<&- 2>&-")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "manifest.json").is_file()


def test_bytes_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    for arguments in (
        ["items", "log", "m\udcff"],
        ["serve", "--artifact", "m\udcff"],
        ["compare", "a", "b\udc80"],
    ):
        misused(rqrec(*arguments), "has bytes that are not UTF-8")


def test_options_for_models_of_another_kind_are_said(tiny_run: Path) -> None:
    done = rqrec(
        "recommend", "--artifact", tiny_run, "--history", "item 1", "--user", "a", "--times", "1700000000"
    )
    assert done.exit_code == 0, done.stderr
    assert "--times makes no difference: the model was trained without it." in done.stderr
    assert "--user makes no difference" in done.stderr


def test_a_deleted_current_folder_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = f"cd {tmp_path}/gone && rmdir ../gone && exec {sys.executable} -m rqrec settings"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(
        "rqrec: The current folder does not exist any more: go to another one with cd"
    )


@pytest.mark.parametrize("minutes", ["nan", "inf"])
def test_minutes_that_are_no_number_are_refused_as_the_option_they_are(minutes: str) -> None:
    misused(rqrec("train-decoder", "--max-minutes", minutes), f"--max-minutes is {minutes}, but must be")


def test_a_window_beyond_the_longest_sequence_is_one_of_the_whole_sequence(tmp_path: Path) -> None:
    write_world(tmp_path / "world")
    log, vectors = tmp_path / "world/log.parquet", tmp_path / "world/item_embeddings.npy"
    dataset = tmp_path / "dataset"
    result_of(
        rqrec("prepare", "custom", "--interactions", log, "--embeddings", vectors, "--out", dataset, "--json")
    )
    made = []
    for window in (1000, 2**62):
        options = ("--embeddings", vectors, "--collaborative", 4, "--collaborative-window", window)
        result_of(rqrec("embed", dataset, *options, "--out", tmp_path / f"{window}", "--json"))
        made.append(np.load(tmp_path / f"{window}" / "item_embeddings.npy"))
    assert np.array_equal(*made)
    too_long = ("--collaborative", 4, "--collaborative-weight", 1e38, "--out", tmp_path / "long")
    misused(rqrec("embed", dataset, "--embeddings", vectors, *too_long), "above 0 and at most 1000")
