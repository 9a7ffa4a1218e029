"""The web page: the files of the folder `web`, held in memory."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from rqrec.serving.cached_content import CachedContent
from rqrec.serving.errors import ApiError

WEB = Path(__file__).with_name("web")
MEDIA_TYPES = {
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


class WebPage:
    """Serves the files that a folder contains at start-up, and nothing else.

    Browsers cache the files but revalidate them on each request, so a new version of the service is never
    used with an old page.
    """

    def __init__(self, folder: Path = WEB) -> None:
        paths = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
        self._files = {
            path.relative_to(folder).as_posix(): CachedContent(
                path.read_bytes(), MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
            )
            for path in paths
        }

    def response(self, request: Request, name: str) -> Response:
        """The response for a file, by its path within the folder."""
        if name not in self._files:
            raise ApiError(404, "not_found", "There is no such file in this version of the page.")
        return self._files[name].response(request)
