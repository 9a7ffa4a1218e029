"""Item texts from item fields by a template, which is stored in the artefact.

A template consists of parts joined by "; ", with fields in braces: "{title}; Brand: {brand}; Price: {price}".
A part with a missing field is omitted, so that texts never contain "nan".
"""

import html
import re
from collections.abc import Iterable, Mapping
from typing import Any

SEPARATOR = "; "
MISSING = {"", "nan", "none", "null", "n/a"}

_FIELD = re.compile(r"{(\w+)}")


def fields_of(template: str) -> tuple[str, ...]:
    """The field names of a template, in order. Raises ValueError if there are none or the braces are invalid."""
    fields = tuple(dict.fromkeys(_FIELD.findall(template)))
    if not fields or set(_FIELD.sub("", template)) & set("{}"):
        raise ValueError(
            f"The template {template!r} is not valid: it needs fields in braces, such as "
            f"'{{title}}; Brand: {{brand}}'."
        )
    return fields


def clean(value: Any) -> str:
    """A field value as text: HTML entities decoded, white space collapsed, "" for missing values.

    Nested lists are flattened, deduplicated and joined by ", ".
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
    """The text of an item; "" if it has none of the template's fields."""
    texts = {field: clean(item.get(field)) for field in fields_of(template)}
    parts = []
    for part in template.split(SEPARATOR):
        if all(texts[field] for field in _FIELD.findall(part)):
            parts.append(_FIELD.sub(lambda match: texts[match[1]], part))
    return SEPARATOR.join(parts) if any(texts.values()) else ""
