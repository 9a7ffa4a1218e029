"""The web page: the files of the folder `web`, held in memory."""

import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from rqrec.serving.errors import ApiError

WEB = Path(__file__).with_name("web")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".webmanifest": "application/manifest+json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}


class Page:
    """Serves the files of a folder, as they were at the start; only those can be asked for.

    A browser keeps them, and asks each time whether they are still the same, so that a new version of the
    service never meets an old page.
    """

    def __init__(self, folder: Path = WEB) -> None:
        paths = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        self._files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}

    def answer(self, request: Request, name: str) -> Response:
        """A file by its path within the folder."""
        if name not in self._files:
            raise ApiError(404, "not_found", "There is no such file in this version of the page.")
        content = self._files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        media_type = TYPES.get(Path(name).suffix.lower(), "application/octet-stream")
        return Response(content, headers={**headers, "Content-Type": media_type})
