"""What the API says about the served runs: OpenAI's list of models, and the playground's list of runs."""

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.config import ModelConfig
from minigpt.errors import MinigptError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_listing import measure_size
from minigpt.runs.run_overview import RunOverview
from minigpt.tokenizers.chat_format import CHAT_TOKENS
from minigpt.web.served_runs import NGRAM_PREFIX, ServedRuns
from minigpt.web.server_context import ServerContext

NO_HEADS = "a bigram model has no attention heads and no blocks: take a transformer's run"
NO_NGRAM_HEADS = "an n-gram model has no attention heads and no blocks: take a transformer's run"
NO_TEXT = "the training text of this run is not known"


async def list_models(request: Request, context: ServerContext) -> Response:
    """Answer `GET /v1/models`."""
    cards = await _read_cards(context)
    return JSONResponse({"object": "list", "data": [_describe_model(card) for card in cards if card["error"] is None]})


async def show_model(request: Request, context: ServerContext) -> Response:
    """Answer `GET /v1/models/{name}`. Raise ApiError for a name that is not served."""
    name = request.path_params["name"]
    overview = await context.read(lambda: context.runs.read_overview(name.removeprefix(NGRAM_PREFIX)))
    return JSONResponse(_describe_model({"name": name, "started": overview.info.started}))


async def show_runs(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/runs`."""
    return JSONResponse({"runs": await _read_cards(context)})


async def show_metrics(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/runs/{name}/metrics`. Raise ApiError for a name that is not served."""
    name = request.path_params["name"].removeprefix(NGRAM_PREFIX)

    def read() -> dict[str, Any]:
        overview = context.runs.read_overview(name)
        snapshots = RunDirectory(overview.path).read_snapshots()
        return {
            "metrics": [dataclasses.asdict(each) for each in overview.metrics],
            "snapshots": [dataclasses.asdict(each) for each in snapshots],
        }

    return JSONResponse(await context.read(read))


async def _read_cards(context: ServerContext) -> list[dict[str, Any]]:
    return await context.read(lambda: list_cards(context.runs))


def list_cards(runs: ServedRuns) -> list[dict[str, Any]]:
    """Return what docs/web_api.md says of each served run, and of the n-gram model of each training text."""
    cards, companions, texts = [], [], set()
    for name in runs.list_names():
        try:
            overview = runs.read_overview(name)
        except MinigptError as error:
            cards.append({"name": name, "status": "broken", "error": str(error)})
            continue
        cards.append(_describe_run(name, overview))
        text = overview.info.data_sha256, overview.info.tokenizer_sha256, overview.config.training.train_fraction
        if _has_text(overview) and text not in texts:
            texts.add(text)
            companions.append(_describe_companion(cards[-1]))
    return cards + companions


def _describe_run(name: str, overview: RunOverview) -> dict[str, Any]:
    info, model = overview.info, overview.config.model
    has_blocks = model.architecture != "bigram"
    no_heads = None if has_blocks else NO_HEADS
    return {
        "name": name,
        "kind": _name_kind(model),
        "tokenizer": overview.tokenizer.kind,
        "parameters": info.parameters,
        "bytes": measure_size(overview.path),
        "status": info.status,
        "started": info.started,
        "steps": info.step,
        "preset": overview.config.preset,
        "validation_loss": info.validation_loss,
        "bits_per_byte": info.bits_per_byte,
        "block_size": model.block_size,
        "n_layer": model.n_layer if has_blocks else 0,
        "n_head": model.n_head if has_blocks else 0,
        "quantization": model.quantization,
        "base": info.base,
        "is_chat": all(token in overview.tokenizer.special_tokens for token in CHAT_TOKENS),
        "views": {
            "attention": no_heads,
            "lens": no_heads,
            "ablation": no_heads,
            "memorization": None if _has_text(overview) else NO_TEXT,
        },
        "error": None,
    }


def _describe_companion(card: dict[str, Any]) -> dict[str, Any]:
    """Return the card of the n-gram model of a run's training text."""
    unknown = dict.fromkeys(("parameters", "validation_loss", "bits_per_byte", "base"))
    views = {**dict.fromkeys(("attention", "lens", "ablation"), NO_NGRAM_HEADS), "memorization": None}
    shape = {"n_layer": 0, "n_head": 0, "steps": 0, "bytes": 0, "quantization": "none", "is_chat": False}
    return {**card, **unknown, **shape, "name": NGRAM_PREFIX + card["name"], "kind": "ngram", "views": views}


def _name_kind(model: ModelConfig) -> str:
    """Return the name of the model's class for a reader."""
    if model.architecture != "gpt":
        return model.architecture
    return "lecture" if model.implementation == "lecture" else "gpt"


def _has_text(overview: RunOverview) -> bool:
    """Return True if the run's training text seems to be where it was. Opening it may still fail."""
    info = overview.info
    if info.status == "imported" or info.instructions:
        return False
    return all(Path(path).exists() for path in info.data_paths or ())


def _describe_model(card: dict[str, Any]) -> dict[str, Any]:
    """Return a run as OpenAI's API describes a model."""
    created = int(datetime.datetime.fromisoformat(card["started"]).timestamp())
    return {"id": card["name"], "object": "model", "created": created, "owned_by": "minigpt"}
