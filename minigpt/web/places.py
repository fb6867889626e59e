"""Limit how many requests are computed at once, and for how long."""

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from minigpt.web.api_errors import ApiError
from minigpt.web.security import READING_METHODS, is_api_path
from minigpt.web.settings import Limits

GRACE = 5.0  # seconds after which a request is cut that should have ended by itself


class Places:
    """Gives each request that computes one of a few places, and refuses it with 503 if none is free.

    A place is free again when its request has been answered, or when the client has hung up. A client that reads too
    slowly loses its place when its time is over.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self.taken = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["method"] in READING_METHODS or not is_api_path(scope["path"]):
            await self._app(scope, receive, send)
            return
        if self.taken >= self._limits.requests:
            message = f"the server computes {self.taken} requests, its limit: try again in a moment"
            error = ApiError(503, message, code="overloaded", headers={"Retry-After": "1"})
            await error.to_response()(scope, receive, send)
            return
        self.taken += 1
        try:
            async with asyncio.timeout(self._limits.seconds + GRACE):
                await self._app(scope, receive, send)
        finally:
            self.taken -= 1
