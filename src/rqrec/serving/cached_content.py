"""Content that browsers keep, and ask for again only to hear that it has not changed."""

import gzip
import hashlib

from starlette.requests import Request
from starlette.responses import Response

MIN_GZIP_BYTES = 500  # shorter content does not get shorter


class CachedContent:
    """A response's body, held in memory as it is and compressed."""

    def __init__(self, content: bytes, media_type: str) -> None:
        self._content, self._media_type = content, media_type
        self._hash = hashlib.sha256(content).hexdigest()[:32]
        gzipped = gzip.compress(content, 6, mtime=0) if len(content) >= MIN_GZIP_BYTES else content
        self._gzipped = gzipped if len(gzipped) < 0.9 * len(content) else None

    def response(self, request: Request) -> Response:
        """The content, compressed if the client accepts it; status 304 if the client has it."""
        use_gzip = self._gzipped is not None and "gzip" in request.headers.get("accept-encoding", "")
        etag = f'"{self._hash}{"-gzip" if use_gzip else ""}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        headers["Content-Type"] = self._media_type
        if use_gzip:
            headers["Content-Encoding"] = "gzip"
        return Response(self._gzipped if use_gzip else self._content, headers=headers)
