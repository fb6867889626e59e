"""Whom the server answers: host, origin, token, and the size of a request."""

import http.client
import json

import httpx
import pytest
from live_server import TOKEN, LiveServer

from minigpt.web.security import is_allowed_host

PATHS = ["/", "/v1/models", "/api/v1/runs", "/static/main.js"]


RIGHT_HOSTS = ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]:8000", "192.168.1.5", "my.host"]
WRONG_HOSTS = [
    "",
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost:x",
    "localhost:99999",
    "[::1",
    "user@localhost",
    "localhost/path",
    "localhost#",
    "127.0.0.1 evil",
    "my.host.",
    "0x7f.1",
]


@pytest.mark.parametrize("host", RIGHT_HOSTS)
def test_ip_addresses_and_allowed_names_are_hosts(host: str) -> None:
    assert is_allowed_host(host, ["My.Host"])


@pytest.mark.parametrize("host", WRONG_HOSTS)
def test_other_names_are_none(host: str) -> None:
    assert not is_allowed_host(host, ["my.host"])


@pytest.mark.parametrize("path", PATHS)
def test_a_rebound_name_is_refused(server: LiveServer, path: str) -> None:
    answer = server.client.get(path, headers={"Host": "evil.example"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_not_allowed")


def test_an_allowed_name_is_answered(server: LiveServer) -> None:
    assert server.client.get("/v1/models", headers={"Host": "my.host"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://{own}", "http://{own}.evil.example"])
def test_a_page_of_another_site_is_refused(server: LiveServer, origin: str) -> None:
    own = server.url.removeprefix("http://")
    headers = {"Origin": origin.format(own=own), "Content-Type": "text/plain"}
    answer = server.client.post("/v1/completions", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_the_own_page_is_answered(server: LiveServer) -> None:
    headers = {"Origin": server.url}
    fields = {"model": "chars", "prompt": "a", "max_tokens": 1}
    assert server.client.post("/v1/completions", json=fields, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x"]
)
@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/runs", "/v1/nothing", "/api/v1/runs/chars/metrics"])
def test_without_the_token_the_apis_answer_nothing(server: LiveServer, path: str, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    answer = httpx.get(server.url + path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_a_body_that_is_too_large_is_refused(server: LiveServer) -> None:
    answer = server.client.post("/v1/completions", content=b" " * (2**20 + 1))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_body_of_unknown_length_is_refused_once_it_is_too_large(server: LiveServer) -> None:
    answer = server.client.post("/v1/completions", content=(b" " * 2**16 for _ in range(20)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")


def test_a_prompt_that_is_too_long_is_refused(server: LiveServer) -> None:
    answer = server.post("/v1/completions", model="chars", prompt="a" * 100_001)
    assert (answer.status_code, answer.json()["error"]["param"]) == (413, "prompt")


@pytest.mark.parametrize("path", [*PATHS, "/nothing"])
def test_every_answer_has_the_headers_that_keep_other_sites_out(server: LiveServer, path: str) -> None:
    headers = server.client.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"
    assert not [name for name in headers if name.lower().startswith("access-control")]
    assert ("no-store" in headers["Cache-Control"]) == path.startswith(("/v1", "/api"))


def test_a_browser_s_question_for_permission_is_not_granted(server: LiveServer) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = server.client.options("/v1/completions", headers=headers)
    assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["../app.py", "%2e%2e/app.py", "..%2fapp.py", "/etc/passwd", "..", "../../config.py"])
def test_no_path_leads_out_of_the_page_s_folder(server: LiveServer, path: str) -> None:
    # http.client sends a path as it is; httpx and browsers shorten it first
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.request("GET", f"/static/{path}")
    assert connection.getresponse().status == 404
    connection.close()


def test_an_error_is_json_in_openai_s_form(server: LiveServer) -> None:
    for answer in (server.client.get("/v1/nothing"), server.client.get("/v1/completions")):
        assert set(json.loads(answer.content)["error"]) == {"message", "type", "param", "code"}
    assert (
        server.client.get("/v1/nothing").status_code == 404 and server.client.get("/v1/completions").status_code == 405
    )
