import pickle

import pytest
import torch

from rqrec.tokenizer.saved_tokenizer import (
    SavedTokenizer,
    check_settings,
    check_tensors,
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


def test_unexpected_and_missing_tensors_and_settings_are_named():
    saved = SavedTokenizer({"colour": 1}, TENSORS, "here")
    with pytest.raises(ValueError, match=r"lacks the tensors \['c'\] and has unexpected tensors \['b'\]"):
        check_tensors({"a": TENSORS["a"], "c": TENSORS["b"]}, saved)
    with pytest.raises(ValueError, match=r"a of shape \(3,\)"):
        check_tensors(TENSORS | {"a": torch.zeros(4)}, saved)
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
