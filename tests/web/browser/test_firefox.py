"""The offline page in Firefox, where it is installed: it writes the run's text, in both widths, without a network."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from firefox import PROGRAMS, Firefox, launch_firefox

from minigpt.runs.run import Run
from minigpt.web.offline import export_html

pytestmark = [
    pytest.mark.browser,
    pytest.mark.long,
    pytest.mark.skipif(not any(map(shutil.which, PROGRAMS)), reason="Firefox is not installed"),
]
WRITE = """new Promise((resolve) => {
  const set = (selector, value) => {
    const field = document.querySelector(selector);
    field.value = value;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  };
  set("#write-prompt", %s);
  set("#write-form [name=max_tokens]", "200");
  set("#write-form [name=temperature]", "0");
  const message = document.querySelector(".writer-message");
  const observer = new MutationObserver(() => {
    if (message.textContent !== "200 tokens written.") return;
    observer.disconnect();
    resolve(document.querySelector(".writer-text").innerText);
  });
  observer.observe(message, { childList: true, characterData: true, subtree: true });
  document.querySelector("#write-start").click();
})"""
SHOW_LENS = """new Promise((resolve) => {
  document.querySelector("#tab-look").click();
  document.querySelector("#look-text").value = "the sea sings";
  document.querySelector("#look-start").click();
  const lens = document.querySelector("#look-lens");
  const observer = new MutationObserver(() => resolve(lens.querySelectorAll("tr").length));
  observer.observe(lens, { childList: true, subtree: true });
})"""


@pytest.fixture(scope="module")
def firefox() -> Iterator[Firefox]:
    with launch_firefox() as firefox:
        yield firefox


@pytest.mark.parametrize("width", [360, 1440])
def test_the_file_writes_the_greedy_text_of_the_run_and_looks(
    trained: Run, tmp_path: Path, firefox: Firefox, width: int
) -> None:
    export_html(trained, tmp_path / "page.html")
    firefox.resize(width, 900)
    firefox.open((tmp_path / "page.html").as_uri())
    written = firefox.evaluate(WRITE % json.dumps("KEEPER:")).replace("↵", "").replace("\n", "")
    assert written == trained.generate("KEEPER:", max_new_tokens=200, temperature=0).replace("\n", "")
    assert firefox.evaluate("document.documentElement.scrollWidth") <= width
    assert firefox.evaluate(SHOW_LENS) > 1
    assert firefox.messages == []
