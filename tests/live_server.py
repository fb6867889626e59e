"""The server's application under uvicorn, in a thread of the test's process and on a free port."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from minigpt.web.app import build_app
from minigpt.web.served_runs import ServedRuns
from minigpt.web.server import Server, bind_address, format_url
from minigpt.web.settings import Limits, ServerSettings

TOKEN = "a-token-for-the-tests"


class LiveServer:
    """A server that runs.

    Attributes:
        url: its address.
        client: a client that sends the token.
        stop: tells the server to stop; it ends its answers first.
    """

    def __init__(self, url: str, stop: Callable[[], None]) -> None:
        self.url, self.stop = url, stop
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60)

    def post(self, path: str, **fields: Any) -> httpx.Response:
        return self.client.post(path, json=fields)

    def stream(self, path: str, **fields: Any) -> list[Any]:
        """Return the events of a streamed answer, the last one `[DONE]` left out."""
        with self.client.stream("POST", path, json={**fields, "stream": True}) as answer:
            assert answer.status_code == 200, answer.read()
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert lines[-1] == "[DONE]"
        return [json.loads(line) for line in lines[:-1]]


@contextlib.contextmanager
def run_server(runs: ServedRuns, settings: ServerSettings) -> Iterator[tuple[str, Server]]:
    """Run a server in a thread during the block, on a free port. Yields its address, which ends with "/"."""
    with contextlib.closing(bind_address("127.0.0.1", 0)) as listener:
        server = Server(build_app(runs, settings), settings.limits)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield format_url(listener), server
        finally:
            server.stop()
            thread.join()


@contextlib.contextmanager
def start_server(runs: ServedRuns, limits: Limits = Limits()) -> Iterator[LiveServer]:  # noqa: B008 (immutable)
    """Start a server; it stops at the end of the block."""
    settings = ServerSettings(token=TOKEN, limits=limits, allowed_hosts=("my.host",))
    with run_server(runs, settings) as (url, server):
        live = LiveServer(url.removesuffix("/"), server.stop)
        with live.client:
            yield live
