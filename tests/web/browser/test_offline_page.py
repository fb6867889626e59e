"""The offline page: one file that writes and shows the views from `file://`, without a network."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from random_runs import make_random_run

from minigpt.runs.run import Run
from minigpt.tokenizers.bpe import BPETokenizer
from minigpt.tokenizers.char import CharTokenizer
from minigpt.web.offline import export_html

pytestmark = pytest.mark.browser
PATIENCE = 20_000  # milliseconds
OpenFile = Callable[..., Page]


@pytest.fixture
def open_file(chromium: Browser) -> Iterator[OpenFile]:
    """Return a function that opens a file without a network. No page may have an error, or ask for anything else."""
    problems: list[str] = []
    contexts = []
    expect.set_options(timeout=PATIENCE)

    def open_page(path: Path, width: int = 1440, **settings: Any) -> Page:
        context = chromium.new_context(offline=True, viewport={"width": width, "height": 900}, **settings)
        contexts.append(context)
        page = context.new_page()
        own = path.resolve().as_uri()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request", lambda asked: problems.append(asked.url) if not asked.url.startswith((own, "data:")) else None
        )
        page.goto(own)
        expect(page.locator("#write-start")).to_be_enabled()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


def write(page: Page, prompt: str, tokens: int, temperature: str = "0") -> str:
    """Let the page write from a prompt, and return the whole text."""
    page.fill("#write-prompt", prompt)
    page.fill("#write-form [name=max_tokens]", str(tokens))
    page.locator("#write-form [name=temperature]").fill(temperature)
    page.click("#write-start")
    expect(page.locator(".writer-message").first).to_have_text(f"{tokens} tokens written.")
    return page.locator(".writer-text").first.inner_text()


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_the_file_writes_the_greedy_text_of_the_run(
    trained: Run, tmp_path: Path, open_file: OpenFile, quantize: str | None
) -> None:
    export_html(trained, tmp_path / "page.html", quantize=quantize)
    written = write(open_file(tmp_path / "page.html"), "KEEPER:", 500).replace("↵", "").replace("\n", "")
    if quantize is None:
        assert written == trained.generate("KEEPER:", max_new_tokens=500, temperature=0).replace("\n", "")
    else:
        assert written.startswith("KEEPER:") and len(written) > 100


@pytest.mark.parametrize("width", [360, 1440])
def test_the_file_branches_and_looks(trained: Run, tmp_path: Path, open_file: OpenFile, width: int) -> None:
    export_html(trained, tmp_path / "page.html")
    page = open_file(tmp_path / "page.html", width=width, color_scheme="dark")
    write(page, "sea", 20)
    writer = page.locator(".writer").first
    writer.get_by_role("option").nth(10).click()
    expect(writer.locator(".bars button")).to_have_count(20)
    writer.locator(".bars button[aria-pressed=false]").first.click()
    expect(writer.get_by_role("treeitem")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#tab-look")
    page.fill("#look-text", "the sea sings")
    page.click("#look-start")
    expect(page.locator("#look-lens table")).to_be_visible()
    loss = page.locator("#look-whole .compare-loss")
    expect(loss).to_contain_text(f"{trained.loss('the sea sings'):.3f}"[:-1])
    expect(page.locator("#look-memorization-reason")).to_have_text("This file does not have the training text.")
    page.click("#tab-runs")
    expect(page.locator("#runs-table tbody tr")).to_have_count(1)


HOSTILE = "</script><script>document.title='broken'</script><!--<img src=x onerror=alert(1)>"


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_hostile_names_and_tokens_stay_text(
    text: str, tmp_path: Path, open_file: OpenFile, kind: str, width: int
) -> None:
    name = "<script>document.title='broken'<!--<script>"
    characters = CharTokenizer.from_text(text + HOSTILE + "\u202e\x00")
    tokenizer = characters if kind == "char" else BPETokenizer.train(f"{text[:500]} {HOSTILE * 50}", 340)
    run = make_random_run(tmp_path / name, tokenizer, block_size=16)
    (run.path / "snapshots.jsonl").write_text(json.dumps({"step": 0, "validation_loss": 1.0, "text": HOSTILE}) + "\n")
    export_html(run, tmp_path / "page.html")
    page = open_file(tmp_path / "page.html", width=width)
    expect(page.locator(".writer-name").first).to_have_text(name)
    assert page.title() == name
    write(page, HOSTILE, 30, temperature="1")
    assert page.locator("img").count() == 0 and page.title() == name
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_bpe_run_writes_the_same_text(text: str, tmp_path: Path, open_file: OpenFile) -> None:
    run = make_random_run(tmp_path / "run", BPETokenizer.train(text, 300), block_size=32)
    export_html(run, tmp_path / "page.html")
    page = open_file(tmp_path / "page.html")
    page.fill("#write-prompt", "the sea")
    page.click("#write-start")
    expect(page.locator(".writer-message").first).to_contain_text("written")
    page.click("#tab-look")
    page.fill("#look-text", "the sea sings")
    page.click("#look-start")
    expect(page.locator("#look-tokens [role=option]")).to_have_count(len(run.tokenizer.encode("the sea sings")))


def test_the_policy_allows_nothing_but_the_page_s_own_script(trained: Run, tmp_path: Path, chromium: Browser) -> None:
    export_html(trained, tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text()
    changed = content.replace("  </body>", "<script>document.title = 'broken'</script>\n  </body>")
    (tmp_path / "changed.html").write_text(changed)
    page = chromium.new_page()
    page.goto((tmp_path / "changed.html").as_uri())
    expect(page.locator("#write-start")).to_be_enabled()
    assert page.title() == "trained"
    page.close()


FORBIDDEN = """async () => {
  const refused = [];
  document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
  const insert = (name, fields) => document.body.append(Object.assign(document.createElement(name), fields));
  await fetch("data:text/plain,x").catch(() => {});
  insert("script", { src: "data:text/javascript,document.title='broken'" });
  insert("link", { rel: "stylesheet", href: "data:text/css,body{display:none}" });
  insert("img", { src: "http://127.0.0.1:9/x.png" });
  insert("iframe", { src: "data:text/html,x" });
  insert("audio", { src: "data:audio/wav;base64,AA==" });
  try { new Worker("data:text/javascript,1"); } catch {}
  const form = Object.assign(document.createElement("form"), { action: "http://127.0.0.1:9/", method: "post" });
  document.body.append(form);
  form.submit();
  while (refused.length < 8) {
    await new Promise((resolve) => document.addEventListener("securitypolicyviolation", resolve));
  }
  return refused.toSorted();
}"""


def test_a_script_in_the_page_can_load_and_send_nothing(trained: Run, tmp_path: Path, chromium: Browser) -> None:
    export_html(trained, tmp_path / "page.html")
    page = chromium.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    assert page.evaluate(FORBIDDEN) == [
        "connect-src",
        "form-action",
        "frame-src",
        "img-src",
        "media-src",
        "script-src-elem",
        "style-src-elem",
        "worker-src",
    ]
    page.close()


def test_without_a_prompt_the_text_starts_from_the_start_token(tmp_path: Path, open_file: OpenFile) -> None:
    run = make_random_run(tmp_path / "run", CharTokenizer("abcdef"), block_size=8)  # a vocabulary without a line end
    export_html(run, tmp_path / "page.html")
    written = write(open_file(tmp_path / "page.html"), "", 20)
    assert written == "a" + run.generate(max_new_tokens=20, temperature=0)
