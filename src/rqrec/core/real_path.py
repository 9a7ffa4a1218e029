"""Where a path leads when all links are followed."""

import errno
import os
from pathlib import Path


def real_path(path: Path | str) -> Path:
    """The absolute path without links, whether or not there is such a file.

    Raises OSError if links lead in a circle: `Path.resolve` raises RuntimeError, or does not tell.
    """
    try:
        return Path(os.path.realpath(path, strict=True))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, error.strerror, str(path)) from error
    return Path(os.path.realpath(path))
