"""Firefox without a window, driven by WebDriver BiDi, which it speaks itself (https://w3c.github.io/webdriver-bidi/)."""

import contextlib
import itertools
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAMS = ("firefox-esr", "firefox")
READY = re.compile(r"WebDriver BiDi listening on (ws://\S+)")
PREFERENCES = {  # a proxy that does not exist: no request can leave the machine
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}


class Firefox:
    """A page in Firefox."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection, self._ids = connection, itertools.count()
        self._send("session.new", capabilities={})
        self._send("session.subscribe", events=["log.entryAdded"])
        self._page = self._send("browsingContext.create", type="tab")["context"]
        self.messages: list[str] = []  # of the console, with the errors of scripts and of the policy

    def open(self, url: str) -> None:
        """Open a URL, and wait until it is loaded."""
        self._send("browsingContext.navigate", context=self._page, url=url, wait="complete")

    def resize(self, width: int, height: int) -> None:
        """Give the page another size in CSS pixels."""
        self._send("browsingContext.setViewport", context=self._page, viewport={"width": width, "height": height})

    def evaluate(self, code: str) -> Any:
        """Return the value of JavaScript code, a text or a number; of a promise, the value that it gets."""
        answer = self._send("script.evaluate", expression=code, target={"context": self._page}, awaitPromise=True)
        if answer["type"] == "exception":
            raise AssertionError(answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def _send(self, method: str, **params: Any) -> Any:
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._connection.recv(timeout=60))).get("id") != number:
            if answer["method"] == "log.entryAdded":
                self.messages.append(answer["params"]["text"])
        if answer["type"] == "error":
            raise AssertionError(f"{method}: {answer['message']}")
        return answer["result"]


@contextlib.contextmanager
def launch_firefox() -> Iterator[Firefox]:
    """Start Firefox, which must be installed, with a new profile."""
    program = next(found for name in PROGRAMS if (found := shutil.which(name)))
    with tempfile.TemporaryDirectory() as profile:
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
        (Path(profile) / "user.js").write_text("".join(lines))
        command = [program, "--headless", "--remote-debugging-port", "0", "--profile", profile, "--no-remote"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            assert process.stderr is not None
            address = next(found[1] for line in process.stderr if (found := READY.search(line)))
            with connect(f"{address}/session", max_size=None) as connection:
                yield Firefox(connection)
        finally:
            process.terminate()
            process.wait()
