"""Whether a path is a file with an end: a pipe waits for whoever writes into it, and a device may never end."""

import stat
from pathlib import Path

SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def regular_file(path: Path | str) -> Path:
    """The path, if it is a regular file or a link to one. Raises OSError that says what it is instead."""
    path = Path(path)
    if path.is_file():
        return path
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: give a file.")
    if path.exists():
        kind = SPECIAL.get(stat.S_IFMT(path.stat().st_mode), "no regular file")
        raise OSError(f"{path} is {kind}, but must be a regular file: save what it gives as one.")
    if path.is_symlink():
        raise FileNotFoundError(f"{path} is a link to {path.readlink()}, which does not exist.")
    raise FileNotFoundError(f"There is no file {path}.")
