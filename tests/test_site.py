"""The parts of the site's build: links, the API reference, the offline model, and nothing from other hosts."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "site"))

import api_pages  # noqa: E402
import build  # noqa: E402
from site_checks import find_requests_to_other_hosts  # noqa: E402


def test_every_page_has_one_place_in_the_menu() -> None:
    listed = [page for pages in build.CONTENTS.values() for page in pages]
    assert len(listed) == len(set(listed))
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= set(listed)


def test_links_lead_to_pages_of_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SOURCE", tmp_path)
    text = (
        "[a](training.md#settings) [b](../README.md) [c](../CONTRIBUTING.md) [d](../minigpt/model/lecture.py) "
        "[e](../notebooks/mini_gpt.ipynb) [f](../minigpt/system) [g](https://example.org) [h](#here) ![i](images/i.png)"
    )
    adapted = (
        "[a](training.md#settings) [b](index.md) [c](contributing.md) [d](source/minigpt/model/lecture.py.md) "
        "[e](notebook.md) f [g](https://example.org) [h](#here) ![i](images/i.png)"
    )
    assert build.adapt_links(text, "docs") == adapted
    page = (tmp_path / "source" / "minigpt" / "model" / "lecture.py.md").read_text()
    assert (ROOT / "minigpt" / "model" / "lecture.py").read_text() in page
    assert build.adapt_links("[a](docs/training.md)", ".") == "[a](training.md)"
    assert build.adapt_links("[a](docs/site/build.py)", ".") == "[a](source/docs/site/build.py.md)"
    assert build.adapt_links("[a](missing.md)", "docs") == "[a](missing.md)"  # Sphinx reports it


def test_the_reference_has_every_name_of_all_once() -> None:
    modules = api_pages.find_modules()
    assert {"minigpt", "minigpt.acceleration", "minigpt.model", "minigpt.studies.look"} <= set(modules)
    assert not [name for name in modules if "kernels" in name]
    page = api_pages.build_page("minigpt", modules)
    for name in ("Callback", "Run", "train"):
        assert len(re.findall(rf"^\.\. auto\w+:: minigpt\.{name}$", page, re.M)) == 1
    assert "- :doc:`minigpt.model`" in page
    assert ".. automodule:: minigpt.errors" in page
    names = api_pages.list_public_names()
    assert {"minigpt.train", "minigpt.errors.DataError", "minigpt.system.files.write_atomic"} <= names
    assert not [name for name in names if name.split(".")[-1].startswith("_") and name != "minigpt.__version__"]


@pytest.mark.parametrize(
    "line",
    [
        '<script src="https://cdn.example/a.js">',
        '<link rel="stylesheet" href="//fonts.example/a">',
        "<style>@import 'https://a.example/b.css'</style>",
        "<style>a { background: url(https://a.example/b.png) }</style>",
    ],
)
def test_a_file_from_another_host_is_found(line: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<a href="https://example.org">a link</a><script src="here.js"></script>')
    assert find_requests_to_other_hosts(tmp_path) == []
    (tmp_path / "page.html").write_text(line)
    (found,) = find_requests_to_other_hosts(tmp_path)
    assert found.startswith("page.html: ")


def test_the_first_page_has_a_path_for_each_reader() -> None:
    first = (ROOT / "docs" / "index.md").read_text()
    paths = re.split(r"^## ", first, flags=re.M)[2:]
    assert len(paths) == 3
    for words, path in zip(
        (
            ("lecture.py", "ladder.md", "mini_gpt.ipynb"),
            ("training.md", "look.md", "finetuning.md", "export.md"),
            ("architecture.md", "performance.md", "scaling.md", "results.md"),
        ),
        paths,
        strict=True,
    ):
        assert all(word in path for word in words)
    assert all(mark in first + (ROOT / "docs" / "try.md").read_text() for mark in build.MARKS)
