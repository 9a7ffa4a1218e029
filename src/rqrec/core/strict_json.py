"""JSON as RFC 8259 has it, in which an object has each name once.

`json` would keep the last of several entries without a word, and takes NaN and infinities, which are no JSON.
"""

import json
import re
import sys
from collections import Counter
from typing import Any


class RepeatedNameError(ValueError):
    """An object has a name more than once."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name[:50]!r} occurs more than once in an object")
        self.name = name


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values, for `json`'s `object_pairs_hook`. Raises RepeatedNameError."""
    if repeated := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
        raise RepeatedNameError(repeated[0])
    return dict(pairs)


def loads(text: str | bytes, *, allow_nan: bool = False) -> Any:
    """The value of a JSON text.

    Raises json.JSONDecodeError if it is not valid, an object repeats a name, or a whole number has more digits than
    Python reads; with `allow_nan`, NaN, Infinity and -Infinity are values.
    """

    def error(message: str, pattern: str) -> json.JSONDecodeError:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        found = list(re.finditer(pattern, shown))
        return json.JSONDecodeError(message, shown, found[-1].start() if found else 0)

    def constant(name: str) -> float:
        if allow_nan:
            return float(name)
        raise error(f"{name} is not a number of JSON", name)

    try:
        return json.loads(text, object_pairs_hook=unique_names, parse_constant=constant)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RepeatedNameError as repeated:
        raise error(str(repeated), re.escape(json.dumps(repeated.name, ensure_ascii=False))) from repeated
    except ValueError as too_long:
        digits = sys.get_int_max_str_digits()
        raise error(f"a whole number of more than {digits} digits", rf"\d{{{digits + 1},}}") from too_long
