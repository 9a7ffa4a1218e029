"""Pictures of items: files of one folder, served by the service itself.

A picture is named by its item's id (`50.jpg`), or by the catalogue's column `image` (a file name, or an address, of
which the last part counts). Nothing is fetched from another host, so a catalogue cannot make the service ask for
anything.
"""

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlsplit

from rqrec.serving.cached_content import CachedContent

COLUMN = "image"
MAX_BYTES = 5_000_000
# SVG is left out: it may contain scripts.
SIGNATURES: dict[str, Callable[[bytes], bool]] = {
    "image/jpeg": lambda head: head.startswith(b"\xff\xd8\xff"),
    "image/png": lambda head: head.startswith(b"\x89PNG\r\n\x1a\n"),
    "image/gif": lambda head: head.startswith((b"GIF87a", b"GIF89a")),
    "image/webp": lambda head: head.startswith(b"RIFF") and head[8:12] == b"WEBP",
    "image/avif": lambda head: head[4:12] == b"ftypavif",
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif")


class Pictures:
    """The pictures in a folder, which is listed once; None: there are none.

    Raises NotADirectoryError if there is no such folder.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None and not folder.is_dir():
            raise NotADirectoryError(
                f"pictures is {folder}, but there is no such folder: give that of the pictures."
            )
        paths = [] if folder is None else sorted(folder.iterdir())
        files = [path for path in paths if path.suffix.lower() in SUFFIXES]
        self._by_name = {path.name: path for path in files}
        self._by_stem = {path.stem: path for path in files}

    def address(self, item_id: str, image: str | None) -> str | None:
        """The address of an item's picture, relative to the page; None if there is none."""
        try:
            named = urlsplit(image).path.rsplit("/", 1)[-1] if image else None
        except ValueError:  # no address, whatever it is
            return None
        path = self._by_name.get(named) if named else self._by_stem.get(item_id)
        return None if path is None else f"v1/pictures/{quote(path.name)}"

    def read(self, name: str) -> CachedContent | None:
        """The picture in a file of the folder; None if there is none, or it is too large or no picture."""
        path = self._by_name.get(name)
        if path is None or not path.is_file() or path.stat().st_size > MAX_BYTES:
            return None
        content = path.read_bytes()
        media_type = next((kind for kind, fits in SIGNATURES.items() if fits(content[:16])), None)
        return None if media_type is None else CachedContent(content, media_type)


NO_PICTURES = Pictures(None)
