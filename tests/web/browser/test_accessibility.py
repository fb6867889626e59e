"""axe-core finds nothing to complain about. It comes from the npm registry, once, and stays in the user's cache."""

import shutil
import subprocess
import tarfile
from pathlib import Path

import platformdirs
import pytest
from browser import Site

from .test_page import VIEWS, fill_views

pytestmark = [pytest.mark.browser, pytest.mark.long]
PACKAGE = "axe-core@4.14.1"


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    cache = Path(platformdirs.user_cache_dir("minigpt-tests"))
    archive = cache / f"{PACKAGE.replace('@', '-')}.tgz"
    if not archive.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.fail("the tests of accessibility need npm, which fetches axe-core: install Node.js", pytrace=False)
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run([npm, "pack", PACKAGE], cwd=cache, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            pytest.fail(f"npm cannot fetch {PACKAGE}, which the tests need: {done.stderr[-500:]}", pytrace=False)
    with tarfile.open(archive) as files:
        source = files.extractfile("package/axe.min.js")
        assert source
        return source.read().decode()


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (360, "dark")])
def test_axe_finds_no_violation_in_any_view(open_page, site: Site, axe: str, width: int, scheme: str) -> None:
    page = open_page(site, width, color_scheme=scheme, reduced_motion="reduce")
    fill_views(page)
    page.evaluate(axe)
    for name in VIEWS:
        page.get_by_role("tab", name=name).click()
        found = page.evaluate("axe.run(document)")
        violations = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
        assert violations == [], name
