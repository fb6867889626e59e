"""A browser and a server for the playground's page, for the tests in web/browser and for docs/screenshots.py."""

import contextlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live_server import run_server
from playwright.sync_api import Browser, sync_playwright

from minigpt.web.served_runs import ServedRuns
from minigpt.web.settings import ServerSettings

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class BrowserNotFoundError(Exception):
    """This machine has no browser for the tests."""


@dataclass(frozen=True)
class Site:
    """A running server.

    Attributes:
        address: the address of the page, without the token.
        token: the token.
    """

    address: str
    token: str

    @property
    def url(self) -> str:
        """The address with the token, as `minigpt serve` prints it."""
        return f"{self.address}#token={self.token}"

    def ask(self, path: str, **fields: Any) -> Any:
        """Return the answer of the API to a request with these fields, or to a GET request without fields."""
        request = urllib.request.Request(f"{self.address}api/v1/{path}")
        request.add_header("Authorization", f"Bearer {self.token}")
        body = json.dumps(fields).encode() if fields else None
        with urllib.request.urlopen(request, body) as answer:
            return json.load(answer)


@contextlib.contextmanager
def serve_folder(folder: Path) -> Iterator[Site]:
    """Serve the runs of a folder on a free port."""
    settings = ServerSettings()
    with run_server(ServedRuns(folder=folder), settings) as (url, _):
        yield Site(url, settings.token)


@contextlib.contextmanager
def launch_browser() -> Iterator[Browser]:
    """Start an installed Chromium, without a window.

    Raises:
        BrowserNotFoundError: there is none.
    """
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        raise BrowserNotFoundError(
            "the tests of the playground's page need Chromium: install it, on Debian with apt-get install chromium"
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
