"""Values of settings: their types and ranges, and the one sentence that refuses a value.

The range of a number is part of a field's annotation: `PositiveInt`, or `Annotated[float, Range(0, 1)]`.
"""

import ast
import inspect
import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from enum import Enum
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

LARGEST_INT = 2**63 - 1


class Range(NamedTuple):
    """The allowed values of a number in an annotation."""

    low: float
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low}"
        high = f" and {'below' if self.below else 'at most'} {self.high}" if self.high < math.inf else ""
        return low + high

    def allows(self, value: float) -> bool:
        """Whether a value is inside; NaN never is."""
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)


PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
PositiveFloat = Annotated[float, Range(0, above=True)]
NonNegativeFloat = Annotated[float, Range(0)]
Probability = Annotated[float, Range(0, 1, below=True)]
Fraction = Annotated[float, Range(0, 1, above=True, below=True)]
Share = Annotated[float, Range(0, 1)]
Minutes = Annotated[float, Range(0, 525_600, above=True)]  # up to a year
Width = Annotated[int, Range(1, 2**20)]  # of a layer or an embedding
Depth = Annotated[int, Range(1, 1024)]  # number of layers or levels
Threads = Annotated[int, Range(1, 1024)]  # threads or processes
CodebookSize = Annotated[int, Range(2, 2**24)]  # codes of one level


class Config:
    """Base of configs: making one converts its values to the types of its fields, and checks types and ranges."""

    def __post_init__(self) -> None:
        """Raise ValueError that names the field, its value and what is allowed."""
        cls: Any = type(self)
        annotations = annotations_of(cls)
        for name in [field.name for field in fields(cls)]:
            object.__setattr__(self, name, converted(name, annotations[name], getattr(self, name)))


@cache
def annotations_of(config: Any) -> dict[str, Any]:
    """The annotation of each field of a dataclass, with its range."""
    return get_type_hints(config, include_extras=True)


_OTHER = object()  # a value that is not of a type


def converted(name: str, annotation: Any, value: Any) -> Any:
    """A value converted to the type of its field: string to path, list to tuple, int to float, name to enum member.

    Raises ValueError for another type, or a number out of its range.
    """
    choices = list(_choices(annotation))
    for choice, allowed in choices:
        checked = _as(choice, name, value)
        if checked is not _OTHER:
            if allowed and not allowed.allows(checked):
                raise ValueError(f"{name} is {_shown(value)}, but must be {allowed}.")
            return checked
    words = " or ".join(
        _describe(choice) + (f", {allowed}" if allowed else "") for choice, allowed in choices
    )
    raise ValueError(f"{name} is {_shown(value)}, but must be {words}{_hint(value, choices)}.")


def _choices(annotation: Any) -> Iterable[tuple[Any, Range | None]]:
    """The types that an annotation allows, each with its range."""
    for choice in get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,):
        if get_origin(choice) is Annotated:
            yield get_args(choice)
        else:
            yield choice, None


def _as(choice: Any, name: str, value: Any) -> Any:
    """A value as this type, or _OTHER if it is not one."""
    base = get_origin(choice) or choice
    if base is Literal:
        return value if value in get_args(choice) else _OTHER
    if base is tuple and isinstance(value, list | tuple):
        element = get_args(choice)[0]
        return tuple(converted(f"An element of {name}", element, one) for one in value)
    if base is Mapping and isinstance(value, Mapping):
        key, element = get_args(choice)
        return {
            converted(f"A key of {name}", key, one): converted(f"{name}[{one!r}]", element, value[one])
            for one in value
        }
    if choice in (int, float):
        return _as_number(choice, value)
    if choice is Path and isinstance(value, str):
        return Path(value)
    if inspect.isclass(base) and issubclass(base, Enum):
        names = {word.lower(): one for one in base for word in (one.name, str(one.value))}
        return names.get(value.lower(), _OTHER) if isinstance(value, str) else _OTHER
    if choice is Any or (inspect.isclass(base) and isinstance(value, base)):
        return value
    return _OTHER


def _as_number(kind: type, value: Any) -> Any:
    if isinstance(value, bool):
        return _OTHER
    if kind is int and isinstance(value, Integral) and abs(int(value)) <= LARGEST_INT:
        return int(value)
    if kind is float and isinstance(value, Real):
        with suppress(OverflowError):
            return number if math.isfinite(number := float(value)) else _OTHER
    return _OTHER


def _describe(annotation: Any) -> str:
    if annotation is NoneType:
        return "None"
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(repr, get_args(annotation)))}"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return f"one of {', '.join(one.name for one in annotation)}"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "a string", Path: "a path"}
    if get_origin(annotation) is tuple:
        element = next(iter(_choices(get_args(annotation)[0])))[0]
        return f"a list of {_PLURALS.get(element, 'values')}"
    if get_origin(annotation) is Mapping:
        return "a dictionary"
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


_PLURALS = {int: "whole numbers", float: "numbers", str: "strings", Path: "paths"}


_SHORTENED = reprlib.Repr()
_SHORTENED.maxstring = _SHORTENED.maxother = 80  # characters


def _shown(value: Any) -> str:
    try:
        return _SHORTENED.repr(value)
    except ValueError:  # a number of more digits than Python prints
        return "a number of thousands of digits"


def _hint(value: Any, choices: Sequence[tuple[Any, Range | None]]) -> str:
    """What to do about a value in quotes that would be right without them, or about a number for a list of one."""
    if isinstance(value, str):
        try:
            plain = ast.literal_eval({"true": "True", "false": "False"}.get(value, value))
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return ""
        fits = any(_fits(choice, plain) for choice, _ in choices)
        return f": write {plain!r} without quotes" if fits else ""
    if isinstance(value, Integral) and abs(int(value)) > LARGEST_INT:
        return f", and not beyond {LARGEST_INT}"
    if any(_fits(choice, [value]) for choice, _ in choices):
        return f": write [{value!r}]"
    return ""


def _fits(choice: Any, value: Any) -> bool:
    try:
        return value is not None and _as(choice, "", value) is not _OTHER
    except ValueError:
        return False
