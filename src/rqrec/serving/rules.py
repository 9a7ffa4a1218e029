"""Business rules of recommendations: which items, how many of a kind, and which are preferred."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from rqrec.core import strict_json
from rqrec.core.regular_file import regular_file
from rqrec.core.values import Config, PositiveInt, Range, converted

MAX_BOOST = 100.0
LogOdds = Annotated[float, Range(-MAX_BOOST, MAX_BOOST)]
EXAMPLE = (
    '{"where": "genre = comedy", "max_per": {"brand": 2}, "boost": {"price < 20": 0.5}, "always": false}'
)


@dataclass(frozen=True)
class Rules(Config):
    """Rules about the fields of items, applied within the search: a list is the best of what they leave.

    Fields are the columns of the catalogue, and `first_code`, the first code of an item's semantic ID. Expressions
    are those of `rqrec.data.expressions`. Raises ValueError on values of another type or out of range.
    """

    where: str | tuple[str, ...] = ()
    """Only items of which this expression is true, or all of several, are recommended."""
    max_per: Mapping[str, PositiveInt] = field(default_factory=dict)
    """By field: at most so many items of a list have the same value; an item with several values counts for each."""
    boost: Mapping[str, LogOdds] = field(default_factory=dict)
    """By expression: log-odds that are added for items of which it is true, before items are ranked. Log 2 = 0.69
    doubles the odds of an item against any other; several boosts of an item are summed."""

    def __hash__(self) -> int:
        return hash((self.where, frozenset(self.max_per.items()), frozenset(self.boost.items())))

    def __bool__(self) -> bool:
        return self != NO_RULES

    def __and__(self, other: "Rules") -> "Rules":
        """Both: items have to satisfy all expressions, boosts are summed, and of two limits the smaller counts."""
        max_per, boost = dict(self.max_per), dict(self.boost)
        for name, most in other.max_per.items():
            max_per[name] = min(most, max_per.get(name, most))
        for expression, log_odds in other.boost.items():
            boost[expression] = boost.get(expression, 0.0) + log_odds
        # As parts, not as one text: "x = 1) or (x = 2" must not get around the rules that it is joined with.
        return Rules((*self.expressions, *other.expressions), max_per, boost)

    @property
    def expressions(self) -> tuple[str, ...]:
        """Those that have to be true of an item."""
        return (self.where,) if isinstance(self.where, str) else self.where


NO_RULES = Rules()


@dataclass(frozen=True)
class RuleSettings(Config):
    """Rules as options.

    Raises ValueError on a value that cannot be read.
    """

    where: str | None = None
    """Recommend only items of which this is true, such as "genre = comedy and price < 20"."""
    max_per: tuple[str, ...] = ()
    """At most so many items of a list with the same value of a field, such as "brand=2"; "first_code=1" is the first
    code of the semantic ID."""
    boost: tuple[str, ...] = field(default=(), metadata={"whole": True})
    """Log-odds to add for items of which something is true, such as "year >= 2020: 0.5"; may be repeated."""

    @property
    def rules(self) -> Rules:
        """The rules. Raises ValueError on a limit or boost without a number."""
        max_per = _numbers(self.max_per, "=", "max_per", "brand=2")
        boost = _numbers(self.boost, ":", "boost", "year >= 2020: 0.5")
        if any(most != int(most) for most in max_per.values()):
            raise ValueError(f"max_per is {', '.join(self.max_per)}, but limits must be whole numbers.")
        return Rules(
            () if self.where is None else self.where,
            {name: int(most) for name, most in max_per.items()},
            boost,
        )


def _numbers(given: Sequence[str], sign: str, name: str, example: str) -> dict[str, float]:
    pairs = [_number(one, sign, name, example) for one in given]
    numbers = dict(pairs)
    if len(numbers) < len(pairs):
        raise ValueError(f"{name} is {', '.join(given)}, but may name each only once.")
    return numbers


def _number(given: str, sign: str, name: str, example: str) -> tuple[str, float]:
    what, _, number = given.rpartition(sign)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not what.strip() or not math.isfinite(value):
        raise ValueError(f"{name} is {given!r}, but must end in {sign!r} and a number, such as {example!r}.")
    return what.strip(), value


@dataclass(frozen=True)
class NamedRules:
    """The rules of a service."""

    by_name: Mapping[str, Rules] = field(default_factory=dict)
    always: Rules = NO_RULES
    """Those that apply to every request."""

    def select(self, names: Sequence[str]) -> Rules:
        """The rules of these names together, and those that always apply. Raises ValueError on an unknown name."""
        chosen = self.always
        for name in names:
            if name not in self.by_name:
                raise ValueError(
                    f"There are no rules named {name!r}; this service has {', '.join(self.by_name) or 'none'}."
                )
            chosen = chosen & self.by_name[name]
        return chosen

    @classmethod
    def read(cls, path: Path) -> "NamedRules":
        """Read a JSON file of rules by name. Raises ValueError, naming the file and the rules, if it is not valid."""
        try:
            text = regular_file(path).read_text(encoding="utf-8-sig")
            given = strict_json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} is not valid JSON: {error}.") from error
        if not isinstance(given, dict):
            raise ValueError(f'{path} must hold an object of rules by name, such as {{"sale": {EXAMPLE}}}.')
        rules, always = {}, NO_RULES
        for name, one in given.items():
            if not name.strip():
                raise ValueError(f"{path}: the name of rules is {name!r}; requests ask for rules by a name.")
            try:
                rules[name], is_always = _read_rules(one)
            except ValueError as error:
                raise ValueError(f"{path}, rules {name!r}: {error}") from error
            if is_always:
                always = always & rules[name]
        return cls(rules, always)


NO_NAMED_RULES = NamedRules()


def _read_rules(given: Any) -> tuple[Rules, bool]:
    """Rules of a JSON object, and whether they always apply."""
    if not isinstance(given, dict) or given.keys() - {"where", "max_per", "boost", "always"}:
        raise ValueError(f"they must be an object such as {EXAMPLE}.")
    is_always = converted("always", bool, given.pop("always", False))
    return Rules(**given), is_always
