"""A service that speaks the HTTP contract over a real artefact, with nothing but the standard library.

It lets the page be tested by itself: answers are computed as simply as they can be.
"""

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import rqrec.serving
from rqrec import Recommender
from rqrec.data.dataset import Dataset
from rqrec.data.ids import UnknownIdError
from rqrec.retrieval.architectures import name_of
from rqrec.retrieval.checkpoint import read_checkpoint

WEB = Path(rqrec.serving.__file__).parent / "web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
N_USERS = 6
N_WORDS = 4


class MissingError(LookupError):
    """What a path names does not exist."""


class Catalogue:
    """What the service knows of one model's items."""

    def __init__(self, run: Path) -> None:
        checkpoint = read_checkpoint(run)
        self.recommender = Recommender(checkpoint)
        catalog = checkpoint.catalog
        self.ids = catalog.id_map.ids(range(len(catalog)))
        self.titles = catalog.titles()
        self.texts = catalog.items["text"].to_list()
        self.codes = [tuple(row) for row in checkpoint.table.codes_NL.tolist()]
        self.place = {item_id: place for place, item_id in enumerate(self.ids)}
        self.words = [set(re.findall(r"[^\W\d]{3,}", text.lower())) for text in self.texts]
        self.frequency = Counter(word for words in self.words for word in words)
        self.architecture = name_of(checkpoint.model.config)
        self.parameters = sum(parameter.numel() for parameter in checkpoint.model.parameters())
        self.level_sizes = list(checkpoint.table.level_sizes)

    def brief(self, place: int) -> dict[str, Any]:
        return {
            "item_id": self.ids[place],
            "title": self.titles[place],
            "semantic_id": list(self.codes[place]),
        }

    def item(self, item_id: str) -> int:
        if item_id not in self.place:
            raise MissingError(f"The catalogue has no item {item_id!r}: search for it by its title.")
        return self.place[item_id]

    def search(self, query: str) -> list[int]:
        wanted = query.lower().split()

        def matches(place: int) -> bool:
            words = [self.ids[place].lower(), *re.findall(r"\w+", self.titles[place].lower())]
            return all(any(word.startswith(prefix) for word in words) for prefix in wanted)

        return [place for place in range(len(self.ids)) if matches(place)]

    def typical(self, places: Sequence[int]) -> list[str]:
        """Words that these items have more often than the catalogue, as a share of both."""
        counts = Counter(word for place in places for word in self.words[place])
        share = {word: n * n / self.frequency[word] for word, n in counts.items()}
        return sorted(share, key=lambda word: (-share[word], word))[:N_WORDS]

    def node(self, prefix: tuple[int, ...]) -> tuple[list[int], list[dict[str, Any]]]:
        """The items below a prefix, and its children."""
        level = len(prefix)
        below = [place for place, codes in enumerate(self.codes) if codes[:level] == prefix]
        if not below:
            raise MissingError("No semantic ID starts with these codes: try a shorter prefix.")
        groups: dict[int, list[int]] = {}
        if level < len(self.level_sizes):
            for place in below:
                groups.setdefault(self.codes[place][level], []).append(place)
        children = [
            {"code": code, "n_items": len(places), "words": self.typical(places)}
            for code, places in sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))
        ]
        return below, children

    def similar(self, item: int, k: int) -> list[dict[str, Any]]:
        def shared(other: int) -> int:
            equal = [a == b for a, b in zip(self.codes[item], self.codes[other], strict=True)]
            return (*equal, False).index(False)

        others = sorted((o for o in range(len(self.ids)) if o != item), key=lambda o: (-shared(o), o))
        return [self.brief(other) | {"score": shared(other)} for other in others[:k]]

    def recommendations(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        histories = body.get("histories") or [body["history"]]
        options = ("exclude_seen", "allow", "block", "max_per_code", "unknown")
        given = {name: body[name] for name in options if name in body}
        found = self.recommender.recommend(histories, body.get("k", 10), **given)
        answers = []
        for history, result in zip(histories, found, strict=True):
            known = [item_id for item_id in history if item_id in self.place]
            items = [self.brief(self.place[item.item_id]) | {"score": item.score} for item in result]
            if body.get("explain"):
                for item in items:
                    item["path"] = self.path(known, item["item_id"])
            skipped = list(result.skipped)
            answers.append({"items": items, "n_allowed": result.n_allowed, "skipped": skipped})
        return answers

    def path(self, history: list[str], item_id: str) -> list[dict[str, Any]]:
        return [
            {
                "code": step.code,
                "probability": step.probability,
                "n_items": step.n_items,
                "others": [{"item_id": o, "title": self.titles[self.place[o]]} for o in step.others],
            }
            for step in self.recommender.explain(history, item_id).path
        ]


class Service:
    """Answers by path; the first model is the default."""

    def __init__(self, runs: dict[str, Path]) -> None:
        self.models = {name: Catalogue(run) for name, run in runs.items()}
        self.users = sample_users(next(iter(runs.values())), next(iter(self.models.values())))

    def model(self, name: str | None) -> tuple[str, Catalogue]:
        name = name or next(iter(self.models))
        if name not in self.models:
            raise MissingError(f"There is no model {name!r}: use one of {', '.join(self.models)}.")
        return name, self.models[name]

    def get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        _, catalogue = self.model(query.get("model"))
        page, size = int(query.get("page", 1)), int(query.get("page_size", 20))
        cut = slice((page - 1) * size, page * size)
        match [unquote(part) for part in path.removeprefix("/v1/").split("/")]:
            case ["models"]:
                return {"models": [self.facts(name) for name in self.models]}
            case ["users"]:
                return {"users": self.users}
            case ["items"]:
                found = catalogue.search(query.get("query", ""))
                items = [catalogue.brief(place) for place in found[cut]]
                return {"items": items, "total": len(found), "page": page, "page_size": size}
            case ["items", item_id]:
                place = catalogue.item(item_id)
                return catalogue.brief(place) | {"text": catalogue.texts[place]}
            case ["items", item_id, "similar"]:
                return {"items": catalogue.similar(catalogue.item(item_id), int(query.get("k", 10)))}
            case ["semantic-ids", *rest]:
                prefix = tuple(int(code) for code in rest[0].split("-")) if rest else ()
                below, children = catalogue.node(prefix)
                return {
                    "prefix": list(prefix),
                    "n_items": len(below),
                    "words": catalogue.typical(below) if prefix else [],
                    "children": children,
                    "items": [catalogue.brief(place) for place in below[cut]],
                    "page": page,
                    "page_size": size,
                }
        raise MissingError(f"There is nothing at {path}.")

    def recommend(self, body: dict[str, Any]) -> dict[str, Any]:
        name, catalogue = self.model(body.get("model"))
        return {"model": name, "recommendations": catalogue.recommendations(body)}

    def facts(self, name: str) -> dict[str, Any]:
        model = self.models[name]
        return {
            "name": name,
            "architecture": model.architecture,
            "parameters": model.parameters,
            "n_items": len(model.ids),
            "level_sizes": model.level_sizes,
            "default": name == next(iter(self.models)),
        }


def sample_users(run: Path, catalogue: Catalogue) -> list[dict[str, Any]]:
    if not (run / "dataset").is_dir():
        return []
    dataset = Dataset.read(run)
    users = []
    for user in range(min(N_USERS, len(dataset.sequences))):
        items = dataset.catalog.id_map.ids(dataset.sequences.of_user(user))
        history = [{"item_id": i, "title": catalogue.titles[catalogue.place[i]]} for i in items]
        users.append({"user_id": dataset.sequences.user_ids[user], "history": history})
    return users


@contextmanager
def serve_stub(runs: dict[str, Path]) -> Iterator[str]:
    """Serve these runs on a free port of this machine; gives the address."""
    service = Service(runs)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            file = WEB / ("index.html" if url.path == "/" else url.path.removeprefix("/static/"))
            if url.path == "/" or url.path.startswith("/static/"):
                return self.reply(200, file.read_bytes(), TYPES[file.suffix])
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            return self.reply_json(lambda: service.get(url.path, query))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply_json(lambda: service.recommend(body))

        def reply_json(self, answer: Any) -> None:
            try:
                status, body = 200, answer()
            except (MissingError, UnknownIdError, ValueError) as error:
                status = 404 if isinstance(error, MissingError) else 422
                body = {"error": {"code": "refused", "message": str(error.args[0]), "request_id": "1"}}
            self.reply(status, json.dumps(body).encode(), "application/json")

        def reply(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Security-Policy", "default-src 'self'")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
