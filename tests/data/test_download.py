import hashlib
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rqrec.data import download
from rqrec.data.download import drive_url, extract, fetch, fetch_wheel

CONTENT = b"a line of the file\n" * 50_000
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:9"  # nothing listens on this port


class Server(ThreadingHTTPServer):
    """Serves CONTENT on every path except /missing; `answers` queues status codes, or "cut" for half the content."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[int | str] = []
        self.asked: list[tuple[str, str | None]] = []
        self.page: tuple[bytes, str] | None = None  # body and type to serve instead of CONTENT

    def handle_error(self, request: object, client_address: object) -> None:
        """Disconnecting clients are part of these tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        answer = self.server.answers.pop(0) if self.server.answers else 200
        if self.server.page:
            body, kind = self.server.page
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        if self.path == "/missing":
            answer = 404
        if answer not in (200, "cut"):
            self.send_error(int(answer))
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : len(CONTENT) // 2 if answer == "cut" else None])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download.time, "sleep", lambda seconds: None)
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    for _ in range(2):
        path = fetch("file", tmp_path / "new", [f"{server.url}/file"], SHA256)
        assert path == tmp_path / "new" / "file"
        assert path.read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_the_next_url_is_tried_if_the_first_fails(server: Server, tmp_path: Path) -> None:
    urls = [f"{NOWHERE}/file", f"{server.url}/missing", f"{server.url}/mirror"]
    assert fetch("file", tmp_path, urls, SHA256).read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == ["/missing", "/mirror"]


def test_a_busy_server_is_retried(server: Server, tmp_path: Path) -> None:
    server.answers = [503, 429]
    assert fetch("file", tmp_path, [f"{server.url}/file"], SHA256).read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    server.answers = ["cut"]
    assert fetch("file", tmp_path, [f"{server.url}/file"], SHA256).read_bytes() == CONTENT
    (_, first), (_, second) = server.asked
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= len(CONTENT) // 2
    assert not list(tmp_path.glob("*.part"))


def test_without_a_known_hash_an_interrupted_download_restarts(server: Server, tmp_path: Path) -> None:
    server.answers = ["cut"]
    assert fetch("file", tmp_path, [f"{server.url}/file"]).read_bytes() == CONTENT
    assert server.asked == [("/file", None), ("/file", None)]


def test_offline_the_error_says_which_file_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(
        ConnectionError, match=f"Download it elsewhere from {NOWHERE}/file, put it at .*/file"
    ):
        fetch("file", tmp_path, [f"{NOWHERE}/file"], SHA256)
    (tmp_path / "file").write_bytes(CONTENT)
    assert fetch("file", tmp_path, [f"{NOWHERE}/file"], SHA256).read_bytes() == CONTENT


def test_a_file_with_another_hash_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="hash"):
        fetch("file", tmp_path, [f"{server.url}/file"], "sha256:" + "0" * 64)
    assert not (tmp_path / "file").exists()
    (tmp_path / "file").write_bytes(CONTENT[:100])
    with pytest.raises(ValueError, match=r"truncated or not the published file. Delete it"):
        fetch("file", tmp_path, [f"{server.url}/file"], SHA256)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sha256": 3}'])
def test_a_damaged_record_of_the_first_download_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    (tmp_path / "file.origin.json").write_text(content)
    with pytest.raises(ValueError, match=r"file\.origin\.json"):
        fetch("file", tmp_path, [f"{NOWHERE}/file"])


def test_without_a_known_hash_the_first_download_is_trusted_and_recorded(
    server: Server, tmp_path: Path
) -> None:
    path = fetch("file", tmp_path, [f"{server.url}/file"])
    path.write_bytes(CONTENT + b"changed")
    with pytest.raises(ValueError, match="Delete it and run again"):
        fetch("file", tmp_path, [f"{server.url}/file"])


def test_concurrent_fetches_download_once(server: Server, tmp_path: Path) -> None:
    def work() -> None:
        fetch("file", tmp_path, [f"{server.url}/file"], SHA256)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.asked) == 1


def test_a_wheel_that_pip_cannot_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    with pytest.raises(ConnectionError, match=r"pip could not download rqrec-none==1.0 .* put it into"):
        fetch_wheel("rqrec-none", "1.0", tmp_path, "0" * 64)


def test_an_existing_wheel_is_verified_and_used(tmp_path: Path) -> None:
    wheel = tmp_path / "some_project-1.0-py3-none-any.whl"
    wheel.write_bytes(CONTENT)
    assert fetch_wheel("some-project", "1.0", tmp_path, SHA256.removeprefix("sha256:")) == wheel
    with pytest.raises(ValueError, match="Delete it"):
        fetch_wheel("some-project", "1.0", tmp_path, "0" * 64)


def make_zip(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_members_are_extracted_without_their_folders(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", **{"top/u.data": b"data", "top/u.item": b"item", "top/x": b""})
    paths = extract(archive, ["u.item", "top/u.data"], tmp_path / "out")
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == ["out/u.item", "out/u.data"]
    assert [path.read_bytes() for path in paths] == [b"item", b"data"]
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_missing_member_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", **{"top/u.data": b"data"})
    with pytest.raises(ValueError, match=r"a.zip contains no file 'u.item'"):
        extract(archive, ["u.item"], tmp_path)


@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/evil", "C:\\evil", "..\\evil"])
def test_an_archive_with_a_path_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = make_zip(tmp_path / "a.zip", **{"u.data": b"data", name: b"evil"})
    with pytest.raises(ValueError, match="outside the target folder"):
        extract(archive, ["u.data"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_with_a_link_is_refused(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="link"):
        extract(tmp_path / "a.zip", ["link"], tmp_path / "out")


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "bomb.zip", zeros=bytes(5_000_000))
    with pytest.raises(ValueError, match=r"bomb.zip would unpack to 5000000 bytes"):
        extract(archive, ["zeros"], tmp_path / "out")
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        extract(archive, ["zeros"], tmp_path / "out", max_bytes=1000, max_ratio=1e6)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    archive = make_zip(tmp_path / "a.zip", **{"u.data": bytes(range(256)) * 100})
    content = bytearray(archive.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 0xFF
    archive.write_bytes({"cut": content[: len(content) // 2], "flip": content, "text": b"<html>"}[damage])
    with pytest.raises(ValueError, match=r"a.zip is truncated or broken .* Delete it and run again"):
        extract(archive, ["u.data"], tmp_path / "out")
    assert not (tmp_path / "out" / "u.data").exists()


CONFIRM = b"""<html><form id="download-form" action="%s/confirmed" method="get">
<input type="submit" value="Download anyway"><input type="hidden" name="id" value="ID">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a-b"></form></html>"""


@pytest.mark.parametrize("page", ["file", "confirm", "quota"])
def test_the_google_drive_confirmation_page_is_answered(page: str, server: Server) -> None:
    body = {
        "file": CONTENT,
        "confirm": CONFIRM % server.url.encode(),
        "quota": b"<html>Quota exceeded</html>",
    }
    server.page = body[page], "application/zip" if page == "file" else "text/html; charset=utf-8"
    if page == "quota":
        with pytest.raises(ConnectionError, match="returned a page instead of the file"):
            drive_url("ID", server.url)
    else:
        url = drive_url("ID", server.url)
        end = "/confirmed?id=ID&confirm=t&uuid=a-b" if page == "confirm" else "/uc?export=download&id=ID"
        assert url == server.url + end


def test_google_drive_unreachable() -> None:
    with pytest.raises(ConnectionError, match="failed: it cannot be reached"):
        drive_url("ID", NOWHERE)
