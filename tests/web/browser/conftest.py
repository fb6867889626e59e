"""What the tests of the page share: a browser, served runs, and a page that must stay without errors."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import BrowserNotFoundError, Site, launch_browser, serve_folder
from playground_runs import make_runs
from playwright.sync_api import Browser, Page, expect

from minigpt.runs.run import Run

PATIENCE = 20_000  # milliseconds: the first answer of a model may wait for its compiled loops
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    try:
        with launch_browser() as browser:
            yield browser
    except BrowserNotFoundError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def small_site(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with one run, `trained`, and its n-gram model."""
    folder = tmp_path_factory.mktemp("small_site")
    shutil.copytree(trained.path, folder / "trained")
    with serve_folder(folder) as site:
        yield site


@pytest.fixture(scope="session")
def site(trained: Run, text_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with runs of several kinds."""
    folder = tmp_path_factory.mktemp("site")
    make_runs(folder, trained, text_file)
    with serve_folder(folder) as site:
        yield site


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Return a function that opens a site's page. At the end, no page may have had an error or asked another host.

    The browser reports a request that the server refused as an error. A page with `may_be_refused` may have these.
    """
    problems: list[str] = []
    contexts = []
    expect.set_options(timeout=PATIENCE)

    def open_site(site: Site, width: int = 1440, may_be_refused: bool = False, **settings: Any) -> Page:
        context = chromium.new_context(viewport={"width": width, "height": 900}, **settings)
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        host = urlsplit(site.address).netloc

        def check_console(text: str) -> None:
            if not (may_be_refused and "status of 400" in text):
                problems.append(f"console: {text}")

        def check_host(url: str) -> None:
            if urlsplit(url).netloc != host:
                problems.append(f"asked for {url}")

        page.on("console", lambda message: check_console(message.text))
        page.on("pageerror", lambda error: problems.append(f"error: {error}"))
        page.on("dialog", lambda dialog: problems.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: check_host(request.url))
        page.goto(site.url)
        expect(page.locator("#views")).to_be_visible()
        return page

    yield open_site
    for context in contexts:
        context.close()
    assert problems == []
