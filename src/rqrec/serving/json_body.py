"""Bodies of requests: an object that repeats a name is refused."""

from collections.abc import Callable, Coroutine
from json import JSONDecodeError
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from rqrec.core import strict_json


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        try:
            return strict_json.loads(body)
        except UnicodeDecodeError as error:
            raise JSONDecodeError("text that is not UTF-8", "", error.start) from error
        except RecursionError as error:
            raise JSONDecodeError("too many brackets within each other", "", 0) from error


class StrictJsonRoute(APIRoute):
    """A route that reads its body by `rqrec.core.strict_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, with such a request in place of the given one."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
