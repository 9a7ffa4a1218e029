"""Models that meet items which they were not trained on, such as items added to a catalogue that is served.

What is read of an item by its codes or its content is known of a new item too. A learned vector of its own is zero:
the item is what its codes and its content say. All other weights are shared with the model as it was.

Shapes: N items, M new items, C width of a content vector.
"""

from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rqrec.models.architectures import AnyModel
from rqrec.models.item_input import ItemContent
from rqrec.models.sasrec import SasRec

ModuleT = TypeVar("ModuleT", bound=nn.Module)
ModelT = TypeVar("ModelT", bound=AnyModel | SasRec)


def reads_items(model: AnyModel | SasRec) -> bool:
    """Whether a model reads an item's content or a vector of its own."""
    return isinstance(model, SasRec) or bool(model.config.n_items)


def with_new_items(model: ModelT, content_MC: Tensor) -> ModelT:
    """The model with M more items; the given model is unchanged.

    `content_MC` are their content vectors, centred and scaled as those of the other items are.
    """
    if not reads_items(model):
        return model
    other: Any = _copied(model)
    count = len(content_MC)
    if isinstance(model, SasRec):
        other.config = replace(other.config, n_items=other.config.n_items + count)
        other.items = _with_zeros(other.items, count)
        other.content = _with_content(other.content, content_MC)
        return other.eval()  # which forgets the vectors of all items
    other.config = replace(other.config, n_items=other.config.n_items + count)
    read = _copied(model.item_input)
    read.content = _with_content(read.content, content_MC)
    read.vector = None if read.vector is None else _with_zeros(read.vector, count)
    other.item_input = read
    return other


def _copied(module: ModuleT) -> ModuleT:
    """The module with the same parts, which can be exchanged without changing it."""
    other = copy(module)
    for parts in ("_parameters", "_buffers", "_modules"):
        setattr(other, parts, copy(getattr(module, parts)))
    return other


def _with_zeros(table: nn.Embedding, count: int) -> nn.Embedding:
    weight = table.weight.detach()
    return nn.Embedding.from_pretrained(torch.cat([weight, weight.new_zeros(count, weight.shape[1])]))


def _with_content(content: ItemContent | None, content_MC: Tensor) -> ItemContent | None:
    if content is None:
        return None
    other = _copied(content)
    other.vectors_NC = torch.cat([content.vectors_NC, content_MC.to(content.vectors_NC)])
    return other
