"""What messages say of an error of a library, and of a list that may be long."""

import errno
import re
from collections.abc import Sequence

SHOWN = 5  # of a list, unless something else is asked for
# Half of a character, which no text in UTF-8 has: what Python makes of other bytes, and of "\\ud800" in JSON.
SURROGATE = re.compile("[\ud800-\udfff]")
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)  # the disk's fault


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def first_few(words: Sequence[object], most: int = SHOWN, separator: str = ", ") -> str:
    """The first words of a list, and how many more there are: "a, b and 3 more"."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return separator.join(map(str, words[:most])) + more
