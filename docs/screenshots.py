"""Take the pictures of the playground that the docs show: each view in a wide and in a narrow window.

    python docs/screenshots.py --out docs/images

It trains small runs on nonsense verse, which takes a few minutes. Like the tests of the page, it needs Chromium and
Playwright.
"""

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import Site, launch_browser, serve_folder  # noqa: E402
from conftest import make_text  # noqa: E402

import minigpt  # noqa: E402

PROMPT = "KEEPER:\n"
LOOKED_AT = "SAILOR:\nMy lantern keeps the harbour never sings,\n\nGULL:\nOften the wind"
WINDOWS = {"wide": (1440, 1000), "narrow": (360, 800)}  # width and least height in CSS pixels
MOST_PIXELS_HIGH = {"wide": 3000, "narrow": 1600}
COLORS = 128
PATIENCE = 30_000  # milliseconds


def train_runs(folder: Path) -> None:
    """Train a run that writes verse, one with other tokens, and one that chats."""
    text = folder / "verse.txt"
    text.write_text(make_text(200_000))
    out = folder / "verse-bpe"
    minigpt.train("lecture", data=text, out=out, max_iters=1000, eval_interval=100, tokenizer="bpe", vocab_size=320)
    minigpt.train("lecture", data=text, out=folder / "verse", max_iters=2000, eval_interval=100)
    minigpt.finetune(folder / "verse", tasks=["upper", "reverse"], out=folder / "verse-instructed")


def show_write(page: Page) -> None:
    """Write, and choose another letter at the beginning of two words."""
    page.locator("#write-run").select_option("verse")
    page.locator("#write-prompt").fill(PROMPT)
    page.get_by_role("slider", name="Temperature").fill("0.8")
    page.get_by_role("spinbutton", name="Tokens").fill("100")
    page.locator("#write-start").click()
    writer = page.locator(".writer").first
    expect(writer.locator(".writer-message")).to_contain_text("tokens written")
    for earliest, row in ((40, 1), (70, 2)):
        tokens = writer.get_by_role("option").all_text_contents()
        writer.get_by_role("option").nth(tokens.index(" ", earliest) + 1).click()
        expect(writer.locator(".bars")).to_have_attribute("aria-busy", "false")
        writer.locator(".bars button[aria-pressed=false]").nth(row - 1).click()
        expect(writer.get_by_role("treeitem")).to_have_count(row + 1)
        expect(writer.locator(".writer-message")).to_contain_text("tokens written")


def show_look(page: Page) -> None:
    """Look at a text, with the heads of the first block switched off."""
    page.locator("#look-run").select_option("verse")
    page.locator("#look-text").fill(LOOKED_AT)
    page.locator("#look-start").click()
    expect(page.locator(".lens td").first).to_be_visible()
    for head in range(4):
        page.get_by_role("switch").nth(head).click()
    expect(page.locator("#look-without h4")).to_have_text("Without 0.0, 0.1, 0.2, 0.3")
    expect(page.locator("#look-without .compare-continuation")).to_have_attribute("aria-busy", "false")
    page.locator("#look-tokens [role=option]").nth(LOOKED_AT.index(" sings")).hover()


def show_runs(page: Page) -> None:
    """Show the runs, and the loss curve of one of them."""
    page.locator("#runs-table").get_by_role("button", name="verse", exact=True).click()
    expect(page.locator(".curves")).to_be_visible()


def show_chat(page: Page) -> None:
    """Ask the run that chats a question of its task."""
    for question in ("upper: lantern", "reverse: harbour"):
        page.locator("#chat-input").fill(question)
        page.locator("#chat-send").click()
        expect(page.locator("#chat-message")).to_have_text("The answer is complete.")


def show_train(page: Page) -> None:
    """Show a training; in a narrow window without the long form."""
    page.locator("#train-select").select_option("verse")
    expect(page.locator("#train-heading")).to_have_text("verse")
    expect(page.locator("#train-ngram")).to_contain_text("reaches")
    if page.viewport_size == narrow_size():
        page.get_by_text("A new training").click()


def show_compare(page: Page) -> None:
    """Compare runs of different tokens, and the n-gram model."""
    for name in ("verse-instructed", "verse-bpe", "verse", "ngram:verse"):
        page.get_by_label(name, exact=True).set_checked(name != "verse-instructed")
    page.locator("#compare-axis").get_by_label("characters read").check()
    expect(page.locator("#compare-curves .curve")).to_have_count(2)
    page.locator("#compare-start").click()
    expect(page.locator("#compare-message")).to_contain_text("Measured")


def narrow_size() -> dict[str, int]:
    """Return the size of the narrow window as Playwright describes it."""
    width, height = WINDOWS["narrow"]
    return {"width": width, "height": height}


VIEWS: dict[str, Callable[[Page], None]] = {
    "write": show_write,
    "look": show_look,
    "runs": show_runs,
    "chat": show_chat,
    "train": show_train,
    "compare": show_compare,
}


def save_picture(page: Page, path: Path, most_pixels_high: int) -> None:
    """Save the page as a PNG with few colors, which makes it small."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    picture = picture.crop((0, 0, picture.width, min(picture.height, most_pixels_high)))
    picture.quantize(COLORS).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {picture.width} × {picture.height}")


def take_pictures(site: Site, out: Path) -> None:
    """Save a picture of each view in each window."""
    with launch_browser() as browser:
        for window, (width, height) in WINDOWS.items():
            for name, show in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, reduced_motion="reduce")
                page.set_default_timeout(PATIENCE)
                page.goto(site.url)
                page.locator(f"#tab-{name}").click()
                show(page)
                save_picture(page, out / f"playground-{name}-{window}.png", MOST_PIXELS_HIGH[window])
                page.close()


def main() -> None:
    """Train, serve, and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images", help="folder of the pictures")
    arguments = parser.parse_args()
    expect.set_options(timeout=PATIENCE)
    with tempfile.TemporaryDirectory() as folder:
        train_runs(Path(folder))
        with serve_folder(Path(folder)) as site:
            take_pictures(site, arguments.out)


if __name__ == "__main__":
    main()
