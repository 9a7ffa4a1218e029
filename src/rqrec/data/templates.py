"""Item texts from item fields by a template, which is stored in the artefact.

A template consists of parts joined by "; ", with fields in braces: "{title}; Brand: {brand}; Price: {price}".
A part with a missing field is omitted, so that texts never contain "nan".
"""

import html
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

SEPARATOR = "; "
MISSING = {"", "nan", "none", "null", "n/a", "(no genres listed)"}

_FIELD = re.compile(r"{([^{}]+)}")
_TAG = re.compile(
    r"<!--.*?-->|<(script|style)\b.*?</\1\s*>|</?(?:a|abbr|b|big|blockquote|br|button|center|code|div|em|font|footer|form|"
    r"h[1-6]|header|hr|i|iframe|img|input|ins|label|li|link|meta|nav|ol|p|pre|script|section|small|span|strike|strong|style|"
    r"sub|sup|svg|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|video)(?:\s[^<>]*)?/?>",
    re.IGNORECASE | re.DOTALL,
)


@cache
def fields_of(template: str) -> tuple[str, ...]:
    """The field names of a template, in order. Raises ValueError if there are none or the braces are invalid."""
    fields = tuple(dict.fromkeys(_FIELD.findall(template)))
    if not fields or set(_FIELD.sub("", template)) & set("{}"):
        raise ValueError(
            f"The template {template!r} is not valid: it needs fields in braces, such as "
            f"'{{title}}; Brand: {{brand}}'."
        )
    return fields


@cache
def _parts(template: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The parts of a template, each with its fields."""
    return tuple((part, tuple(_FIELD.findall(part))) for part in template.split(SEPARATOR))


def clean(value: Any) -> str:
    """A field value as text: without HTML tags and entities, white space collapsed, "" for missing values.

    Nested lists are flattened, deduplicated and joined by ", ".
    """
    if isinstance(value, list | tuple):
        return ", ".join(dict.fromkeys(filter(None, map(clean, flattened(value)))))
    if value is None:
        return ""
    text = html.unescape(str(value))
    text = " ".join((_TAG.sub(" ", text) if "<" in text else text).split())
    return "" if text.lower() in MISSING else text


def flattened(values: Iterable[Any]) -> Iterable[Any]:
    """The values of nested lists, in order."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from flattened(value)
        else:
            yield value


def fill(template: str, item: Mapping[str, Any]) -> str:
    """The text of an item; "" if it has none of the template's fields."""
    texts = {field: clean(item.get(field)) for field in fields_of(template)}
    parts = []
    for part, fields in _parts(template):
        if all(texts[field] for field in fields):
            parts.append(_FIELD.sub(lambda match: texts[match[1]], part))
    return SEPARATOR.join(parts) if any(texts.values()) else ""
