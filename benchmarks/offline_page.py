"""Measure the page of `minigpt export --to html`: its size, its logits and its speed in headless Chromium.

    python benchmarks/offline_page.py --rounds 5 --model lecture --model large

The models are of the lecture's size, with block_size 32 and 512, a modern one, and a large one with 10 million
parameters. For each, with random weights, the table has the size of the file, the largest difference of a logit from
PyTorch's, and the characters per second that the page's engine writes. "Within block_size" is a text that just fits,
"past it" the tokens after that. "In the page" is the time from a click to the last character on the screen, of 200
characters.
"""

import argparse
import base64
import json
import statistics
import sys
import tempfile
import time
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
PAST = 10  # tokens past block_size; the large model reads 256 tokens again for each
IN_PAGE = 200
MEASURE = """async ([description, weights, ids, past]) => {
  const { decodeBase64, openModelFile } = await import("/static/engine/model_file.js");
  const { OfflineBackend } = await import("/static/engine/offline_backend.js");
  const file = JSON.parse(description);
  const { model, tokenizer } = openModelFile(file, decodeBase64(weights));
  const backend = new OfflineBackend(file, model, tokenizer);
  async function write(prompt, max_tokens) {
    const start = performance.now();
    for await (const event of backend.generate({ model: "", ids: prompt, max_tokens, seed: 1 }));
    return (1000 * max_tokens) / (performance.now() - start);
  }
  const logits = Array.from(model.forward(ids, model.createCache()));
  return { logits, within: await write(ids.slice(0, 1), ids.length - 1), past: await write(ids, past) };
}"""


def measure_engine(page: Page, run: Run) -> tuple[float, float, float]:
    """Return the largest difference of a logit, and the characters per second within and past block_size."""
    description, weights = describe_model(run, copy_for_page(run, None))
    ids = [i % 65 for i in range(run.config.model.block_size)]
    given = [json.dumps(description), base64.b64encode(weights).decode(), ids, PAST]
    found = page.evaluate(MEASURE, given)
    with torch.inference_mode():
        expected = run.model(torch.tensor([ids]))[0].flatten()
    return float((torch.tensor(found["logits"]) - expected).abs().max()), found["within"], found["past"]


def measure_page(browser: Browser, file: Path) -> float:
    """Return the characters per second that a reader of the file sees."""
    page = browser.new_page()
    page.goto(file.resolve().as_uri())
    page.locator("#write-start:enabled").wait_for()
    page.fill("#write-form [name=max_tokens]", str(IN_PAGE))
    start = time.perf_counter()
    page.click("#write-start")
    page.locator(".writer-message", has_text="written").first.wait_for(timeout=600_000)
    seconds = time.perf_counter() - start
    page.close()
    return IN_PAGE / seconds


def measure_model(browser: Browser, site: Site, run: Run, rounds: int) -> None:
    """Print a row of the table."""
    sizes = []
    for quantize in (None, "int8"):
        result = export_html(run, run.path.parent / "page.html", overwrite=True, quantize=quantize)
        sizes.append(result.bytes)
    export_html(run, run.path.parent / "page.html", overwrite=True)
    page = browser.new_page()
    page.goto(site.address)
    engine = [measure_engine(page, run) for _ in range(rounds)]
    page.close()
    in_page = statistics.median(measure_page(browser, run.path.parent / "page.html") for _ in range(rounds))
    difference, within, past = (statistics.median(column) for column in zip(*engine, strict=True))
    row = (f"{sizes[0] / 1e6:.2f}", f"{sizes[1] / 1e6:.2f}", f"{difference:.1e}", f"{within:,.0f}", f"{past:,.0f}")
    print(f"| {run.path.name} | {' | '.join(row)} | {in_page:,.0f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="append", choices=MODELS, help="measure this model; may be repeated [all]")
    arguments = parser.parse_args()
    rounds, titles = arguments.rounds, arguments.model or MODELS
    print(f"{describe_processor()}, medians of {rounds} rounds\n")
    print("| model | MB | MB in int8 | largest difference | within block_size | past it | in the page |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name, launch_browser() as browser:
        folder = Path(name)
        (folder / "runs").mkdir()
        with serve_folder(folder / "runs") as site:
            for title in titles:
                measure_model(browser, site, make_random_run(folder / title, CHARACTERS, **MODELS[title]), rounds)


if __name__ == "__main__":
    main()
