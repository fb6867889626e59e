"""Run the application: bind the address, print the URL, and stop in order."""

import contextlib
import ipaddress
import logging
import socket
import threading
import webbrowser
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette

from minigpt.config import SamplingConfig
from minigpt.errors import ConfigError, MinigptError
from minigpt.web.app import build_app
from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import Limits, ServerSettings

STOP_SECONDS = 5  # time in which open answers must end after a signal
WARM_UP_TOKENS = 1000  # enough that the compiled loops are used and loaded
logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready, and ends the streamed answers before it stops."""

    def __init__(self, app: Starlette, limits: Limits, announce: Callable[[], None] = lambda: None) -> None:
        """Prepare to serve an application of `build_app`; `announce` is called when the server answers."""
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=STOP_SECONDS,
            proxy_headers=False,
        )
        super().__init__(config)
        self._app, self._announce = app, announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and announce it."""
        await super().startup(sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streamed answers, each with an event that says so, then stop."""
        self._app.state.context.scheduler.stop()
        await super().shutdown(sockets)

    def stop(self) -> None:
        """Make `run` return soon. Any thread may call this."""
        self.should_exit = True


def serve(runs: ServedRuns, settings: ServerSettings, opens_browser: bool = True) -> None:
    """Serve runs until a signal comes: Ctrl-C raises KeyboardInterrupt, SIGTERM ends the program by its own handler.

    Args:
        runs: the runs.
        settings: the address, the token and the limits.
        opens_browser: whether to open the playground.

    Raises:
        ConfigError: the address cannot be used.
    """
    with contextlib.closing(bind_address(settings.host, settings.port)) as listener:
        _warm_up(runs)
        if not is_loopback(settings.host):
            logger.warning(
                "whoever can reach %s and has the token can use this server, and the connection is not encrypted",
                settings.host,
            )
        url = f"{format_url(listener)}#token={settings.token}"

        def announce() -> None:
            print(url, flush=True)
            if opens_browser:
                threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

        Server(build_app(runs, settings), settings.limits, announce).run(sockets=[listener])


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
    names = runs.list_names()
    if not names:
        logger.warning("there is no run here yet: train one on the page, or with minigpt train")
        return
    try:
        run = runs.open(names[0])
        list(run.stream_ids(run.encode_prompt(""), SamplingConfig(WARM_UP_TOKENS, seed=0)))
    except MinigptError as error:
        logger.warning("%s", error)  # the other runs can be served
