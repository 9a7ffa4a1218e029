"""Profiles of training steps.

Shapes: N items, L levels.
"""

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from rqrec.data.sequences import Sequences
from rqrec.models.architectures import AnyModel, build_model
from rqrec.models.code_output import CodeOutput
from rqrec.models.feed_forward import FeedForward
from rqrec.models.layers import Attention, CodeEmbedding, CrossAttention, Dropout
from rqrec.models.retrieval_model import Batch, CodeLookup, ModelConfig
from rqrec.tokenizer.semantic_ids import deduplicate
from rqrec.tokenizer.trie import Trie
from rqrec.training.optim import adamw
from rqrec.training.speed import autocast
from rqrec.training.windows import Windows

USERS, ITEMS, TRAINING_ITEMS = (
    22_363,
    12_101,
    153_776,
)  # of Amazon Beauty; each user's last two items are held out
LEVEL_SIZES = (256, 256, 256, 16)
WARM_UP = 2  # steps that are not measured

# The parts of the forward pass: name, module class, methods.
PARTS = (
    ("embedding", CodeEmbedding, ("forward",)),
    ("attention", Attention, ("causal", "bidirectional")),
    ("attention", CrossAttention, ("memory", "forward")),
    ("feed-forward", FeedForward, ("forward",)),
    ("norms", nn.LayerNorm, ("forward",)),
    ("dropout", Dropout, ("forward",)),
    ("heads", CodeOutput, ("_logits",)),
)
SOFTMAX = ("aten::log_softmax", "aten::gather")
STAGES = ("data path", "forward", "backward", "clipping", "optimizer")


def sizes_of(width: int, code_width: int | None = None) -> dict[str, Any]:
    """Model sizes for a width, with heads of 32; `code_width` is that of code embeddings. 0: the default sizes."""
    if not width:
        return {}
    return {
        "decoder_embed_dim": code_width or width,
        "attn_embed_dim": width,
        "attn_heads": max(1, width // 32),
    }


class Workload:
    """A model and batches of random sequences of the size of Amazon Beauty, so that nothing is downloaded."""

    def __init__(self, config: ModelConfig, batch_size: int, precision: str, device: torch.device) -> None:
        rng = np.random.default_rng(0)
        torch.manual_seed(0)
        self.model: AnyModel = build_model(config).to(device)
        self.optimizer = adamw(self.model, 1e-3, 0.01)
        self.precision, self.device = precision, device
        longest = config.max_items + 1
        ends = self.model.learns_last_item_only
        self._windows = Windows(random_sequences(rng), longest, batch_size, seed=0, random_ends=ends)
        self._windows.batch(0)  # builds the batches of the first epoch, a cost shared by hundreds of steps
        codes_NL = random_codes(rng, config.level_sizes)
        self._lookup, self._longest = CodeLookup.from_codes(codes_NL), longest
        self._trie = Trie.build(codes_NL, device)

    def batch(self, number: int) -> Batch:
        """Windows of sequences as codes, on the device."""
        return self._lookup.batch(self._windows.histories(number), self._longest).to(self.device)

    def step(self, number: int) -> Batch:
        """One training step as in the training loop, labelled for a profiler; returns its batch."""
        with record_function("data path"):
            batch = self.batch(number)
        with record_function("forward"), autocast(self.precision, self.device):
            loss = self.model(batch, self._trie).total
        with record_function("backward"):
            loss.backward()
        with record_function("clipping"):
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        with record_function("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return batch


class StepProfile(NamedTuple):
    """Milliseconds per training step."""

    milliseconds: float
    """Of a step, measured without the profiler."""
    parts: dict[str, float]
    """By part of the step, largest first, measured with the profiler."""
    operators: dict[str, float]
    """Of the 8 most expensive operators, largest first, measured with the profiler."""


def random_codes(rng: np.random.Generator, level_sizes: tuple[int, ...]) -> NDArray[np.int64]:
    """Codes int64 [N, L] of as many items as Amazon Beauty has, lower ones more frequent, and deduplication codes."""
    content = np.array(level_sizes[:-1])
    codes_NL = (content * rng.random((ITEMS, len(content))) ** 1.5).astype(np.int64)
    return np.column_stack([codes_NL, deduplicate(codes_NL)])


def random_sequences(rng: np.random.Generator) -> Sequences:
    """Training sequences with as many users and items as Amazon Beauty and about as many interactions."""
    lengths = 1 + rng.geometric(1 / (TRAINING_ITEMS / USERS - 1), USERS)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    items = rng.integers(0, ITEMS, offsets[-1]).astype(np.int32)
    return Sequences(items, offsets, np.zeros(len(items), np.int64), tuple(map(str, range(USERS))))


def profile_steps(workload: Workload, steps: int) -> StepProfile:
    """Time `steps` training steps without the profiler, then as many with it.

    On a GPU, parts are measured in CPU time (launching kernels) and operators in GPU time.
    """
    for number in range(WARM_UP):
        workload.step(number)
    start = time.perf_counter()
    for number in range(WARM_UP, WARM_UP + steps):
        workload.step(number)
    milliseconds = (time.perf_counter() - start) * 1000 / steps
    on_gpu = workload.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with _parts_labelled(workload.model), profile(activities=activities) as profiled:
        for number in range(WARM_UP, WARM_UP + steps):
            workload.step(number)
    events = profiled.key_averages()
    total = {event.key: event.cpu_time_total / 1000 / steps for event in events}
    operators = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1000 / steps
        for event in events
        if event.key.startswith("aten::")
    }
    return StepProfile(milliseconds, _by_part(total), _largest(operators, 8))


def _by_part(total: dict[str, float]) -> dict[str, float]:
    parts = {name: total[name] for name, _, _ in PARTS if name in total}
    parts["softmax and loss"] = sum(total.get(name, 0.0) for name in SOFTMAX)
    parts["rest of the forward pass"] = max(0.0, total["forward"] - sum(parts.values()))
    stages = {name: total[name] for name in STAGES if name != "forward"}
    return _largest(parts | stages, len(parts) + len(stages))


def _largest(values: dict[str, float], count: int) -> dict[str, float]:
    return dict(sorted(values.items(), key=lambda item: -item[1])[:count])


@contextmanager
def _parts_labelled(model: nn.Module) -> Iterator[None]:
    """A context in which calls of the model's parts are labelled with the part's name in a profile."""
    calls: list[tuple[nn.Module, str, str]] = [
        (module, method, part)
        for module in model.modules()
        for part, cls, methods in PARTS
        for method in methods
        if isinstance(module, cls)
    ]
    for module, method, part in calls:
        setattr(module, method, _labelled(part, getattr(module, method)))
    try:
        yield
    finally:
        for module, method, _ in calls:
            delattr(module, method)  # restores the method of the class


def _labelled(part: str, call: Any) -> Any:
    @functools.wraps(call)
    def labelled(*arguments: Any, **options: Any) -> Any:
        with record_function(part):
            return call(*arguments, **options)

    return labelled
