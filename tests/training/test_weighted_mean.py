"""The contract of every task: the loss of a batch is the weighted mean of the losses of its parts.

Accumulated batches and several processes train the same model as one batch because of it.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rqrec.data.splits import leave_one_out
from rqrec.models.architectures import ARCHITECTURES, build_model
from rqrec.models.sasrec import SasRec, SasRecConfig
from rqrec.tokenizer.quantize import QuantizeMode
from rqrec.tokenizer.rqvae import RqVae, RqVaeConfig
from rqrec.tokenizer.semantic_ids import SemanticIdTable
from rqrec.training.decoder_task import DecoderTask
from rqrec.training.processes import Processes
from rqrec.training.rqvae_task import RqVaeTask
from rqrec.training.run_progress import RunProgress
from rqrec.training.sasrec_task import SasRecTask
from rqrec.training.task import Task
from tests.tiny import DIM, N_ITEMS, SIZE, tiny_dataset, tiny_vectors

START = RunProgress(0, 10)
SIZES: dict[str, Any] = {"attn_embed_dim": 16, "decoder_embed_dim": 16, "attn_heads": 2, "attn_layers": 1}


def decoder_task(name: str, **options: Any) -> Task:
    torch.manual_seed(0)
    dataset = tiny_dataset(60)
    codes_NL = torch.arange(N_ITEMS)[:, None] // torch.tensor([SIZE, 1]) % SIZE
    table = SemanticIdTable.from_codes(dataset.catalog.id_map, codes_NL.numpy(), (SIZE, SIZE), "made up")
    config = ARCHITECTURES[name].config(table.level_sizes, 6, attn_dropout=0.0, **SIZES, **options)
    return DecoderTask(build_model(config), table, leave_one_out(dataset.sequences), 40, 0)


def sasrec_task() -> Task:
    torch.manual_seed(0)
    model = SasRec(SasRecConfig(N_ITEMS, 6, 16, 2, 1, 0.0))
    return SasRecTask(model, leave_one_out(tiny_dataset(60).sequences), 41, 0)


def rqvae_task(**options: Any) -> Task:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dim": 8, "hidden_dims": (16,), "codebook_size": 8, "n_layers": 2}
    task = RqVaeTask(RqVae(RqVaeConfig(DIM, **sizes, **options)), tiny_vectors()[:47], 47, 0)
    task.start()
    return task


MORE = {"label_smoothing": 0.1, "user_buckets": 5, "time_gaps": 4, "item_embed_dim": 4, "n_items": N_ITEMS}
TASKS: dict[str, Callable[[], Task]] = {
    "sasrec": sasrec_task,
    "rqvae with 0/1 features": lambda: rqvae_task(n_cat_features=2),
    "rqvae with moving averages": lambda: rqvae_task(mode="ste", ema_decay=0.5),
}
for architecture in ARCHITECTURES:
    TASKS[architecture] = lambda name=architecture: decoder_task(name)  # type: ignore[misc]
    TASKS[f"{architecture} with options"] = lambda name=architecture: decoder_task(name, **MORE)  # type: ignore[misc]
for quantize_mode in QuantizeMode:
    TASKS[f"rqvae {quantize_mode.name}"] = lambda mode=quantize_mode: rqvae_task(mode=mode)  # type: ignore[misc]
every_task = pytest.mark.parametrize("make", TASKS.values(), ids=TASKS)


@pytest.fixture(autouse=True)
def _no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise differs between a batch and its parts, as does dropout."""
    monkeypatch.setattr(functional, "gumbel_softmax", lambda logits, dim: logits.softmax(dim))


def parts_of(batch: Any, count: int) -> list[Any]:
    return [Processes(rank, count, torch.device("cpu")).share(batch) for rank in range(count)]


def mean_loss(task: Task, parts: list[Any]) -> tuple[dict[str, float], list[Tensor]]:
    """The weighted means of the loss, of its components and of the gradient, as the training loop computes them."""
    model: nn.Module = task.model
    model.train().zero_grad()
    total = sum(task.weight(part) for part in parts)
    means: dict[str, float] = {}
    for part in parts:
        share = task.weight(part) / total
        loss, components = task.loss(model, part, START)
        (loss * share).backward()
        for name, value in {"loss": loss, **components}.items():
            means[name] = means.get(name, 0.0) + share * float(value.detach())
    task.on_step_end(RunProgress(1, 10))
    changed = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return means, [tensor.clone() for tensor in (*changed, *model.buffers())]


@every_task
@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_of_a_batch_is_the_weighted_loss_of_its_parts(make: Callable[[], Task], count: int) -> None:
    whole, split = make(), make()
    batch = whole.batch(0)
    weights = {whole.weight(part) for part in parts_of(batch, count)}
    assert len(weights) > 1  # otherwise an unweighted mean would do
    losses, gradients = mean_loss(whole, [batch])
    part_losses, part_gradients = mean_loss(split, parts_of(batch, count))
    assert part_losses == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert gradients
    for gradient, other in zip(gradients, part_gradients, strict=True):
        torch.testing.assert_close(other, gradient, rtol=1e-4, atol=1e-5)


@every_task
def test_every_row_has_weight(make: Callable[[], Task]) -> None:
    """Weight 0 means that a process has no row."""
    task = make()
    batch = task.batch(0)
    rows = len(batch[0]) if isinstance(batch, tuple) else len(batch)
    assert min(task.weight(part) for part in parts_of(batch, rows)) > 0
