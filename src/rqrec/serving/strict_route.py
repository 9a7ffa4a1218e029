"""Routes that take nothing they do not know: bodies are strict JSON, and other parameters are refused."""

from collections.abc import Callable, Coroutine, Sequence
from json import JSONDecodeError
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from rqrec.core import strict_json
from rqrec.serving.errors import ApiError
from rqrec.serving.middleware import API


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            return strict_json.loads(body)
        except UnicodeDecodeError as error:
            raise JSONDecodeError("text that is not UTF-8", "", error.start) from error
        except RecursionError as error:
            raise JSONDecodeError("too many brackets within each other", "", 0) from error


class StrictRoute(APIRoute):
    """A route that reads its body by `rqrec.core.strict_json`, and below `API` refuses parameters that it lacks."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, with such a request in place of the given one."""
        handle = super().get_route_handler()
        known = [field.alias for field in self.dependant.query_params]

        async def strict(request: Request) -> Response:
            if self.path.startswith(API):
                _check_parameters(request, known)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict


def _check_parameters(request: Request, known: Sequence[str]) -> None:
    """Raise ApiError (422) on a parameter that the route does not have: it would make no difference."""
    for name in request.query_params:
        if name not in known:
            has = f"the parameters {', '.join(known)}" if known else "no parameters"
            raise ApiError(
                422,
                "unknown_parameter",
                f"{request.method} {request.url.path[:100]} has {has}; {name[:100]!r} is none: leave it out.",
            )
