"""The compute of a training step, and the number of steps that a budget pays for."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from rqrec.experiments.compare.sizes import step_flops, steps_within
from rqrec.models.architectures import ARCHITECTURES, build_model
from rqrec.models.retrieval_model import Batch
from rqrec.tokenizer.trie import Trie

# Some nodes have one child, others several.
CODES = np.array([[0, 0, 0], [0, 0, 3], [0, 2, 1], [1, 1, 4], [1, 3, 0], [2, 2, 2]])
TRIE = Trie.build(CODES)


def batch(rows: int, items: int, rng: np.random.Generator) -> Batch:
    lengths = np.sort(rng.integers(1, items + 1, rows))
    lengths[-1] = items
    chosen = rng.integers(0, len(CODES), (rows, items))
    return Batch(
        torch.from_numpy(CODES[chosen]), torch.from_numpy(lengths), items_BT=torch.from_numpy(chosen)
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_operations_of_any_batch_follow_from_a_few_counted_ones(name: str) -> None:
    rng = np.random.default_rng(0)
    model = build_model(ARCHITECTURES[name].config((3, 4, 5), 12, 16, 16, 2, 2))
    flops = step_flops(model, TRIE, [batch(*rng.integers(2, 12, 2), rng) for _ in range(24)])
    for rows, items in ((30, 3), (7, 12)):
        other = batch(rows, items, rng)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(other, TRIE).total.backward()
        assert flops(other) == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_training_stops_at_the_step_nearest_to_the_budget() -> None:
    assert steps_within(6e-12, [1.0, 3.0, 3.0, 1.0]) == (3, pytest.approx(7e-12))
    assert steps_within(5e-12, [1.0, 3.0, 3.0, 1.0]) == (2, pytest.approx(4e-12))
    with pytest.raises(ValueError, match="does not pay for one step"):
        steps_within(1e-12, [3.0])
