import json

import numpy as np
import pytest
import torch

from rqrec import RqVae
from rqrec.tokenizer.reference_checkpoints import convert
from rqrec.tokenizer.saved_tokenizer import SavedTokenizer, read_saved_tokenizer


@pytest.mark.parametrize("model", ["plain", "simvq_normalized"])
@pytest.mark.parametrize("file", ["hub", "checkpoint_1234.pt"])
def test_reference_checkpoints_give_the_reference_results(shared_data, model, file):
    folder = shared_data / "reference_rqvae" / model
    loaded = RqVae.from_pretrained(folder / file)
    x = torch.from_numpy(np.load(folder / "inputs.npy"))
    ids = loaded.semantic_ids(x)
    assert ids.dtype == torch.int64
    assert np.array_equal(ids.numpy(), np.load(folder / "expected_ids.npy"))
    assert np.allclose(
        loaded.reconstruct(x).numpy(), np.load(folder / "expected_reconstruction.npy"), rtol=0, atol=1e-5
    )
    assert loaded.initialized
    assert not loaded.training


def test_a_reference_model_saved_again_is_in_our_format_and_gives_the_same_ids(shared_data, tmp_path):
    folder = shared_data / "reference_rqvae" / "simvq_normalized"
    RqVae.from_pretrained(folder / "hub").save_pretrained(tmp_path)
    assert "codebook_sim_vq" not in json.loads((tmp_path / "config.json").read_text())
    again = RqVae.from_pretrained(tmp_path).semantic_ids(np.load(folder / "inputs.npy"))
    assert np.array_equal(again.numpy(), np.load(folder / "expected_ids.npy"))


def test_an_unsupported_checkpoint_is_refused_with_the_reason(shared_data):
    hub = read_saved_tokenizer(shared_data / "reference_rqvae" / "plain" / "hub")
    for change, message in [
        ({"n_cat_features": 18}, "n_cat_features=18"),
        ({"novelty": 1}, r"unknown settings \['novelty'\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            convert(SavedTokenizer(hub.settings | change, hub.tensors, "x"))
    with pytest.raises(
        ValueError, match=r"tensor encoder\.mlp\.0\.bias, which this package does not support"
    ):
        convert(SavedTokenizer(hub.settings, hub.tensors | {"encoder.mlp.0.bias": torch.zeros(3)}, "x"))


def test_a_reference_checkpoint_that_lacks_a_codebook_is_refused(shared_data, tmp_path):
    path = shared_data / "reference_rqvae" / "plain" / "checkpoint_1234.pt"
    values = torch.load(path, weights_only=True)
    del values["model"]["layers.2.embedding.weight"]
    torch.save(values, tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"lacks the tensors quantizer\.levels\.2\.weight"):
        RqVae.from_pretrained(tmp_path / "half.pt")
