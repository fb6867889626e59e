"""Write a run as one HTML file that runs the model in a browser, without a network."""

import base64
import hashlib
import html
import json
import re
from pathlib import Path

import torch

from minigpt.errors import ConfigError
from minigpt.exchange.export import ExportResult
from minigpt.exchange.export_check import (
    FEWER_BITS,
    MAX_DIFFERENCE,
    choose_check_ids,
    require_equal_logits,
)
from minigpt.exchange.export_target import replace_target
from minigpt.runs.run import Run
from minigpt.system.files import write_atomic
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.web.javascript_modules import join_modules
from minigpt.web.offline_model import copy_for_page, describe_model

STATIC = Path(__file__).with_name("static")
QUANTIZATIONS = ("int8",)
TOKENS_FOR_LOSS = 4096
_STYLESHEET = re.compile(r'^ *<link rel="stylesheet" href="static/([\w/.]+)">\n', re.M)
_SCRIPT = re.compile(r'^ *<script type="module" src="static/main\.js"></script>\n', re.M)
_ICON = re.compile(r'"static/(icon\.svg)"')
_SERVER_ONLY = re.compile(r"^ *<!-- server -->\n.*?<!-- /server -->\n", re.M | re.S)  # views that need a server
_CSS_COMMENT = re.compile(r"/\*.*?\*/\n?", re.S)


@use_pytorch_defaults()
def export_html(
    run: Run, out: str | Path | None = None, overwrite: bool = False, quantize: str | None = None
) -> ExportResult:
    """Write a run as one HTML file.

    Args:
        run: the run. The matrices of a quantized run are written as the numbers that they stand for.
        out: the file; exports/<name>.html by default.
        overwrite: whether to replace an earlier export.
        quantize: "int8" stores the matrices in 8 bits; None in 32.

    Returns:
        The file, and how its weights' logits differ from the run's, both by PyTorch.

    Raises:
        ConfigError: there is no such quantization.
        ExchangeError: the page cannot read the run's tokenizer.
        FileError: the file exists or cannot be written.
    """
    if quantize not in (None, *QUANTIZATIONS):
        raise ConfigError(f"the format html has no quantization {quantize!r}: choose {' or '.join(QUANTIZATIONS)}")
    model = copy_for_page(run, quantize)
    description, weights = describe_model(run, model)
    page = build_page(description["run"]["name"], json.dumps(description), weights)
    path = Path(f"exports/{run.path.resolve().name}.html" if out is None else out)
    with replace_target(path, (), overwrite) as file:
        write_atomic(file, page.encode())
    ids = choose_check_ids(run, TOKENS_FOR_LOSS)
    with torch.inference_mode():
        logits = model(ids)[0]
    tolerance = MAX_DIFFERENCE if quantize is None else FEWER_BITS
    comparison = require_equal_logits(logits, run, ids, "PyTorch", tolerance)
    return ExportResult(path, path.stat().st_size, "PyTorch", comparison, install="")


def build_page(name: str, description: str, weights: bytes) -> str:
    """Return the page.

    Its Content-Security-Policy allows the page's own script and style, by their hashes, and nothing else: no request
    can leave the page.

    Args:
        name: the run's name, for the title.
        description: of `describe_model`, as JSON.
        weights: of `describe_model`.
    """
    page = _SERVER_ONLY.sub("", (STATIC / "index.html").read_text())
    style = "".join(_CSS_COMMENT.sub("", (STATIC / file).read_text()) for file in _STYLESHEET.findall(page))
    script = join_modules(STATIC / "offline_main.js")
    icon = base64.b64encode((STATIC / "icon.svg").read_bytes()).decode()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    head = (
        f'    <meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"    <title>{html.escape(name)}</title>\n    <style>{style}</style>\n"
    )
    data = (
        f'    <script type="application/json" id="model">{description.replace("<", chr(92) + "u003c")}</script>\n'
        f'    <script type="text/plain" id="weights">{base64.b64encode(weights).decode()}</script>\n'
    )
    page = re.sub(r"^ *<title>.*</title>\n", lambda match: head, page, count=1, flags=re.M)
    page = _SCRIPT.sub("", _STYLESHEET.sub("", page))
    page = _ICON.sub(lambda match: f'"data:image/svg+xml;base64,{icon}"', page)
    return page.replace("  </body>", f'{data}    <script type="module">{script}</script>\n  </body>')


def _hash(content: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline script or style."""
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
