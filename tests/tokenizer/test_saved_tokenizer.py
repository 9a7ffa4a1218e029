import pickle
from dataclasses import asdict

import pytest
import torch

from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.saved_tokenizer import (
    SavedTokenizer,
    check_settings,
    read_saved_tokenizer,
    write_saved_tokenizer,
)

TENSORS = {"a": torch.arange(3.0), "b": torch.tensor(True)}


def test_a_folder_round_trips(tmp_path):
    write_saved_tokenizer(tmp_path, {"input_dim": 3}, TENSORS)
    read = read_saved_tokenizer(tmp_path)
    assert read.settings == {"input_dim": 3}
    assert read.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(read.tensors[name], TENSORS[name]) for name in TENSORS)
    assert read_saved_tokenizer(str(tmp_path)).source == str(tmp_path)


def test_a_pt_file_is_read_without_running_its_code(tmp_path):
    path = tmp_path / "model.pt"
    torch.save({"model": TENSORS, "model_config": {"input_dim": 3}, "iter": 5}, path)
    assert read_saved_tokenizer(path).settings == {"input_dim": 3}

    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "run"), "w"))

    torch.save({"model": {}, "model_config": Payload()}, path)
    with pytest.raises(ValueError, match="can run code"):
        read_saved_tokenizer(path)
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="can run code"):
        read_saved_tokenizer(path)
    assert not (tmp_path / "run").exists()


def test_a_source_that_is_not_a_saved_tokenizer_is_refused_with_the_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        read_saved_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"There is no saved tokenizer '.*nowhere\.pt'"):
        read_saved_tokenizer(str(tmp_path / "nowhere.pt"))
    path = tmp_path / "weights.pt"
    torch.save(TENSORS, path)
    with pytest.raises(ValueError, match="must contain 'model' and 'model_config'"):
        read_saved_tokenizer(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"is not a \.pt file"):
        read_saved_tokenizer(path)
    write_saved_tokenizer(tmp_path, {}, TENSORS)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ValueError, match="JSON object of settings"):
        read_saved_tokenizer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match="is damaged"):
        read_saved_tokenizer(tmp_path)


def test_unknown_and_missing_settings_are_named():
    saved = SavedTokenizer({"colour": 1}, TENSORS, "here")
    with pytest.raises(ValueError, match=r"unknown settings \['colour'\]"):
        check_settings({"size"}, set(), saved)
    with pytest.raises(ValueError, match=r"lacks the required settings \['size'\]"):
        check_settings({"size", "colour"}, {"size"}, saved)


def test_a_repository_id_is_downloaded_from_the_hub(tmp_path, monkeypatch):
    write_saved_tokenizer(tmp_path, {"input_dim": 3}, TENSORS)
    asked = []

    def fetch(repo_id, **options):
        asked.append((repo_id, options["allow_patterns"]))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert read_saved_tokenizer("owner/some-rqvae").source == "owner/some-rqvae"
    assert asked == [("owner/some-rqvae", ["config.json", "model.safetensors"])]


def test_without_a_network_a_repository_id_raises_a_one_line_error(monkeypatch):
    def fail(*args, **options):
        raise OSError("no route to host\nand a long trace")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ConnectionError, match=r"no repository 'owner/name' \(no route to host\)"):
        read_saved_tokenizer("owner/name")


def test_prefixes_of_wrapped_models_and_keys_of_the_hub_are_no_part_of_a_model(tmp_path):
    model = RqVae(RqVaeConfig(6, 4, (8,), 8, 2))
    for number, prefix in enumerate(["module.", "_orig_mod.", "module._orig_mod."]):
        wrapped = {prefix + name: tensor for name, tensor in model.state_dict().items()}
        folder = tmp_path / str(number)
        hub = {"architectures": ["RqVae"], "transformers_version": "5.0", "_commit_hash": "abc"}
        write_saved_tokenizer(folder, asdict(model.config) | hub, wrapped)
        assert RqVae.from_pretrained(folder).config == model.config
        path = tmp_path / f"{number}.pt"
        torch.save(
            {"model": wrapped, "model_config": {**asdict(model.config), "mode": "ste", "distance": "l2"}},
            path,
        )
        assert torch.equal(RqVae.from_pretrained(path).encoder[0].weight, model.encoder[0].weight)
    write_saved_tokenizer(tmp_path / "twice", {}, {"a": TENSORS["a"], "module.a": TENSORS["a"] + 1})
    with pytest.raises(ValueError, match="with and without the prefix"):
        read_saved_tokenizer(tmp_path / "twice")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_not_finite_are_refused_by_name(value, tmp_path):
    tensors = {"a": torch.zeros(3), "b": torch.tensor([1.0, value])}
    write_saved_tokenizer(tmp_path, {}, tensors)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: the tensor b has 1 NaN or infinite value of 2"
    ):
        read_saved_tokenizer(tmp_path)
    torch.save({"model": tensors, "model_config": {}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: the tensor b has 1 NaN"):
        read_saved_tokenizer(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "content",
    [
        {"model": [1], "model_config": {}},
        {"model": {"a": 1}, "model_config": {}},
        {"model": {}, "model_config": [1]},
        {"model": {}, "model_config": {1: 2}},
    ],
)
def test_a_pt_file_of_another_form_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"x\.pt: 'model(_config)?' must be"):
        read_saved_tokenizer(tmp_path / "x.pt")


def test_a_wrong_setting_is_refused_with_its_source_and_before_anything_is_allocated(tmp_path):
    model = RqVae(RqVaeConfig(6, 4, (8,), 8, 2))
    right = asdict(model.config)
    for wrong, expected in [
        (
            {"input_dim": "6"},
            "input_dim is '6', but must be a whole number, at least 1: write 6 without quotes",
        ),
        (
            {"embed_dim": 2**19, "hidden_dims": [2**19]},
            r"has \S+ of shape .*; by its settings the shape must be",
        ),
        ({"n_layers": 10**9}, "n_layers is 1000000000, but must be at least 1 and at most 1024"),
        ({"n_layers": 3}, "lacks the tensors quantizer"),
    ]:
        write_saved_tokenizer(tmp_path, right | wrong, model.state_dict())
        with pytest.raises(ValueError, match=expected) as caught:
            RqVae.from_pretrained(tmp_path)
        assert str(tmp_path) in str(caught.value)
