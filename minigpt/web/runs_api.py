"""The requests about the served runs: OpenAI's list of models, and the playground's list of runs (docs/web_api.md)."""

import dataclasses
import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.errors import MinigptError
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_listing import TRAINING
from minigpt.web.api_errors import ApiError
from minigpt.web.run_cards import NGRAM_PREFIX, describe_companion, describe_run, has_text
from minigpt.web.served_runs import ServedRuns
from minigpt.web.server_context import ServerContext


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
    """Answer `GET /api/v1/runs/{name}/metrics`. Raise ApiError for a name that is not served, or an n-gram model."""
    name = request.path_params["name"]
    if name.startswith(NGRAM_PREFIX):
        raise ApiError(400, f"{name[:100]!r} counts and has no training steps: ask for the metrics of a run", "model")

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
            status = TRAINING if runs.is_training(name) else "broken"  # before its first evaluation it has no weights
            cards.append({"name": name, "status": status, "error": str(error)})
            continue
        cards.append(describe_run(name, overview))
        text = overview.info.data_sha256, overview.info.tokenizer_sha256, overview.config.training.train_fraction
        if not overview.info.instructions and has_text(overview) and text not in texts:
            texts.add(text)
            companions.append(describe_companion(cards[-1]))
    return cards + companions


def _describe_model(card: dict[str, Any]) -> dict[str, Any]:
    """Return a run as OpenAI's API describes a model."""
    created = int(datetime.datetime.fromisoformat(card["started"]).timestamp())
    return {"id": card["name"], "object": "model", "created": created, "owned_by": "minigpt"}
