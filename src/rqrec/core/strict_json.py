"""JSON in which an object has each name once: `json` would keep the last of several entries, without a word."""

import json
from collections import Counter
from typing import Any


def loads(text: str | bytes) -> Any:
    """The value of a JSON text. Raises json.JSONDecodeError if it is not valid or an object repeats a name."""

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if repeated := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
            shown = text if isinstance(text, str) else text.decode(errors="replace")
            place = max(0, shown.rfind(json.dumps(repeated[0], ensure_ascii=False)))
            raise json.JSONDecodeError(
                f"{repeated[0][:50]!r} occurs more than once in an object", shown, place
            )
        return dict(pairs)

    return json.loads(text, object_pairs_hook=without_repeats)
