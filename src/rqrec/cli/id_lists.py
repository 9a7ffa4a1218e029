"""Lists of item ids as the text of an option: between commas, or as a JSON list, as ids may hold any character."""

import json
from collections.abc import Sequence

import typer


def split_ids(text: str) -> list[str]:
    """The ids of a text such as `50,181` or `["50", "a,b"]`. Raises BadParameter on an empty id."""
    ids = _json_list(text)
    if ids is None:
        ids = [part.strip() for part in text.split(",")] if text.strip() else []
    if "" in ids:
        raise typer.BadParameter(
            f"{text!r} has nothing between two commas or at an end (entry {ids.index('') + 1}): write an id there, "
            f"or remove the comma."
        )
    return ids


def join_ids(ids: Sequence[str]) -> str:
    """The text that `split_ids` reads as these ids."""
    text = ",".join(ids)
    plain = not any("," in one or one != one.strip() for one in ids) and _json_list(text) is None
    return text if plain else json.dumps(list(ids), ensure_ascii=False)


def _json_list(text: str) -> list[str] | None:
    """The strings and whole numbers of a JSON list; None for any other text."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not all(type(value) in (str, int) for value in values):
        return None
    return [str(value) for value in values]
