"""Run the application: bind the address, print the URL, and stop in order."""

import contextlib
import ipaddress
import logging
import socket
import threading
import webbrowser

import uvicorn
from starlette.applications import Starlette

from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, MinigptError
from minigpt.web.app import build_app
from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import ServerSettings

STOP_SECONDS = 5  # time in which open answers must end after a signal
WARM_UP_TOKENS = 1000  # enough that the compiled loops are used and loaded
logger = logging.getLogger(__name__)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and ends the streamed answers before it stops."""

    def __init__(self, config: uvicorn.Config, app: Starlette, url: str, opens_browser: bool) -> None:
        super().__init__(config)
        self._app, self._url, self._opens_browser = app, url, opens_browser

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, print the URL on standard output, and open the browser."""
        await super().startup(sockets)
        print(self._url, flush=True)
        if self._opens_browser:
            threading.Thread(target=webbrowser.open, args=(self._url,), daemon=True).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streamed answers, each with an event that says so, then stop."""
        self._app.state.context.scheduler.stop()
        await super().shutdown(sockets)


def serve(runs: ServedRuns, settings: ServerSettings, opens_browser: bool = True) -> None:
    """Serve runs until a signal comes: Ctrl-C raises KeyboardInterrupt, SIGTERM ends the program by its own handler.

    Args:
        runs: the runs.
        settings: the address, the token and the limits.
        opens_browser: whether to open the playground.

    Raises:
        ConfigError: the address cannot be used.
    """
    listener = bind_address(settings.host, settings.port)
    with contextlib.closing(listener):
        _warm_up(runs)
        app = build_app(runs, settings)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=settings.limits.connections,
            timeout_graceful_shutdown=STOP_SECONDS,
            proxy_headers=False,
        )
        url = f"{format_url(listener)}#token={settings.token}"
        if not is_loopback(settings.host):
            logger.warning(
                "whoever can reach %s and has the token can use this server, and the connection is not encrypted",
                settings.host,
            )
        _Server(config, app, url, opens_browser).run(sockets=[listener])


def bind_address(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address.

    Raises:
        ConfigError: the host is not one of this machine's, or the port is taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=256)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"cannot listen on {host!r}, port {port}: {reason}; choose another --host or --port"
        ) from None


def format_url(listener: socket.socket) -> str:
    """Return the URL of a listening socket; of one that listens on every address, that of this machine."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    return f"http://{f'[{address}]' if address.version == 6 else address}:{port}/"


def is_loopback(host: str) -> bool:
    """Return True for an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _warm_up(runs: ServedRuns) -> None:
    """Generate a text with the first run, so that the first request need not wait for weights and compiled loops."""
    try:
        run = runs.open(runs.list_names()[0])
        list(run.stream_ids(run.encode_prompt(""), SamplingConfig(WARM_UP_TOKENS, seed=0)))
    except MinigptError as error:
        logger.warning("%s", error)  # the other runs can be served
