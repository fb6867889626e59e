"""Who may call the server. Each class is an ASGI application around another one, so that it sees every request first.

A page of another site can send requests to a server on this machine, and can point a name of its own at the address
127.0.0.1 (DNS rebinding, as in CVE-2024-28224). So a request must have a Host header that such a page cannot have, must
not come from another site's page, and must bring the token.
"""

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from minigpt.web.api_errors import ApiError
from minigpt.web.settings import Limits

API_PATHS = ("/v1/", "/api/")
UPLOAD_PATH = "/api/v1/texts"
READING_METHODS = ("GET", "HEAD")
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_api_path(path: str) -> bool:
    """Return True for a path of an API; the others are files of the page, which hold no data."""
    return path.startswith(API_PATHS)


def is_allowed_host(host: str, allowed_names: Collection[str]) -> bool:
    """Return True for a Host header that DNS rebinding cannot produce.

    Args:
        host: the header: an IP address or a name, perhaps with a port.
        allowed_names: names, besides localhost, by which the server may be called.
    """
    try:
        name = urlsplit(f"//{host}").hostname
        urlsplit(f"//{host}").port  # noqa: B018 (raises ValueError for a port that is none)
    except ValueError:
        return False
    if not name or any(character in host for character in "/?#@\\ "):
        return False
    if name == "localhost" or name in {each.lower() for each in allowed_names}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class HostCheck:
    """Refuses a request whose Host header is neither an IP address nor an allowed name, with 403."""

    def __init__(self, app: ASGIApp, allowed_names: Collection[str]) -> None:
        self._app, self._allowed_names = app, allowed_names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            hosts = Headers(scope=scope).getlist("host")
            if len(hosts) != 1 or not is_allowed_host(hosts[0], self._allowed_names):
                host = repr(hosts[0][:100]) if hosts else "none"
                message = f"the host must be an IP address, localhost or a name given by --allow-host, not {host}"
                await ApiError(403, message, code="host_not_allowed").to_response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class OriginCheck:
    """Refuses a request from a page of another site, with 403.

    A browser names the page's site in the Origin header of every request that can change something.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin, own = headers.get("origin"), f"{scope['scheme']}://{headers.get('host', '')}"
            if origin is not None and origin != own:
                message = f"a page of {origin[:100]!r} may not use this server: open the playground's own page"
                await ApiError(403, message, code="origin_not_allowed").to_response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class TokenCheck:
    """Refuses a request to an API that does not bring the token, with 401."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and is_api_path(scope["path"]):
            scheme, _, sent = Headers(scope=scope).get("authorization", "").partition(" ")
            is_right = hmac.compare_digest(sent.strip().encode(), self._token)
            if scheme.lower() != "bearer" or not is_right:
                message = "the token is missing or wrong: send that of the server's URL as 'Authorization: Bearer …'"
                error = ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
                await error.to_response()(scope, receive, send)
                return
        await self._app(scope, receive, send)


class BodyLimit:
    """Refuses a body that is too large, with 413, before or while it arrives. An upload has a limit of its own."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._limits.upload_bytes if scope["path"] == UPLOAD_PATH else self._limits.body_bytes
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > most:
            await _refuse_size(most).to_response()(scope, receive, send)
            return
        received = 0

        async def receive_part() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                raise _refuse_size(most)
            return message

        await self._app(scope, receive_part, send)


def _refuse_size(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most:,} bytes: send less", code="body_too_large")


class SafeHeaders:
    """Adds the headers of SECURITY_HEADERS to every answer. No answer allows another site's page to read it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
                headers["Cache-Control"] = "no-store" if is_api_path(scope["path"]) else "no-cache"
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)
