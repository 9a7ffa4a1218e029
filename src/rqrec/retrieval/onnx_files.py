"""Trained experts as ONNX files, for runtimes other than PyTorch.

An expert is an encoder, which reads histories, and heads, which take the outputs of the encoder under the names that
they have there. An expert of type dense has one head, whose output is the logit of every item. An expert of type
codes has one for each level of its semantic IDs: `level_l.onnx` takes K prefixes of l codes besides, and its output
is the logits of the next code. A softmax over the codes that continue the prefix of some item gives their
probabilities, and the product of these over all levels is the probability of the item.

Shapes: B histories and K prefixes (any numbers), T items of a history (always as many as the model reads), l codes of
a prefix, V codes of a level, L levels, N items, D width.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from rqrec.models.retrieval_model import CodeLookup
from rqrec.models.sasrec import SasRec
from rqrec.retrieval.artifact import CodesModel

ENCODER, HEAD, LEVEL = "encoder.onnx", "head.onnx", "level_{}.onnx"
PREFIX = "prefix"
Signature = dict[str, list[str]]  # the names of inputs and outputs
EXAMPLES = 2  # histories, and prefixes, with which a graph is recorded: one of them would become a constant


class _CodesEncoder(nn.Module):
    """From item indices [B, T], and times [B, T] and user numbers [B] if the model reads them, to its context."""

    codes_NL: Tensor

    def __init__(self, expert: CodesModel) -> None:
        super().__init__()
        self.model: Any = expert.model
        config = self.model.config
        self.side = ["times"] * bool(config.time_gaps) + ["users"] * bool(config.user_buckets)
        self.register_buffer("codes_NL", torch.from_numpy(expert.table.codes_NL.astype("int64")))

    def context(self, items_BT: Tensor, *side: Tensor) -> Any:
        given = dict(zip(self.side, side, strict=True))
        lookup = CodeLookup(self.codes_NL)
        return self.model.encode(lookup.of_items(items_BT, given.get("times"), given.get("users")))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(pytree.tree_leaves(self.context(*inputs)))


class _LevelHead(nn.Module):
    """From prefixes [B, K, l] and the parts of a context to logits [B, K, V]."""

    def __init__(self, model: Any, structure: pytree.TreeSpec) -> None:
        super().__init__()
        self.model, self.structure = model, structure

    def forward(self, *inputs: Tensor) -> Tensor:
        prefix_BKl, *context = inputs
        logits_BKV: Tensor = self.model.next_logits(
            pytree.tree_unflatten(context, self.structure), prefix_BKl
        )
        return logits_BKV


class _DenseEncoder(nn.Module):
    """From item indices [B, T] to states [B, D]."""

    vectors_ND: Tensor

    def __init__(self, model: SasRec) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("vectors_ND", model.item_vectors())

    def forward(self, *inputs: Tensor) -> Tensor:
        (items_BT,) = inputs
        return self.model.states(items_BT, self.vectors_ND)


class _DenseHead(nn.Module):
    """From states [B, D] to logits [B, N]."""

    vectors_ND: Tensor

    def __init__(self, model: SasRec) -> None:
        super().__init__()
        self.register_buffer("vectors_ND", model.item_vectors())

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] @ self.vectors_ND.T


def write_onnx(expert: CodesModel | SasRec, folder: Path) -> dict[str, Any]:
    """Write the files of an expert, a model in evaluation mode on the CPU, into a folder.

    Returns `max_items`, the number T of items of a history, and `files`: the `inputs` and `outputs` of each file by
    name, in their order. Raises ImportError if the packages onnx and onnxscript are not installed.
    """
    import onnx  # noqa: F401
    import onnxscript  # noqa: F401

    with _quiet(), torch.no_grad():
        if isinstance(expert, SasRec):
            return {"max_items": expert.config.max_items, "files": _write_dense(expert, folder)}
        return {"max_items": expert.model.max_items, "files": _write_codes(expert, folder)}


def _write_dense(model: SasRec, folder: Path) -> dict[str, Signature]:
    items_BT = torch.zeros(EXAMPLES, model.config.max_items, dtype=torch.int64)
    encoder, head = _DenseEncoder(model), _DenseHead(model)
    return {
        ENCODER: _save(folder / ENCODER, encoder, {"items": items_BT}, ["state"]),
        HEAD: _save(folder / HEAD, head, {"state": encoder(items_BT)}, ["logits"]),
    }


def _write_codes(expert: CodesModel, folder: Path) -> dict[str, Signature]:
    model, encoder = expert.model, _CodesEncoder(expert)
    items_BT = torch.zeros(EXAMPLES, model.max_items, dtype=torch.int64)
    examples = {"times": items_BT, "users": items_BT[:, 0]}
    inputs = {"items": items_BT, **{name: examples[name] for name in encoder.side}}
    parts, structure = pytree.tree_flatten(encoder.context(*inputs.values()))
    context = {f"context_{number}": part.contiguous() for number, part in enumerate(parts)}
    files = {ENCODER: _save(folder / ENCODER, encoder, inputs, [*context])}
    head = _LevelHead(model, structure)
    for level in range(len(model.level_sizes)):
        prefix_BKl = torch.zeros(EXAMPLES, EXAMPLES + 1, level, dtype=torch.int64)
        name = LEVEL.format(level)
        files[name] = _save(folder / name, head, {PREFIX: prefix_BKl, **context}, ["logits"])
    return files


def _save(path: Path, module: nn.Module, inputs: Mapping[str, Tensor], outputs: Sequence[str]) -> Signature:
    """Write one graph, for any number of histories and of prefixes."""
    shapes = tuple(dict.fromkeys((0, 1) if name == PREFIX else (0,), Dim.DYNAMIC) for name in inputs)
    program = torch.onnx.export(
        module.eval(),
        tuple(inputs.values()),
        input_names=[*inputs],
        output_names=[*outputs],
        dynamic_shapes=(shapes,),
        dynamo=True,
        verbose=False,
    )
    if program is None:
        raise RuntimeError(f"{path.name} was not exported.")
    program.save(path)
    return {"inputs": [*inputs], "outputs": [*outputs]}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about itself, and with an attention that it can write."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
