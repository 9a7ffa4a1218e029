"""Push and pull of artefacts, against a local folder that stands in for Hugging Face."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from typer.testing import CliRunner

from rqrec import Recommender
from rqrec.cli import app
from rqrec.core.artifact import create, read_json, read_manifest, write_json
from rqrec.core.hub import upload
from rqrec.stages.share import _evaluation_metrics, pull, push
from rqrec.tokenizer.loading import load_tokenizer
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one subfolder per repository, behind the functions of huggingface_hub."""
    root = tmp_path / "hub"

    class Api:
        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            return f"https://hub/{repo_id}"

        def repo_info(self, repo_id: str) -> SimpleNamespace:
            return SimpleNamespace(private=(root / repo_id).name.startswith("private"))

        def upload_folder(self, *, repo_id: str, folder_path: str) -> None:
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot_download(repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir():
            raise OSError(f"404: no repository {repo_id}\nand a long trace")
        cache = tmp_path / "cache" / repo_id
        for path in (root / repo_id).rglob("*"):
            name = path.relative_to(root / repo_id)
            if path.is_file() and any(name.match(pattern) for pattern in allow_patterns):
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, cache / name)
        cache.mkdir(parents=True, exist_ok=True)
        return str(cache)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return root


def test_a_pushed_and_pulled_model_makes_the_same_recommendations(
    tiny_run: Path, hub: Path, tmp_path: Path
) -> None:
    assert push(tiny_run, "me/tiny", data="48 items in families.") == "https://hub/me/tiny"
    pull("me/tiny", tmp_path / "pulled")
    pull("me/tiny", tmp_path / "pulled")  # the folder already has this artefact
    original = read_manifest(tiny_run / "retrieval", "retrieval")
    assert read_manifest(tmp_path / "pulled", "retrieval", verify=True).hash == original.hash
    expected = Recommender.load(tiny_run).recommend([["item 8", "item 9"]], k=5)
    for source in (tmp_path / "pulled", "me/tiny"):
        assert Recommender.load(source).recommend([["item 8", "item 9"]], k=5) == expected


def test_the_model_card_has_data_metrics_and_usage(tiny_run: Path, hub: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run / "retrieval", run / "retrieval")
    inputs = {"retrieval": read_manifest(run / "retrieval").hash}
    for folder, evaluated, recall in (
        ("evaluation", inputs, 0.625),
        ("other", {"retrieval": "another"}, 0.875),
    ):
        (run / folder).mkdir()
        manifest = {"artifact_type": "evaluation", "settings": {"split": "test"}, "inputs": evaluated}
        write_json(run / folder / "manifest.json", manifest)
        write_json(run / folder / "evaluation.json", {"seed": 0, "metrics": {"recall@10": recall}})
    (run / "damaged").mkdir()
    (run / "damaged" / "manifest.json").write_text("{")  # what lies beside a model does not matter
    push(run / "retrieval", "me/tiny", data="48 items in families.")
    card = (hub / "me/tiny/README.md").read_text()
    assert card.startswith("---\nlibrary_name: rqrec\n")
    for part in (
        "## Limits",
        "items of its catalogue, and no others unless they are added",
        "48 items in families.",
        "| test recall@10 | 0.625 |",
        "| validation recall@10 |",
        "| architecture | decoder_only |",
        'Recommender.load("me/tiny")',
    ):
        assert part in card
    assert "0.875" not in card


def test_a_joined_model_is_pushed_and_pulled_with_all_its_experts(
    tiny_joined: Path, hub: Path, tmp_path: Path
) -> None:
    push(tiny_joined, "me/joined")
    pull("me/joined", tmp_path / "pulled")
    expected = Recommender.load(tiny_joined).recommend([["item 8", "item 9"]], k=5)
    assert Recommender.load(tmp_path / "pulled").recommend([["item 8", "item 9"]], k=5) == expected


def test_the_model_card_says_which_experts_an_evaluation_is_of(hub: Path, tmp_path: Path) -> None:
    metrics = {"experts": {"codes": {}, "dense": {}}}
    with create(tmp_path / "retrieval", "retrieval", metrics=metrics):
        pass
    manifest = read_manifest(tmp_path / "retrieval")
    for name, experts, recall in (("all", metrics["experts"], 0.625), ("one", {"codes": {}}, 0.5)):
        settings = {"split": "test", "experts": experts}
        inputs = {"retrieval": manifest.hash}
        with create(tmp_path / name, "evaluation", settings=settings, inputs=inputs) as target:
            write_json(target / "evaluation.json", {"seed": 0, "metrics": {"recall@10": recall}})
    metrics = dict(_evaluation_metrics(tmp_path / "retrieval", manifest))
    assert metrics == {"test recall@10": 0.625, "test of codes recall@10": 0.5}


def test_a_tokenizer_can_be_pushed_and_pulled(tiny_run: Path, hub: Path, tmp_path: Path) -> None:
    push(tiny_run / "tokenizer" / "rqvae", "me/ids")
    assert 'RqVae.from_pretrained("me/ids")' in (hub / "me/ids/README.md").read_text()
    pull("me/ids", tmp_path / "ids")
    assert load_tokenizer(tmp_path / "ids").hash == load_tokenizer(tiny_run / "tokenizer" / "rqvae").hash


def test_a_pushed_rqkmeans_tokenizes_under_its_repository_id(hub: Path, tmp_path: Path) -> None:
    model = RqKMeans(RqKMeansConfig(4, codebook_size=2, n_layers=2))
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    model.fit(vectors, torch.Generator().manual_seed(0))
    with create(tmp_path / "ids", "rqkmeans") as target:
        model.save_pretrained(target)
    push(tmp_path / "ids", "me/kmeans")
    loaded = load_tokenizer("me/kmeans")
    assert loaded.artifact_type == "rqkmeans"
    assert loaded.model.config == model.config


def test_only_intact_models_and_tokenizers_can_be_pushed(tiny_run: Path, hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="type 'dataset'; only retrieval, rqvae, rqkmeans can be pushed"):
        push(tiny_run / "dataset", "me/tiny")
    with pytest.raises(FileNotFoundError, match="nothing to push"):
        push(tmp_path, "me/tiny")
    with pytest.raises(ValueError, match="'tiny' is not a repository id"):
        push(tiny_run, "tiny")
    shutil.copytree(tiny_run / "retrieval", tmp_path / "changed")
    (tmp_path / "changed" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is missing or differs"):
        push(tmp_path / "changed", "me/tiny")
    assert not hub.exists()


def test_pulling_a_damaged_repository_leaves_no_folder(tiny_run: Path, hub: Path, tmp_path: Path) -> None:
    push(tiny_run, "me/tiny")
    (hub / "me/tiny/model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"me/tiny: model\.safetensors is missing or differs"):
        pull("me/tiny", tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing or differs"):
        Recommender.load("me/tiny")


@pytest.mark.parametrize("name", ["../outside.json", "/etc/x.json", "model.pkl", "a\\b.json", "code.py"])
def test_unsafe_file_names_in_a_manifest_are_refused(
    name: str, tiny_run: Path, hub: Path, tmp_path: Path
) -> None:
    push(tiny_run, "me/tiny")
    manifest = read_json(hub / "me/tiny/manifest.json")
    manifest["files"][name] = "0" * 64
    write_json(hub / "me/tiny/manifest.json", manifest)
    with pytest.raises(ValueError, match="which is not allowed in an artefact"):
        pull("me/tiny", tmp_path / "pulled")


def test_pull_does_not_overwrite_a_folder_with_other_content(
    tiny_run: Path, hub: Path, tmp_path: Path
) -> None:
    push(tiny_run, "me/tiny")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    shutil.copytree(tiny_run / "tokenizer" / "rqvae", tmp_path / "model")
    for folder in ("mine", "model"):
        with pytest.raises(FileExistsError, match="not touched"):
            pull("me/tiny", tmp_path / folder)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert read_manifest(tmp_path / "model").artifact_type == "rqvae"


def test_the_commands_push_and_pull_and_report_failures(tiny_run: Path, hub: Path, tmp_path: Path) -> None:
    def rqrec(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        return done.exit_code, done.output

    assert rqrec("push", tiny_run, "me/tiny") == (0, "https://hub/me/tiny\n")
    assert rqrec("pull", "me/tiny", tmp_path / "pulled") == (0, f"retrieval: {tmp_path / 'pulled'}\n")
    status, output = rqrec("pull", "me/nothing", tmp_path / "other")
    assert (status, "Traceback" in output) == (1, False)
    assert "Hugging Face returned no repository 'me/nothing' (404: no repository me/nothing)" in output
    (hub / "me/empty").mkdir()
    assert "has no manifest.json" in rqrec("pull", "me/empty", tmp_path / "other")[1]


def test_push_without_a_login_explains_how_to_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, *args: object, **options: object) -> str:
            raise OSError("401 Unauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(
        ConnectionError, match=r"Could not push to me/x .*\(401 Unauthorized\).*hf auth login"
    ):
        upload("me/x", lambda folder: None, "", private=False)


def test_push_and_pull_without_a_network_say_so(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    http_error = next(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError")

    def fail(*args: object, **options: object) -> None:
        raise http_error("Name or service not known")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", fail)
    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConnectionError, match=r"Could not push .*Check the network"):
        push(tiny_run, "me/tiny")
    with pytest.raises(ConnectionError, match=r"returned no repository .*Check the name and the network"):
        pull("me/tiny", tmp_path / "pulled")


def test_a_private_push_to_a_public_repository_uploads_nothing(tiny_run: Path, hub: Path) -> None:
    with pytest.raises(ValueError, match="me/tiny exists and is public, so nothing was uploaded"):
        push(tiny_run, "me/tiny", private=True)
    assert list((hub / "me/tiny").iterdir()) == []
    assert push(tiny_run, "me/private-tiny", private=True) == "https://hub/me/private-tiny"
