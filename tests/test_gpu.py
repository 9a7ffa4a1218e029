"""A GPU computes what the CPU computes; skipped where there is none (`benchmarks/gpu.sh` runs these tests too)."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rqrec.data.sequences import Histories
from rqrec.models.architectures import ARCHITECTURES
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.serving.recommender import Recommender
from rqrec.serving.rules import Rules
from rqrec.tokenizer.rqkmeans import RqKMeans, RqKMeansConfig
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.trie import Trie
from rqrec.training.speed import autocast
from tests.models.test_models import TRIE, all_codes, architectures, random_batch
from tests.retrieval.test_live_catalog import trained, with_new

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="There is no GPU.")
GPU = torch.device("cuda")


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of each parameter that the loss depends on, on the CPU."""
    loss.backward()
    return {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


@architectures
def test_the_loss_and_its_gradients_are_those_of_the_cpu(make: Callable) -> None:
    here, batch = make(), random_batch()
    there = copy.deepcopy(here).to(GPU)
    loss = here(batch, TRIE).total
    on_gpu = there(batch.to(GPU), Trie.build(all_codes().numpy(), GPU)).total
    torch.testing.assert_close(on_gpu.cpu(), loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(there, on_gpu), gradients(here, loss), atol=1e-5, rtol=1e-3)


@architectures
def test_bf16_is_near_fp32(make: Callable) -> None:
    model, batch, trie = make().to(GPU), random_batch().to(GPU), Trie.build(all_codes().numpy(), GPU)
    with autocast("bf16", GPU):
        loss = model(batch, trie).total
    torch.testing.assert_close(loss.float(), model(batch, trie).total, atol=0.02, rtol=0.02)


def test_a_dense_model_reads_histories_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    here = SasRec(SasRecConfig(40, max_items=5, width=8, heads=2, layers=1)).eval()
    there = copy.deepcopy(here).to(GPU)
    histories = Histories(np.random.default_rng(0).integers(0, 40, (7, 5)))
    torch.testing.assert_close(there.encode(histories).cpu(), here.encode(histories), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "change", [lambda artifact: artifact, with_new], ids=["as trained", "with new items"]
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_recommender_answers_as_on_the_cpu(name: str, change: Callable[[Any], Any]) -> None:
    def answers(device: str) -> list[list[Any]]:
        recommender = Recommender(change(trained(name, True)), beam_width=10, device=device)
        ids = recommender.catalog.items["item_id"].to_list()
        histories = [[], ids[:1], ids[3:9], ids[-4:]]
        lists = [
            recommender.recommend(histories, 8),
            recommender.recommend(histories, 5, exclude_seen=False, block=ids[:6], experts=["trained"]),
            recommender.recommend(histories, 5, rules=Rules(where=f"item_id != '{ids[2]}'")),
        ]
        return [[(item.item_id, item.score) for item in one] for many in lists for one in many]

    for here, there in zip(answers("cpu"), answers("cuda"), strict=True):
        assert [item for item, _ in there] == [item for item, _ in here]
        np.testing.assert_allclose([score for _, score in there], [score for _, score in here], atol=1e-4)


def test_tokenizers_give_the_codes_of_the_cpu() -> None:
    x_ND = torch.randn(300, 10, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    kmeans = RqKMeans(RqKMeansConfig(input_dim=10, codebook_size=8, balance=1.2))
    kmeans.fit(x_ND, torch.Generator().manual_seed(0))
    rqvae = RqVae(
        RqVaeConfig(input_dim=10, embed_dim=4, hidden_dims=(8,), codebook_size=8, n_layers=2)
    ).eval()
    for model in (kmeans, rqvae):
        codes_NL = model.semantic_ids(x_ND).cpu()
        assert (model.to(GPU).semantic_ids(x_ND).cpu() == codes_NL).all()


def test_k_means_on_the_gpu_is_as_good() -> None:
    x_ND = torch.randn(600, 10, generator=torch.Generator().manual_seed(0))

    def error(device: torch.device) -> float:
        model = RqKMeans(RqKMeansConfig(input_dim=10, codebook_size=8, balance=1.2)).to(device)
        model.fit(x_ND, torch.Generator().manual_seed(0))
        return float((model.reconstruct(x_ND).cpu() - x_ND).square().mean())

    assert error(GPU) == pytest.approx(error(torch.device("cpu")), rel=0.05)
