"""Measure the page of `minigpt export --to html`: its size, its logits, its memory and its speed in headless Chromium.

    python benchmarks/offline_page.py --rounds 3 --model lecture --model large

The models are of the lecture's size, with block_size 32 and 512, a modern one, and a large one with 10 million
parameters. For each, with random weights, the table has the size of the file, the largest difference of a logit from
PyTorch's, and the characters per second that the page's engine writes. "Within block_size" is a text that just fits,
"past it" the tokens after that. Both are by the CPU time of the page's process; the time of the clock is in brackets.
"In the page" is by the clock, from a click to the last character on the screen, of 200 characters. "Opened" are the
seconds from the address to the first click that the page takes, and "memory" is the largest that its process had, which
is read on Linux only.
"""

import argparse
import base64
import json
import math
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from processor import describe_processor

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browser import Site, launch_browser, serve_folder
from playwright.sync_api import Browser, Page
from random_runs import make_random_run

from minigpt.runs.run import Run
from minigpt.tokenizers.char import CharTokenizer
from minigpt.web.offline import export_html
from minigpt.web.offline_model import copy_for_page, describe_model

CHARACTERS = CharTokenizer([chr(0x20 + i) for i in range(65)])
MODELS: dict[str, dict[str, Any]] = {
    "lecture": {"n_embd": 64, "n_head": 4, "n_layer": 4, "block_size": 32},
    "lecture-512": {"n_embd": 64, "n_head": 4, "n_layer": 4, "block_size": 512},
    "modern": {"architecture": "modern", "n_embd": 128, "n_head": 4, "n_layer": 4, "block_size": 64},
    "large": {"n_embd": 384, "n_head": 6, "n_layer": 6, "block_size": 256},
}
IN_PAGE = 200
SECONDS = 8.0  # of the clock, after which a measurement of the engine ends
OPEN = """async ([description, weights]) => {
  const { decodeBase64, openModelFile } = await import("/static/engine/model_file.js");
  const { OfflineBackend } = await import("/static/engine/offline_backend.js");
  const file = JSON.parse(description);
  const { model, tokenizer } = openModelFile(file, decodeBase64(weights));
  window.opened = { model, backend: new OfflineBackend(file, model, tokenizer) };
}"""
LOGITS = "ids => Array.from(opened.model.forward(ids, opened.model.createCache()))"
WRITE = """async ([ids, max_tokens, seconds]) => {
  const start = performance.now();
  let written = 0;
  for await (const event of opened.backend.generate({ model: "", ids, max_tokens, seed: 1 })) {
    written += event.tokens?.length ?? 0;
    if (performance.now() - start > 1000 * seconds) break;
  }
  return [written, (performance.now() - start) / 1000];
}"""


@dataclass(frozen=True)
class Speed:
    """Characters a second.

    Attributes:
        cpu: by the CPU time of the page's process.
        clock: by the clock.
    """

    cpu: float
    clock: float


def find_renderers(browser: Browser) -> list[dict[str, Any]]:
    """Return the processes of the browser's pages: their ids and CPU times in seconds."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    return [process for process in processes if process["type"] == "renderer"]


def write(browser: Browser, page: Page, ids: list[int], tokens: int) -> Speed:
    """Write at most `tokens` tokens, for at most SECONDS, and return the speed."""
    before = sum(process["cpuTime"] for process in find_renderers(browser))
    written, seconds = page.evaluate(WRITE, [ids, tokens, SECONDS])
    after = sum(process["cpuTime"] for process in find_renderers(browser))
    return Speed(written / (after - before), written / seconds)


def measure_engine(browser: Browser, page: Page, run: Run, rounds: int) -> tuple[float, list[Speed], list[Speed]]:
    """Return the largest difference of a logit, and the speeds within and past block_size."""
    description, weights = describe_model(run, copy_for_page(run, None))
    page.evaluate(OPEN, [json.dumps(description), base64.b64encode(weights).decode()])
    ids = [i % 65 for i in range(run.config.model.block_size)]
    with torch.inference_mode():
        expected = run.model(torch.tensor([ids]))[0].flatten()
    difference = float((torch.tensor(page.evaluate(LOGITS, ids)) - expected).abs().max())
    within, past = [], []
    for number in range(rounds):
        show_progress(f"{run.path.name}: the engine, round {number + 1} of {rounds}")
        within.append(write(browser, page, ids[:1], len(ids) - 1))
        past.append(write(browser, page, ids, IN_PAGE))
    return difference, within, past


def measure_page(browser: Browser, file: Path) -> tuple[float, float, float]:
    """Return the seconds to open a file, the characters per second that a reader sees, and the memory in MB."""
    page = browser.new_page()
    start = time.perf_counter()
    page.goto(file.resolve().as_uri())
    page.locator("#write-start:enabled").wait_for()
    opened = time.perf_counter() - start
    page.fill("#write-form [name=max_tokens]", str(IN_PAGE))
    start = time.perf_counter()
    page.click("#write-start")
    page.locator(".writer-message", has_text="written").first.wait_for(timeout=600_000)
    seconds = time.perf_counter() - start
    memory = max(read_peak_memory(process["id"]) for process in find_renderers(browser))
    page.close()
    return opened, IN_PAGE / seconds, memory


def read_peak_memory(process: int) -> float:
    """Return the largest resident memory that a process had, in MB; NaN where there is no /proc."""
    status = Path(f"/proc/{process}/status")
    if not status.exists():
        return math.nan
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1000


def show_progress(message: str) -> None:
    """Print what is measured, apart from the table."""
    print(message, file=sys.stderr, flush=True)


def format_speed(speeds: list[Speed]) -> str:
    """Return the median by CPU time, and that by the clock in brackets."""
    by_cpu, by_clock = (statistics.median(column) for column in zip(*((s.cpu, s.clock) for s in speeds), strict=True))
    digits = 0 if by_cpu >= 10 else 2
    return f"{by_cpu:,.{digits}f} ({by_clock:,.{digits}f})"


def measure_model(browser: Browser, site: Site, run: Run, rounds: int) -> None:
    """Print a row of the table."""
    show_progress(f"{run.path.name}: the exports")
    sizes = []  # in int8, then in float32, which is the file that stays
    for quantize in ("int8", None):
        result = export_html(run, run.path.parent / "page.html", overwrite=True, quantize=quantize)
        sizes.append(result.bytes)
    page = browser.new_page()
    page.goto(site.address)
    difference, within, past = measure_engine(browser, page, run, rounds)
    page.close()
    show_progress(f"{run.path.name}: the page")
    in_pages = [measure_page(browser, run.path.parent / "page.html") for _ in range(rounds)]
    opened, in_page, memory = (statistics.median(column) for column in zip(*in_pages, strict=True))
    row = [
        f"{sizes[1] / 1e6:.2f}",
        f"{sizes[0] / 1e6:.2f}",
        f"{difference:.1e}",
        format_speed(within),
        format_speed(past),
    ]
    print(f"| {run.path.name} | {' | '.join(row)} | {in_page:,.0f} | {opened:.1f} s | {memory:,.0f} MB |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="append", choices=MODELS, help="measure this model; may be repeated [all]")
    arguments = parser.parse_args()
    rounds, titles = arguments.rounds, arguments.model or MODELS
    print(f"{describe_processor()}, medians of {rounds} rounds\n")
    print(
        "| model | MB | MB in int8 | largest difference | within block_size | past it | in the page | opened | memory |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name, launch_browser() as browser:
        folder = Path(name)
        (folder / "runs").mkdir()
        with serve_folder(folder / "runs") as site:
            for title in titles:
                measure_model(browser, site, make_random_run(folder / title, CHARACTERS, **MODELS[title]), rounds)


if __name__ == "__main__":
    main()
