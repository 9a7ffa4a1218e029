"""What rules mean for each item of a catalogue.

Shapes: N items of the catalogue, L levels.
"""

from functools import lru_cache

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from rqrec.data.catalog import Catalog
from rqrec.data.expressions import matching
from rqrec.data.fields import Fields, UnknownFieldError
from rqrec.retrieval.constraints import ItemRules, Limit
from rqrec.serving.rules import Rules
from rqrec.tokenizer.semantic_ids import SemanticIdTable

CACHED = 64  # rules that are kept compiled: at most a few bytes for each item of the catalogue
FIRST_CODE = "first_code"  # the field that is no column of the catalogue


def fields_of_items(catalog: Catalog, table: SemanticIdTable) -> Fields:
    """The fields that rules may name."""
    return Fields(catalog.items.with_columns(pl.Series(FIRST_CODE, table.codes_NL[:, 0])))


class RuleCompiler:
    """Turns rules into what they mean for each item of a catalogue, once for each. Thread-safe.

    `available_N` (bool): the items that may be recommended at all; None: every item.
    """

    def __init__(
        self, fields: Fields, device: torch.device | str, available_N: NDArray[np.bool_] | None = None
    ) -> None:
        self.fields, self._device, self._available_N = fields, device, available_N
        self._matching = lru_cache(CACHED)(lambda expression: matching(expression, fields))
        self._compile = lru_cache(CACHED)(self._uncached)

    def __call__(self, rules: Rules) -> ItemRules:
        """The meaning of rules. Raises ValueError if one cannot be read, or names a field that there is not."""
        try:
            return self._compile(rules)
        except UnknownFieldError as error:
            raise ValueError(f"max_per: {error}.") from error

    def _uncached(self, rules: Rules) -> ItemRules:
        allowed_N = boost_N = None
        masks = [self._matching(expression) for expression in rules.expressions]
        masks += [] if self._available_N is None else [self._available_N]
        if masks:
            allowed_N = torch.from_numpy(np.logical_and.reduce(masks)).to(self._device)
        if rules.boost:
            boosts_N = np.zeros(len(self.fields), dtype=np.float32)
            for expression, log_odds in rules.boost.items():
                boosts_N[self._matching(expression)] += log_odds
            boost_N = torch.from_numpy(boosts_N).to(self._device)
        limits = (Limit(self._groups(name), most) for name, most in rules.max_per.items())
        return ItemRules(allowed_N, boost_N, tuple(limits))

    def _groups(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.fields.groups(self.fields.find(name))).to(self._device)
