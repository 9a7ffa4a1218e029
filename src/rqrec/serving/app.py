"""The HTTP service: its routes and error handlers."""

import asyncio
import json
import reprlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache
from itertools import chain
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BeforeValidator
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from rqrec import __version__
from rqrec.core.progress import logged
from rqrec.data.ids import LONGEST_ID, UnknownIdError
from rqrec.retrieval.defaults import DEFAULT_K
from rqrec.serving import schemas
from rqrec.serving.api_page import STYLE, api_page
from rqrec.serving.batcher import QueueFullError
from rqrec.serving.cached_content import CachedContent
from rqrec.serving.config import ServiceConfig
from rqrec.serving.errors import (
    ApiError,
    JsonResponse,
    client_left,
    error_response,
    to_json,
    too_many_requests,
)
from rqrec.serving.logs import LOG
from rqrec.serving.metrics import Metrics
from rqrec.serving.middleware import (
    ITEMS,
    RECOMMENDATIONS,
    AuthMiddleware,
    EncodedItemIds,
    RequestLogging,
    bearer_token,
    is_valid_token,
)
from rqrec.serving.model_registry import HistoryRequest, ModelRegistry, RequestOptions, ServedModel
from rqrec.serving.recommender import Recommender
from rqrec.serving.rules import Rules
from rqrec.serving.strict_route import StrictRoute
from rqrec.serving.web_page import MEDIA_TYPES, WebPage

ModelName = Annotated[
    str | None,
    Query(
        alias="model",
        max_length=1000,
        description="Name of a model listed by /v1/models; the default model if omitted.",
    ),
]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
PageSize = Annotated[int, Query(ge=1, le=100)]
NumberOfItems = Annotated[int, Query(ge=1, le=schemas.MAX_K)]
ItemInPath = Annotated[
    str,
    BeforeValidator(unquote),  # see EncodedItemIds
    Path(
        max_length=LONGEST_ID,
        description="Percent-encoded, `/` as `%2F`. A path cannot hold `.` and `..`: see /v1/item.",
    ),
]
ItemInQuery = Annotated[str, Query(alias="id", max_length=LONGEST_ID, description="Any id of the catalogue.")]
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": schemas.ErrorBody,
        "description": "The request was refused; the message gives the reason.",
    },
    "5XX": {
        "model": schemas.ErrorBody,
        "description": "The service failed or is unavailable; the message says what to do.",
    },
    422: {"model": schemas.ErrorBody, "description": "A value is invalid; the message names it."},
}
LONGEST_SHOWN = 100  # characters of an invalid value
MAX_REPLACED = 3  # how often a request is checked anew because its model was replaced meanwhile
ERROR_CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_json"}


def create_app(
    registry: ModelRegistry, config: ServiceConfig, metrics: Metrics, page: WebPage | None = None
) -> FastAPI:
    """The service over a registry of models, which it closes on shutdown."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(registry.close)

    app = FastAPI(
        title="rqrec",
        version=__version__,
        description="Generative recommendations with semantic IDs. If the service requires a token, send it in "
        "the header `Authorization: Bearer TOKEN`.",
        docs_url=None,  # its page would load scripts from another host; see add_docs
        redoc_url=None,
        responses=ERRORS,
        lifespan=lifespan,
    )
    app.router.route_class = StrictRoute
    add_recommendations(app, registry, config)
    add_catalogue(app, registry)
    add_changes(app, registry, config)
    add_operations(app, registry, config, metrics)
    add_page(app, page or WebPage())
    add_docs(app)
    add_errors(app)
    app.add_middleware(EncodedItemIds)
    app.add_middleware(AuthMiddleware, config=config, busy=registry.busy, n_models=registry.n_models)
    if config.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.allow_origins,
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestLogging, metrics=metrics)
    return app


def add_recommendations(app: FastAPI, registry: ModelRegistry, config: ServiceConfig) -> None:
    """Add the recommendation route."""

    @app.post(RECOMMENDATIONS, response_model=schemas.RecommendationResponse, tags=["recommend"])
    async def recommendations(body: schemas.RecommendationRequest, request: Request) -> Response:
        """Recommend the next items for one or several histories."""
        requests = body.history_requests()
        for _ in range(MAX_REPLACED):
            model, batcher = registry.get(body.model)
            options = await request_options(body, requests, model, config)
            if registry.get(body.model).batcher is batcher:
                break
        else:
            raise too_many_requests("busy", "The model is being replaced again and again.", 1)
        request.scope["log_fields"] = {"model": model.name, "histories": len(requests)}
        try:
            future = asyncio.wrap_future(batcher.submit(options, requests))
        except QueueFullError as error:
            raise too_many_requests("busy", "The request queue is full.", error.seconds) from error
        results = await answer(future, request, config.timeout)
        parts = to_json(model.name), b",".join(results), to_json(notes(body, model))
        content = b'{"model":%s,"recommendations":[%s],"notes":%s}' % parts
        return Response(content, media_type=JsonResponse.media_type)


def notes(body: schemas.RecommendationRequest, model: ServedModel) -> list[str]:
    """What the request says that makes no difference to the model."""
    artifact = model.recommender.artifact
    unused = {
        "timestamps": body.timestamps is not None and not artifact.needs_times,
        "user": body.user is not None and not artifact.reads_users,
        "users": body.users is not None and not artifact.reads_users,
    }
    return [
        f"`{name}` makes no difference to this model, which was trained without it."
        for name, makes_none in unused.items()
        if makes_none
    ]


async def answer(future: asyncio.Future[list[bytes]], request: Request, seconds: float) -> list[bytes]:
    """The results of a future, which is cancelled if they are late or the client leaves.

    Raises ApiError (504 or 499).
    """

    async def leaves() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    left = asyncio.ensure_future(leaves())
    either: set[asyncio.Future[Any]] = {future, left}
    try:
        done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if future in done:
            return future.result()
    finally:
        left.cancel()
        future.cancel()
    if left in done:
        raise client_left()
    message = f"No answer within {seconds:g} s: send fewer histories, or try again later."
    raise ApiError(504, "timeout", message)


async def request_options(
    body: schemas.RecommendationRequest,
    requests: list[HistoryRequest],
    model: ServedModel,
    config: ServiceConfig,
) -> RequestOptions:
    """What a request asks of a model. Raises ApiError (422) if the model cannot answer it."""
    check_request(body, requests, model, config)
    experts = select_experts(body, model)
    return RequestOptions(
        body.k,
        model.recommender.exclude_seen if body.exclude_seen is None else body.exclude_seen,
        None if body.allow is None else tuple(body.allow),
        None if body.block is None else tuple(body.block),
        await check_rules(body, model),
        experts,
        body.explain,
        body.describe,
    )


def check_request(
    body: schemas.RecommendationRequest,
    requests: list[HistoryRequest],
    model: ServedModel,
    config: ServiceConfig,
) -> None:
    """Raise ApiError (422) on too many or too long histories, too many results, no timestamps, and unknown ids."""
    histories = [request.items for request in requests]
    if len(histories) > config.max_histories:
        raise ApiError(
            422,
            "too_many_histories",
            f"The request has {len(histories)} histories, but {config.max_histories} are allowed: split it into "
            "several requests.",
        )
    n_results = len(histories) * body.k * (2 if body.explain else 1)
    if n_results > config.max_results:
        explained = " x 2, as items are explained" if body.explain else ""
        raise ApiError(
            422,
            "too_many_results",
            f"{len(histories)} histories x k = {body.k}{explained} is {n_results}, but {config.max_results} are "
            "allowed: split the request, or lower k.",
        )
    longest = max(map(len, histories), default=0)
    if longest > config.max_history:
        raise ApiError(
            422,
            "long_history",
            f"A history has {longest} items, but {config.max_history} are allowed: send the most recent ones.",
        )
    if model.needs_timestamps and any(request.items and request.timestamps is None for request in requests):
        raise ApiError(
            422,
            "no_timestamps",
            f"The model {model.name} needs timestamps: send the time of each item, such as 1700000000 or "
            '"2023-11-14T22:13:20Z".',
        )
    if body.unknown == "raise":
        ids = dict.fromkeys(chain(*histories, body.allow or (), body.block or ()))
        try:
            model.recommender.catalog.id_map.indices(list(ids))
        except UnknownIdError as error:
            raise ApiError(422, "unknown_item", f'{error} Or send "unknown": "skip".') from error


async def check_rules(body: schemas.RecommendationRequest, model: ServedModel) -> Rules:
    """The rules of a request, with those of the service. Raises ApiError (422) if one is not valid."""
    try:
        rules = model.rules.select(body.rules) & body.own_rules
        if rules:
            await asyncio.to_thread(model.recommender.check_rules, rules)
    except ValueError as error:
        raise ApiError(422, "invalid_rules", str(error)) from error
    return rules


def select_experts(body: schemas.RecommendationRequest, model: ServedModel) -> tuple[str, ...]:
    """The names of the experts that a request means. Raises ApiError (422) if one is unknown."""
    try:
        return tuple(model.recommender.select(body.experts))
    except ValueError as error:
        raise ApiError(422, "unknown_expert", str(error)) from error


def add_catalogue(app: FastAPI, registry: ModelRegistry) -> None:
    """Add the routes for models, users, items and semantic IDs; their functions run in a thread pool."""

    @app.get("/v1/models", response_model=schemas.Models, tags=["catalogue"])
    def models() -> Response:
        """List the served models."""
        return JsonResponse(registry.describe())

    @app.get("/v1/users", response_model=schemas.Users, tags=["catalogue"])
    def users(name: ModelName = None) -> Response:
        """Return a few sample users of the model's dataset."""
        return JsonResponse({"users": registry.get(name).model.users})

    @app.get("/v1/starting-points", response_model=schemas.StartingPoints, tags=["catalogue"])
    def starting_points(name: ModelName = None) -> Response:
        """Return a few kinds of items, each with well-known ones, as histories to begin with."""
        return JsonResponse({"starting_points": registry.get(name).model.starting_points})

    @app.get("/v1/items", response_model=schemas.ItemPage, tags=["catalogue"])
    def items(
        query: Annotated[str, Query(max_length=200, examples=["toy stroy"])] = "",
        page: PageNumber = 1,
        page_size: PageSize = 20,
        name: ModelName = None,
    ) -> Response:
        """List all items, or those that match a query in any field, best match first; typos are forgiven."""
        return JsonResponse(registry.get(name).model.catalog_view.items(query, page, page_size))

    @app.get(ITEMS + "{item_id:path}/similar", response_model=schemas.SimilarItems, tags=["catalogue"])
    def similar(item_id: ItemInPath, k: NumberOfItems = DEFAULT_K, name: ModelName = None) -> Response:
        """Return the items whose semantic IDs share the longest prefix with an item's."""
        return similar_by_id(item_id, k, name)

    @app.get("/v1/item/similar", response_model=schemas.SimilarItems, tags=["catalogue"])
    def similar_by_id(item_id: ItemInQuery, k: NumberOfItems = DEFAULT_K, name: ModelName = None) -> Response:
        """Return the items whose semantic IDs share the longest prefix with an item's; any id can be asked for."""
        model = registry.get(name).model
        item_index(model, item_id)
        neighbours = model.recommender.similar_items(item_id, k)
        return JsonResponse(
            {"items": [{**vars(item), "semantic_id": list(item.semantic_id)} for item in neighbours]}
        )

    @app.get(ITEMS + "{item_id:path}", response_model=schemas.Item, tags=["catalogue"])
    def item(item_id: ItemInPath, name: ModelName = None) -> Response:
        """Return an item with its text and semantic ID."""
        return item_by_id(item_id, name)

    @app.get("/v1/item", response_model=schemas.Item, tags=["catalogue"])
    def item_by_id(item_id: ItemInQuery, name: ModelName = None) -> Response:
        """Return an item with its text and semantic ID; any id can be asked for."""
        model = registry.get(name).model
        return JsonResponse(model.catalog_view.item(item_index(model, item_id)))

    @app.get("/v1/pictures/{name}", response_class=Response, tags=["catalogue"])
    def picture(name: str, request: Request) -> Response:
        """Return a picture of the folder that the service was given (`--pictures`)."""
        found = registry.pictures.read(name)
        if found is None:
            raise ApiError(404, "no_picture", "There is no such picture.")
        return found.response(request)

    @app.get(
        "/v1/map", response_model=schemas.Map, responses={202: {"model": schemas.Status}}, tags=["catalogue"]
    )
    def item_map(request: Request, name: ModelName = None) -> Response:
        """Return a place for every item; status 202 while it is being made, which the first request starts."""
        one = registry.get(name).model.item_map
        try:
            content = one.content()
        except Exception as error:  # it was logged when it happened
            raise ApiError(
                500, "map_failed", "The map could not be made; the log of the service says why."
            ) from error
        if content is None:
            return JsonResponse(
                {"status": "being made"}, 202, {"Retry-After": "1", "Cache-Control": "no-store"}
            )
        return content.response(request)

    def node_response(codes: list[int], page: int, page_size: int, name: str | None) -> Response:
        node = registry.get(name).model.catalog_view.node(codes, page, page_size)
        if node is None:
            raise ApiError(
                404,
                "unknown_prefix",
                f"No semantic ID starts with {reprlib.repr(codes)}: try a shorter prefix.",
            )
        return JsonResponse(node)

    @app.get("/v1/semantic-ids", response_model=schemas.SemanticIdNode, tags=["catalogue"])
    def root(page: PageNumber = 1, page_size: PageSize = 20, name: ModelName = None) -> Response:
        """Return the root of the semantic-ID tree: the first codes."""
        return node_response([], page, page_size, name)

    @app.get("/v1/semantic-ids/{prefix}", response_model=schemas.SemanticIdNode, tags=["catalogue"])
    def below(
        prefix: Annotated[str, Path(pattern=r"^[0-9]{1,9}(-[0-9]{1,9}){0,31}$", examples=["12-7"])],
        page: PageNumber = 1,
        page_size: PageSize = 20,
        name: ModelName = None,
    ) -> Response:
        """Return the node of a prefix: its next codes and its items."""
        return node_response([int(code) for code in prefix.split("-")], page, page_size, name)


def item_index(model: ServedModel, item_id: str) -> int:
    """An item's index. Raises ApiError (404) on an unknown id, and on that of a removed item."""
    try:
        item = int(model.recommender.catalog.id_map.indices([item_id])[0])
    except UnknownIdError as error:
        raise ApiError(404, "unknown_item", str(error)) from error
    if not model.recommender.available[item]:
        raise ApiError(404, "removed_item", f"Item {item_id[:100]!r} was removed from the catalogue.")
    return item


def add_changes(app: FastAPI, registry: ModelRegistry, config: ServiceConfig) -> None:
    """Add the routes that change the catalogue; they need the admin token."""

    async def changed(name: str | None, change: Callable[[Recommender], Recommender]) -> Response:
        try:
            with logged() as notes:
                model = (await registry.change(name, change)).model
        except UnknownIdError as error:
            raise ApiError(404, "unknown_item", str(error)) from error
        except ValueError as error:
            raise ApiError(422, "invalid_items", str(error)) from error
        except OSError as error:  # no encoder, a full disk
            LOG.error("items not changed", exc_info=error)
            raise ApiError(503, "not_changed", f"The items were not changed: {error}") from error
        version, n_items = model.recommender.version, model.n_items
        return JsonResponse({"model": model.name, "version": version, "n_items": n_items, "notes": notes})

    @app.post("/v1/items", response_model=schemas.CatalogueVersion, tags=["operate"])
    async def add_items(body: schemas.NewItems, request: Request) -> Response:
        """Add items to the catalogue; needs the admin token. The next request can be answered with them."""
        check_admin(request, config)
        items = [item.model_dump(exclude={"vector"}) for item in body.items]
        return await changed(body.model, lambda recommender: recommender.add_items(items, body.vectors()))

    @app.patch("/v1/items", response_model=schemas.CatalogueVersion, tags=["operate"])
    async def update_items(body: schemas.ItemUpdates, request: Request) -> Response:
        """Change what is said of items: title, text or fields; needs the admin token. Their semantic IDs stay."""
        check_admin(request, config)
        items = [item.model_dump(exclude_unset=True) for item in body.items]
        return await changed(body.model, lambda recommender: recommender.update_items(items))

    @app.delete(ITEMS + "{item_id:path}", response_model=schemas.CatalogueVersion, tags=["operate"])
    async def remove_item(item_id: ItemInPath, request: Request, name: ModelName = None) -> Response:
        """Remove an item; needs the admin token. It is never recommended again, and still read in histories."""
        return await remove_by_id(item_id, request, name)

    @app.delete("/v1/item", response_model=schemas.CatalogueVersion, tags=["operate"])
    async def remove_by_id(item_id: ItemInQuery, request: Request, name: ModelName = None) -> Response:
        """Remove an item, whatever its id is; needs the admin token."""
        check_admin(request, config)
        return await changed(name, lambda recommender: recommender.remove_items([item_id]))


def check_admin(request: Request, config: ServiceConfig) -> None:
    """Raise ApiError (403 or 401) unless a request has the admin token."""
    if not config.admin_token:
        raise ApiError(
            403,
            "admin_off",
            "The service was started without an admin token: change items with `rqrec items`, and reload it "
            "with SIGHUP.",
        )
    if not is_valid_token(bearer_token(request.scope), [config.admin_token]):
        raise ApiError(
            401,
            "unauthorized",
            "Send the admin token in the header `Authorization: Bearer TOKEN`.",
            {"WWW-Authenticate": "Bearer"},
        )


def add_operations(app: FastAPI, registry: ModelRegistry, config: ServiceConfig, metrics: Metrics) -> None:
    """Add the routes for operators: health, metrics, reload."""

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=schemas.Status, tags=["operate"])
    async def healthz() -> Response:
        """Report that the process is alive."""
        return JsonResponse({"status": "ok"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", response_model=schemas.Status, tags=["operate"])
    async def readyz() -> Response:
        """Report whether the service accepts requests."""
        if not registry.ready:
            raise ApiError(
                503, "not_ready", "The service is shutting down: send the request to another instance."
            )
        return JsonResponse({"status": "ok"})

    @app.get("/metrics", response_class=Response, tags=["operate"])
    def prometheus_metrics() -> Response:
        """Return the metrics in the Prometheus text format."""
        return Response(metrics.render(), media_type=metrics.content_type)

    @app.post("/admin/reload", response_model=schemas.Models, tags=["operate"])
    async def reload(request: Request) -> Response:
        """Reload the artefacts; needs the admin token. If one is invalid, the old models stay in use."""
        check_admin(request, config)
        await registry.reload()
        return JsonResponse(registry.describe())


def add_page(app: FastAPI, page: WebPage) -> None:
    """Add the web page and its static files."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return page.response(request, "index.html")

    @app.api_route("/static/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return page.response(request, name)


def add_docs(app: FastAPI) -> None:
    """Add the page that describes the API; it is made at the first request to each of the service's addresses."""

    @lru_cache(maxsize=8)
    def html(server: str) -> CachedContent:
        return CachedContent(api_page(app.openapi(), server).encode(), MEDIA_TYPES[".html"])

    style = CachedContent(STYLE.encode(), MEDIA_TYPES[".css"])

    @app.api_route("/docs", methods=["GET", "HEAD"], include_in_schema=False)
    def docs(request: Request) -> Response:
        host = request.headers.get("host") or "localhost"
        return html(f"{request.scope['scheme']}://{host}").response(request)

    @app.api_route("/docs/style.css", methods=["GET", "HEAD"], include_in_schema=False)
    async def docs_style(request: Request) -> Response:
        return style.response(request)


def not_allowed(error: dict[str, Any]) -> str:
    """The value that an error of pydantic is about, as words at the end of its message; empty if they don't fit."""
    value = error.get("input")
    says_it = error["type"] in ("value_error", "missing", "extra_forbidden")
    if says_it or not isinstance(value, str | int | float | bool | None):
        return ""
    text = json.dumps(value, ensure_ascii=False)
    return f", not {text}" if len(text) <= LONGEST_SHOWN else f", not {text[:LONGEST_SHOWN]}..."


def add_errors(app: FastAPI) -> None:
    """Add handlers that turn every failure into the one error shape."""

    @app.exception_handler(ApiError)
    async def handle_api_error(request: Request, error: ApiError) -> Response:
        return error_response(error, request.scope["request_id"])

    @app.exception_handler(HTTPException)
    async def handle_http_error(request: Request, error: HTTPException) -> Response:
        code = ERROR_CODES.get(error.status_code, "refused")
        message = f"{request.method} {request.url.path[:100]}: {error.detail}. See /docs for the routes."
        api_error = ApiError(error.status_code, code, message, error.headers)
        return error_response(api_error, request.scope["request_id"])

    @app.exception_handler(RequestValidationError)
    async def handle_invalid_request(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        location = ".".join(str(part)[:50] for part in first["loc"][1:]) or str(first["loc"][0])
        if first["type"] == "json_invalid":
            reason = str(first.get("ctx", {}).get("error", "error"))[:200]
            message = f"The body is not valid JSON: {reason} at character {location}."
            api_error = ApiError(400, "bad_json", message)
        elif (
            first["loc"] == ("body",)
            and "json" not in (media := request.headers.get("content-type", "")).lower()
        ):
            message = (
                f"The body is read with the header Content-Type: application/json only, not {media[:100]!r}."
            )
            api_error = ApiError(422, "invalid_request", message)
        else:
            reason = first["msg"].removeprefix("Value error, ").rstrip(".")[:400]
            api_error = ApiError(422, "invalid_request", f"{location}: {reason}{not_allowed(first)}.")
        return error_response(api_error, request.scope["request_id"])
