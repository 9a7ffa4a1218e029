"""Expressions about the fields of items: `genre = comedy and (price < 20 or brand in (acme, 'best; co'))`.

A comparison is true of an item if one of its values of the field is so; `!=` and `not in` are true if none is equal.
Text is compared without regard to upper and lower case. A date or time stands for its period: `released = 2024` is
true of every day of 2024, and `released > 2024` of none. An item without a value matches `!=` and `not in` alone.

Shapes: N items.
"""

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rqrec.core.errors import SURROGATE
from rqrec.data.columns import listed
from rqrec.data.fields import Fields, UnknownFieldError, as_numbers
from rqrec.data.periods import KINDS, Period, microseconds, period

MAX_LENGTH = 10_000  # characters
MAX_DEPTH = 50  # parentheses and nots within each other
HELP = "Write it as in: genre = comedy and (price < 20 or not year in (1994, 1995))."
ORDERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
OPERATORS = ("=", "==", "!=", *ORDERS)
KEYWORDS = ("and", "or", "not", "in")
_TOKEN = re.compile(
    r"\s*(?:(?P<sign><=|>=|!=|==|[=<>(),])|'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\"|`(?P<name>[^`]*)`"
    r"|(?P<word>[^\s<>=!(),'\"`][^\s<>=!(),\"`]*))"
)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class ExpressionError(ValueError):
    """An expression that cannot be read, or does not fit the fields."""


class Value(NamedTuple):
    """What a field is compared with."""

    text: str
    number: float | None
    """None if it is in quotes, or no number."""


class Expression(Protocol):
    """Something that is true or false of each item."""

    def matches(self, fields: Fields) -> NDArray[np.bool_]:
        """Whether it is true of each item, bool [N]. Raises ValueError if it does not fit the fields."""


@dataclass(frozen=True)
class Equal:
    """A value of the field equals one of these."""

    field: str
    values: tuple[Value, ...]

    def matches(self, fields: Fields) -> NDArray[np.bool_]:
        """See `Expression`."""
        name = fields.find(self.field)
        items, values = fields.values(name)
        if values.dtype == pl.String:
            hits = values.is_in([value.text.strip().lower() for value in self.values])
            if numbers := [value.number for value in self.values if value.number is not None]:
                hits |= as_numbers(values).is_in(numbers).fill_null(value=False)
        elif values.dtype == pl.Boolean:
            hits = values.is_in([_truth(name, value) for value in self.values])
        elif values.dtype.is_temporal():
            times, periods = microseconds(values), [_period(name, value, values) for value in self.values]
            hits = pl.Series(
                np.logical_or.reduce([(times >= one.start) & (times < one.end) for one in periods])
            )
        else:
            hits = values.is_in([_number(name, value) for value in self.values])
        return _of_items(items, hits, len(fields))


@dataclass(frozen=True)
class Ordered:
    """A value of the field is below or above this one."""

    field: str
    sign: str
    value: Value

    def matches(self, fields: Fields) -> NDArray[np.bool_]:
        """See `Expression`."""
        name = fields.find(self.field)
        items, values = fields.values(name)
        if values.dtype.is_temporal():
            start, end = _period(name, self.value, values)
            edge = start if self.sign in ("<", ">=") else end
            after = microseconds(values) >= edge
            return _of_items(items, after if self.sign in (">", ">=") else ~after, len(fields))
        numbers = as_numbers(values)
        # Every text is in some order with every number as text, which nobody means.
        of_texts = values.dtype == pl.String and numbers.count() <= len(numbers) / 2
        if of_texts and self.value.number is None:
            return _of_items(items, ORDERS[self.sign](values, self.value.text.lower()), len(fields))
        if len(numbers) and numbers.null_count() == len(numbers):
            raise ExpressionError(f"no {name} is a number, such as {self.value.text}")
        return _of_items(items, ORDERS[self.sign](numbers, _number(name, self.value)), len(fields))


@dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Expression

    def matches(self, fields: Fields) -> NDArray[np.bool_]:
        """See `Expression`."""
        return ~self.inner.matches(fields)


@dataclass(frozen=True)
class Joined:
    """All of some expressions, or any."""

    parts: tuple[Expression, ...]
    any: bool

    def matches(self, fields: Fields) -> NDArray[np.bool_]:
        """See `Expression`."""
        masks = [part.matches(fields) for part in self.parts]
        return np.logical_or.reduce(masks) if self.any else np.logical_and.reduce(masks)


def matching(expression: str, fields: Fields) -> NDArray[np.bool_]:
    """Of which items an expression is true, bool [N].

    Raises ExpressionError, with the fields that there are and how expressions are written.
    """
    try:
        return _Parser(expression).expression().matches(fields)
    except UnknownFieldError as error:
        raise ExpressionError(f"{_shown(expression)}: {error}.") from error
    except ExpressionError as error:
        raise ExpressionError(
            f"{_shown(expression)}: {error}. {HELP} The fields are {listed(fields.names)}."
        ) from error


class _Token(NamedTuple):
    kind: str
    text: str


class _Parser:
    """Recursive descent."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_LENGTH:
            raise ExpressionError(f"it has {len(text)} characters, but {MAX_LENGTH} are allowed")
        if half := SURROGATE.search(text):
            raise ExpressionError(f"it has {half[0]!r}, which is no character but half of one")
        self._tokens, self._at, self._depth, end = list[_Token](), 0, 0, 0
        while end < len(text.rstrip()):
            found = _TOKEN.match(text, end)
            if found is None:
                raise ExpressionError(f"{_shown(text[end:].strip())} is neither a word nor a sign")
            kind, end = str(found.lastgroup), found.end()
            token = found[kind]
            if kind == "word" and token.lower() in KEYWORDS:
                kind, token = "keyword", token.lower()
            self._tokens.append(_Token(kind, token))
        self._tokens.append(_Token("end", ""))

    def expression(self) -> Expression:
        """The whole text."""
        result = self._any()
        if self._next.kind != "end":
            raise ExpressionError(f"{self._found} where and, or, or its end is expected")
        return result

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    @property
    def _found(self) -> str:
        """What to say of the next token."""
        return "it ends" if self._next.kind == "end" else f"it has {_shown(self._next.text)}"

    def _take(self, *texts: str) -> bool:
        """Step over the next token if it is one of these signs or keywords."""
        found = self._next.kind in ("sign", "keyword") and self._next.text in texts
        self._at += found
        return found

    def _any(self) -> Expression:
        parts = [self._all()]
        while self._take("or"):
            parts.append(self._all())
        return Joined(tuple(parts), any=True) if len(parts) > 1 else parts[0]

    def _all(self) -> Expression:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return Joined(tuple(parts), any=False) if len(parts) > 1 else parts[0]

    def _one(self) -> Expression:
        is_not = self._take("not")
        if not (is_not or self._take("(")):
            return self._comparison()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"more than {MAX_DEPTH} parentheses or nots are within each other")
        inner = self._one() if is_not else self._any()
        self._depth -= 1
        if is_not:
            return Not(inner)
        if not self._take(")"):
            raise ExpressionError(f"{self._found} where a parenthesis should be closed")
        return inner

    def _comparison(self) -> Expression:
        field = self._words("a field")
        negated = self._take("not")
        if self._take("in"):
            equal = Equal(field, self._list())
            return Not(equal) if negated else equal
        sign = self._next.text
        if negated or not self._take(*OPERATORS):
            raise ExpressionError(f"{self._found} after {_shown(field)}, where a comparison is expected")
        value = self._value()
        if sign in ORDERS:
            return Ordered(field, sign, value)
        return Not(Equal(field, (value,))) if sign == "!=" else Equal(field, (value,))

    def _list(self) -> tuple[Value, ...]:
        if not self._take("("):
            raise ExpressionError("after in, values are expected in parentheses")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        if not self._take(")"):
            raise ExpressionError(f"{self._found} where the values of in (...) should end")
        return tuple(values)

    def _value(self) -> Value:
        plain = self._next.kind == "word"
        text = self._words("a value")
        return Value(text, _as_number(text) if plain else None)

    def _words(self, expected: str) -> str:
        """A text in quotes, or words without any: `science fiction`."""
        if self._next.kind in ("single", "double", "name"):
            self._at += 1
            return self._tokens[self._at - 1].text
        words = []
        while self._next.kind == "word":
            words.append(self._next.text)
            self._at += 1
        if not words:
            raise ExpressionError(f"{self._found} where {expected} is expected")
        return " ".join(words)


def _of_items(items: NDArray[np.int64], hits: pl.Series, n_items: int) -> NDArray[np.bool_]:
    """Which items have a value that is a hit."""
    matched = np.zeros(n_items, dtype=bool)
    matched[items[hits.fill_null(value=False).to_numpy()]] = True
    return matched


def _period(field: str, value: Value, values: pl.Series) -> Period:
    try:
        return period(value.text, values.dtype)
    except ValueError as error:
        kinds = KINDS[values.dtype.base_type()]
        raise ExpressionError(f"{field} holds {kinds}, and {_shown(value.text)} is none") from error


def _number(field: str, value: Value) -> float:
    number = _as_number(value.text.strip()) if value.number is None else value.number
    if number is None:
        raise ExpressionError(f"{field} holds numbers, and {_shown(value.text)} is none")
    return number


def _as_number(text: str) -> float | None:
    """The number, if the text is one that a float can be."""
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _truth(field: str, value: Value) -> bool:
    word = value.text.strip().lower()
    if word not in ("true", "false", "1", "0"):
        raise ExpressionError(f"{field} holds true and false, and {_shown(value.text)} is neither")
    return word in ("true", "1")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:97]}...")
