"""Item text from an item's fields, by a template that the artefact keeps.

A template is parts joined by "; ", each with fields in braces: "{title}; Brand: {brand}; Price: {price}".
A part of which a field is missing is left out, so that no text ever says "nan".
"""

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

SEPARATOR = "; "
MISSING = {"", "nan", "none", "null", "n/a"}

_FIELD = re.compile(r"{(\w+)}")


def fields_of(template: str) -> tuple[str, ...]:
    """The names of a template's fields, in their order. Raises ValueError where there is none."""
    fields = tuple(dict.fromkeys(_FIELD.findall(template)))
    if not fields or set(_FIELD.sub("", template)) & set("{}"):
        raise ValueError(
            f"The template {template!r} is not valid: it needs fields in braces, such as "
            f"'{{title}}; Brand: {{brand}}'."
        )
    return fields


def clean(value: Any) -> str:
    """A field as text: HTML entities decoded, white space single, "" where it says nothing.

    Lists are joined by ", ", each word once.
    """
    if isinstance(value, list | tuple):
        return ", ".join(dict.fromkeys(filter(None, map(clean, _flatten(value)))))
    if value is None:
        return ""
    text = " ".join(html.unescape(str(value)).split())
    return "" if text.lower() in MISSING else text


def _flatten(values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flatten(value)
        else:
            yield value


def fill(template: str, item: Mapping[str, Any]) -> str:
    """The text of an item; "" where it has none of the template's fields."""
    texts = {field: clean(item.get(field)) for field in fields_of(template)}
    parts = []
    for part in template.split(SEPARATOR):
        if all(texts[field] for field in _FIELD.findall(part)):
            parts.append(_FIELD.sub(lambda match: texts[match[1]], part))
    return SEPARATOR.join(parts) if any(texts.values()) else ""
