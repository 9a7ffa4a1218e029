"""The HTTP service: routes over the models."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from rqrec import __version__
from rqrec.data.ids import UnknownIdError
from rqrec.serving import schemas
from rqrec.serving.batcher import QueueFullError
from rqrec.serving.errors import ApiError, Json, error_response, later
from rqrec.serving.metrics import Metrics
from rqrec.serving.middleware import AuthMiddleware, RequestLogging, bearer, same_token
from rqrec.serving.model_registry import Asked, Model, ModelRegistry, Options
from rqrec.serving.page import Page
from rqrec.serving.settings import Settings

ModelName = Annotated[str | None, Query(alias="model", max_length=1000, description="Of /v1/models.")]
PageNumber = Annotated[int, Query(ge=1, le=1_000_000)]
PageSize = Annotated[int, Query(ge=1, le=100)]
ItemId = Annotated[str, Path(max_length=1000)]
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": schemas.ErrorBody, "description": "It cannot be answered as it is: see the message."},
    "5XX": {"model": schemas.ErrorBody, "description": "The service cannot answer now."},
    422: {"model": schemas.ErrorBody, "description": "A value is not allowed: see the message."},
}
CODES = {404: "not_found", 405: "method_not_allowed", 400: "bad_json"}


def create_app(
    fleet: ModelRegistry, settings: Settings, metrics: Metrics, page: Page | None = None
) -> FastAPI:
    """The service over a fleet, which it closes at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(fleet.close)

    app = FastAPI(
        title="rqrec",
        version=__version__,
        description="Recommendations by generating semantic IDs. Where the service asks for a token, send it "
        "in the header `Authorization: Bearer TOKEN`.",
        docs_url=None,  # its page loads scripts of another host
        redoc_url=None,
        responses=ERRORS,
        lifespan=lifespan,
    )
    add_recommendations(app, fleet, settings)
    add_catalogue(app, fleet)
    add_operations(app, fleet, settings, metrics)
    add_page(app, page or Page())
    add_errors(app)
    app.add_middleware(AuthMiddleware, settings=settings)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allow_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(RequestLogging, metrics=metrics)
    return app


def add_recommendations(app: FastAPI, fleet: ModelRegistry, settings: Settings) -> None:
    """The route that recommends."""

    @app.post("/v1/recommendations", response_model=schemas.RecommendationAnswer, tags=["recommend"])
    async def recommendations(body: schemas.RecommendationRequest, request: Request) -> Response:
        """The next items for one history or several."""
        model, batcher = fleet.get(body.model)
        asked = body.asked()
        check_request(body, asked, model, settings)
        options = Options(
            body.k,
            body.exclude_seen,
            None if body.allow is None else tuple(body.allow),
            None if body.block is None else tuple(body.block),
            body.max_per_code,
            body.explain,
        )
        request.scope["facts"] = {"model": model.name, "histories": len(asked)}
        try:
            future = asyncio.wrap_future(batcher.submit(options, asked))
        except QueueFullError as error:
            raise later("busy", "More requests came than this service can answer.", error.seconds) from error
        try:
            async with asyncio.timeout(settings.timeout):
                answers = await future
        except TimeoutError as error:
            raise ApiError(
                504, "timeout", f"No answer within {settings.timeout:g} s: ask for less, or later."
            ) from error
        return Json({"model": model.name, "recommendations": answers})


def check_request(
    body: schemas.RecommendationRequest, asked: list[Asked], model: Model, settings: Settings
) -> None:
    """Refuse a request that is too much, or of unknown ids where it does not skip them."""
    histories = [one.items for one in asked]
    if len(histories) > settings.max_histories:
        raise ApiError(
            422,
            "too_many_histories",
            f"{len(histories)} histories came, and {settings.max_histories} are allowed: send several requests.",
        )
    longest = max(map(len, histories), default=0)
    if longest > settings.max_history:
        raise ApiError(
            422,
            "long_history",
            f"A history has {longest} items, and {settings.max_history} are allowed: send the most recent ones.",
        )
    if model.needs_timestamps and any(one.timestamps is None for one in asked):
        raise ApiError(
            422,
            "no_timestamps",
            f"{model.name} looks at when items were taken: send timestamps, unix seconds.",
        )
    if body.unknown == "raise":
        for ids in (*histories, body.allow or (), body.block or ()):
            try:
                model.recommender.catalog.id_map.indices(ids)
            except UnknownIdError as error:
                raise ApiError(422, "unknown_item", f'{error} Or send "unknown": "skip".') from error


def add_catalogue(app: FastAPI, fleet: ModelRegistry) -> None:
    """The routes that show models, users, items and semantic IDs. Their functions run in threads."""

    @app.get("/v1/models", response_model=schemas.Models, tags=["catalogue"])
    def models() -> Response:
        """The served models."""
        return Json(fleet.facts())

    @app.get("/v1/users", response_model=schemas.Users, tags=["catalogue"])
    def users(name: ModelName = None) -> Response:
        """A few users of the model's dataset, to try."""
        return Json({"users": fleet.get(name).model.users})

    @app.get("/v1/items", response_model=schemas.ItemPage, tags=["catalogue"])
    def items(
        query: Annotated[str, Query(max_length=200, examples=["toy st"])] = "",
        page: PageNumber = 1,
        page_size: PageSize = 20,
        name: ModelName = None,
    ) -> Response:
        """All items, or those in whose title or id each word of the query starts a word."""
        return Json(fleet.get(name).model.browser.items(query, page, page_size))

    @app.get("/v1/items/{item_id:path}/similar", response_model=schemas.SimilarItems, tags=["catalogue"])
    def similar(
        item_id: ItemId, k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 10, name: ModelName = None
    ) -> Response:
        """The items that share the most of an item's semantic ID."""
        model = fleet.get(name).model
        item_index(model, item_id)
        found = model.recommender.similar_items(item_id, k)
        return Json({"items": [{**vars(item), "semantic_id": list(item.semantic_id)} for item in found]})

    @app.get("/v1/items/{item_id:path}", response_model=schemas.Item, tags=["catalogue"])
    def item(item_id: ItemId, name: ModelName = None) -> Response:
        """An item."""
        model = fleet.get(name).model
        return Json(model.browser.item(item_index(model, item_id)))

    def node(codes: list[int], page: int, page_size: int, name: str | None) -> Response:
        found = fleet.get(name).model.browser.semantic_ids(codes, page, page_size)
        if found is None:
            raise ApiError(
                404, "unknown_prefix", "No semantic ID starts with these codes: try a shorter prefix."
            )
        return Json(found)

    @app.get("/v1/semantic-ids", response_model=schemas.SemanticIdNode, tags=["catalogue"])
    def root(page: PageNumber = 1, page_size: PageSize = 20, name: ModelName = None) -> Response:
        """The tree of semantic IDs: its first codes."""
        return node([], page, page_size, name)

    @app.get("/v1/semantic-ids/{prefix}", response_model=schemas.SemanticIdNode, tags=["catalogue"])
    def below(
        prefix: Annotated[str, Path(pattern=r"^[0-9]{1,9}(-[0-9]{1,9}){0,31}$", examples=["12-7"])],
        page: PageNumber = 1,
        page_size: PageSize = 20,
        name: ModelName = None,
    ) -> Response:
        """What is below a prefix of codes."""
        return node([int(code) for code in prefix.split("-")], page, page_size, name)


def item_index(model: Model, item_id: str) -> int:
    """An item's index, or status 404."""
    try:
        return int(model.recommender.catalog.id_map.indices([item_id])[0])
    except UnknownIdError as error:
        raise ApiError(404, "unknown_item", str(error)) from error


def add_operations(app: FastAPI, fleet: ModelRegistry, settings: Settings, metrics: Metrics) -> None:
    """The routes for those who run the service."""

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", response_model=schemas.Status, tags=["operate"])
    async def healthz() -> Response:
        """Whether the process answers."""
        return Json({"status": "ok"})

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", response_model=schemas.Status, tags=["operate"])
    async def readyz() -> Response:
        """Whether it takes requests."""
        if not fleet.ready:
            raise ApiError(503, "not_ready", "The service is stopping: ask another one.")
        return Json({"status": "ok"})

    @app.get("/metrics", response_class=Response, tags=["operate"])
    def figures() -> Response:
        """Figures for Prometheus."""
        return Response(metrics.text(), media_type=metrics.content_type)

    @app.post("/admin/reload", response_model=schemas.Models, tags=["operate"])
    async def reload(request: Request) -> Response:
        """Read the artefacts again. Needs the admin token; a broken one is refused, and the old ones stay."""
        if not settings.admin_token:
            raise ApiError(
                403, "admin_off", "The service was started without an admin token: send it SIGHUP."
            )
        if not same_token(bearer(request.scope), [settings.admin_token]):
            raise ApiError(
                401,
                "unauthorized",
                "Send the admin token in the header `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )
        await fleet.reload()
        return Json(fleet.facts())


def add_page(app: FastAPI, page: Page) -> None:
    """The web page."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    async def index(request: Request) -> Response:
        return page.answer(request, "index.html")

    @app.api_route("/static/{name:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def static(name: str, request: Request) -> Response:
        return page.answer(request, name)


def add_errors(app: FastAPI) -> None:
    """Every failure in the one shape."""

    @app.exception_handler(ApiError)
    async def told(request: Request, error: ApiError) -> Response:
        return error_response(error, request.scope["request_id"])

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, "refused")
        sentence = (
            f"{request.method} {request.url.path[:100]}: {error.detail}. /openapi.json has what there is."
        )
        found = ApiError(error.status_code, code, sentence, error.headers)
        return error_response(found, request.scope["request_id"])

    @app.exception_handler(RequestValidationError)
    async def of_values(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(place)[:50] for place in first["loc"][1:]) or str(first["loc"][0])
        sentence = f"{where}: {first['msg']}."[:500]
        if first["type"] == "json_invalid":
            found = ApiError(400, "bad_json", f"The body is not valid JSON, from character {where} on.")
        else:
            found = ApiError(422, "invalid_request", sentence)
        return error_response(found, request.scope["request_id"])
