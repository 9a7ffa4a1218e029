"""What was learned from the training interactions of one protocol is refused under another, along the whole chain."""

from pathlib import Path

import numpy as np
import pytest

from rqrec.core.artifact import Manifest, read_manifest
from rqrec.core.config import with_settings
from rqrec.data.protocols import protocol_of
from rqrec.stages.embed import EmbedConfig, embed
from rqrec.stages.evaluate import EvaluateConfig, evaluate, evaluate_baseline
from rqrec.stages.fit_rqkmeans import FitRqKMeansConfig, fit_rqkmeans
from rqrec.stages.tokenize import TokenizeConfig, tokenize
from rqrec.stages.train_decoder import TrainDecoderConfig, train_decoder
from rqrec.stages.train_rqvae import TrainRqVaeConfig, train_rqvae
from rqrec.stages.train_sasrec import TrainSasRecConfig
from tests.tiny import tiny_dataset, tiny_vectors

REFUSED = (
    "was learned with the protocol leave_one_out: its training data may contain test examples of temporal"
)


def make_chain(root: Path, name: str, protocol: str, collaborative: int = 4) -> None:
    """Embeddings, a tokenizer and semantic IDs in `root/name`, of the dataset in `root`."""
    config = EmbedConfig(collaborative=collaborative, protocol=protocol)
    folder = root / name
    embed(config, root / "dataset", folder / "embeddings", vectors=root / "vectors.npy")
    fitted = FitRqKMeansConfig({"n_layers": 2, "codebook_size": 4})
    tokenizer = fit_rqkmeans(fitted, folder / "embeddings", folder / "rqkmeans")
    tokenize(
        TokenizeConfig(), tokenizer, folder / "embeddings", folder / "semantic_ids", dataset=root / "dataset"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Chains that learned with leave_one_out, with temporal, and from content alone."""
    root = tmp_path_factory.mktemp("protocols")
    tiny_dataset(120).write(root / "dataset", {"source": "tiny"}, {})
    np.save(root / "vectors.npy", tiny_vectors())
    make_chain(root, "leave_one_out", "leave_one_out")
    make_chain(root, "temporal", "temporal")
    make_chain(root, "content", "leave_one_out", collaborative=0)
    return root


def train(
    root: Path, out: Path, protocol: str, *, ids: str, embeddings: str = "content", **more: object
) -> Path:
    settings = {
        "protocol": protocol,
        "iterations": 2,
        "batch_size": 16,
        "full_eval_every": 0,
        "attn_embed_dim": 16,
        "attn_layers": 1,
        "decoder_embed_dim": 16,
        "attn_heads": 2,
        "save_dir_root": str(out),
        **more,
    }
    return train_decoder(
        with_settings(TrainDecoderConfig(), settings),
        dataset=root / "dataset",
        semantic_ids=root / ids / "semantic_ids",
        embeddings=root / embeddings / "embeddings",
    )


def test_each_artefact_of_a_chain_records_the_protocol(root: Path) -> None:
    for name, protocol in {"leave_one_out": "leave_one_out", "temporal": "temporal", "content": None}.items():
        for artifact in ("embeddings", "rqkmeans", "semantic_ids"):
            assert protocol_of(read_manifest(root / name / artifact)) == protocol


def test_a_whole_chain_of_one_protocol_is_trained_and_evaluated(root: Path, tmp_path: Path) -> None:
    model = train(root, tmp_path, "temporal", ids="temporal", embeddings="temporal")
    assert protocol_of(read_manifest(model)) == "temporal"
    out = evaluate(EvaluateConfig(), model, root / "dataset", out=tmp_path / "e")
    assert read_manifest(out).settings["protocol"] == "temporal"


def test_a_model_refuses_what_was_learned_with_another_protocol(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"semantic_ids {REFUSED}.*rqrec embed --protocol temporal"):
        train(root, tmp_path, "temporal", ids="leave_one_out")
    with pytest.raises(ValueError, match=f"embeddings {REFUSED}"):
        train(root, tmp_path, "temporal", ids="content", embeddings="leave_one_out")
    start = train(root, tmp_path / "start", "leave_one_out", ids="content")
    with pytest.raises(ValueError, match=f"retrieval {REFUSED}"):
        train(root, tmp_path, "temporal", ids="content", pretrained_decoder_path=str(start))
    with pytest.raises(ValueError, match=f"retrieval {REFUSED}"):
        evaluate(EvaluateConfig(protocol="temporal"), start, root / "dataset", out=tmp_path / "e")
    assert not (tmp_path / "retrieval").exists()


@pytest.mark.parametrize("baseline", ["content_knn", "hybrid_knn"])
def test_a_baseline_refuses_embeddings_of_another_protocol(root: Path, tmp_path: Path, baseline: str) -> None:
    config, dataset = EvaluateConfig(protocol="temporal"), root / "dataset"
    with pytest.raises(ValueError, match=f"embeddings {REFUSED}"):
        evaluate_baseline(
            config, baseline, dataset, root / "leave_one_out" / "embeddings", out=tmp_path / "e"
        )
    evaluate_baseline(config, baseline, dataset, root / "temporal" / "embeddings", out=tmp_path / "e")


def test_a_tokenizer_refuses_embeddings_of_another_protocol(root: Path, tmp_path: Path) -> None:
    loo = root / "leave_one_out"
    with pytest.raises(
        ValueError, match=r"embeddings was learned with the protocol temporal.*of leave_one_out"
    ):
        tokenize(TokenizeConfig(), loo / "rqkmeans", root / "temporal" / "embeddings", tmp_path / "ids")
    sizes = {
        "iterations": 1,
        "vae_hidden_dims": [8],
        "vae_embed_dim": 4,
        "vae_codebook_size": 4,
        "vae_n_layers": 2,
    }

    def train_on(name: str, out: Path, **more: object) -> Path:
        settings = {**sizes, "save_dir_root": str(out), "full_eval_every": 0, **more}
        return train_rqvae(with_settings(TrainRqVaeConfig(), settings), embeddings=root / name / "embeddings")

    start = train_on("leave_one_out", tmp_path / "start")
    assert protocol_of(read_manifest(start)) == "leave_one_out"
    with pytest.raises(ValueError, match="was learned with the protocol leave_one_out"):
        train_on("temporal", tmp_path / "run", pretrained_rqvae_path=str(start))


def test_artefacts_and_settings_of_earlier_versions_are_read() -> None:
    assert protocol_of(Manifest("retrieval", {"split": "temporal"})) == "temporal"
    assert protocol_of(Manifest("embeddings", {"collaborative": {"split": "temporal"}})) == "temporal"
    assert protocol_of(Manifest("embeddings", {"collaborative": {"width": 4}})) == "leave_one_out"
    assert protocol_of(Manifest("embeddings", {"collaborative": None})) is None
    for config in (EmbedConfig(), TrainDecoderConfig(), TrainSasRecConfig()):
        assert with_settings(config, {"split": "temporal"}).protocol == "temporal"
