"""What happens when requests are too many, too slow, or given up: nobody else waits for them."""

import contextlib
import dataclasses
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from live_server import TOKEN, LiveServer, start_server

from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import Limits

ONE_AT_A_TIME = Limits(requests=1, max_tokens=10**8)
PATIENCE = 60.0  # seconds until a test gives up
ENDLESS = {"model": "chars", "prompt": "a", "max_tokens": 10**8, "stream": True}


@pytest.fixture(scope="module")
def narrow(served_folder: Path) -> Iterator[LiveServer]:
    """A server that computes one request at a time."""
    with start_server(ServedRuns(folder=served_folder), ONE_AT_A_TIME) as live:
        live.post("/v1/completions", model="chars", prompt="a", max_tokens=1)  # loads the run
        yield live


def send_endless_request(server: LiveServer, stream: bool = True) -> socket.socket:
    """Ask for a text without end by a plain socket, and wait for the beginning of a streamed answer."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    body = json.dumps({**ENDLESS, "stream": stream}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    if stream:
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
    return connection


def ask_shortly(server: LiveServer) -> httpx.Response:
    return server.post("/v1/completions", model="chars", prompt="a", max_tokens=1)


def wait_until(is_true: Callable[[], bool]) -> None:
    """Try again and again; fail after PATIENCE."""
    end = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < end, "it never came true"


def test_a_request_more_than_the_limit_is_refused_and_told_to_come_back(narrow: LiveServer) -> None:
    with closing(send_endless_request(narrow)):
        answer = ask_shortly(narrow)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
        assert narrow.client.get("/v1/models").status_code == 200  # reading needs no place
    wait_until(lambda: ask_shortly(narrow).status_code == 200)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_place(narrow: LiveServer, stream: bool) -> None:
    with contextlib.ExitStack() as connections:

        def is_taken() -> bool:
            # a short request may have had the place when the endless one came: send that one again
            connections.enter_context(closing(send_endless_request(narrow, stream)))
            return ask_shortly(narrow).status_code == 503

        wait_until(is_taken)
    wait_until(lambda: ask_shortly(narrow).status_code == 200)


def test_a_client_that_does_not_read_blocks_nobody(served_folder: Path) -> None:
    limits = dataclasses.replace(ONE_AT_A_TIME, requests=2)
    with start_server(ServedRuns(folder=served_folder), limits) as server, closing(send_endless_request(server)):
        for _ in range(20):
            assert ask_shortly(server).status_code == 200


def test_a_request_that_takes_too_long_ends_with_an_error(served_folder: Path) -> None:
    limits = dataclasses.replace(ONE_AT_A_TIME, seconds=1.0)
    with start_server(ServedRuns(folder=served_folder), limits) as server:
        plain = server.post("/v1/completions", **{**ENDLESS, "stream": False})
        assert (plain.status_code, plain.json()["error"]["code"]) == (503, "timeout")
        events = server.stream("/v1/completions", **ENDLESS)
        assert events[0]["choices"][0]["text"] and events[-1]["error"]["code"] == "timeout"


def test_a_body_that_does_not_arrive_is_given_up(served_folder: Path) -> None:
    with start_server(ServedRuns(folder=served_folder), Limits(body_seconds=0.2)) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n".encode() + b"{")
            assert connection.recv(100).startswith(b"HTTP/1.1 408")


def test_a_server_that_stops_ends_its_streams_in_order(served_folder: Path) -> None:
    with start_server(ServedRuns(folder=served_folder), ONE_AT_A_TIME) as server:
        with server.client.stream("POST", "/v1/completions", json=ENDLESS) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            server.stop()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "stopping"
