"""The playground's requests about what a model sees in a text (docs/web_api.md)."""

from collections.abc import Iterator
from typing import Any

import torch
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from torch import Tensor

from minigpt.runs.run import Run
from minigpt.studies.lens import stream_lens_logits
from minigpt.studies.look.attention import attention_maps
from minigpt.studies.look.memorization import compute_verbatim_shares, find_verbatim
from minigpt.studies.text_window import encode_window
from minigpt.studies.token_predictions import TokenPredictions, stream_predictions
from minigpt.web.api_errors import ApiError
from minigpt.web.playground_fields import describe_tokens, read_heads_off, read_ids, read_top
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import ServerContext

MAX_TOKENS = 128  # the last tokens of a text that an attention map and the logit lens show


async def show_positions(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/positions`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    ids, heads_off = read_ids(fields, run, context.limits, fills_empty=False), read_heads_off(fields, run)
    parts = await context.compute_all(request, stream_predictions(run, ids, heads_off))
    predictions = TokenPredictions.concatenate(parts)
    first = [None] if ids else []  # nothing predicts the first token
    answer = {
        "tokens": describe_tokens(run, ids),
        "losses": [*first, *predictions.losses.tolist()],
        "probabilities": [*first, *predictions.probabilities.tolist()],
        "ranks": [*first, *predictions.ranks.tolist()],
        "mean_loss": float(predictions.losses.mean()) if len(ids) > 1 else None,
    }
    return JSONResponse(answer)


async def show_attention(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/attention`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    ids = _cut(run, read_ids(fields, run, context.limits))

    def compute() -> list[Any]:
        maps = attention_maps(run, ids).double().round(decimals=4)  # (L, H, T, T)
        return [[[row[: t + 1] for t, row in enumerate(head)] for head in block] for block in maps.tolist()]

    weights = await context.compute(request, compute)
    return JSONResponse({"tokens": describe_tokens(run, ids), "weights": weights})


async def show_lens(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/lens`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    ids, top = _cut(run, read_ids(fields, run, context.limits)), read_top(fields)
    layers = await context.compute_all(request, _describe_layers(run, ids, top))
    return JSONResponse({"tokens": describe_tokens(run, ids), "layers": layers})


def _describe_layers(run: Run, ids: list[int], top: int) -> Iterator[dict[str, Any]]:
    """Yield what the answer says about each layer."""
    idx = encode_window(run, ids)
    for name, logits in stream_lens_logits(run, idx):
        yield {"name": name, "positions": _describe_positions(run, idx, logits, top)}


def _describe_positions(run: Run, idx: Tensor, logits: Tensor, top: int) -> list[dict[str, Any]]:
    """Return the most likely tokens at each of T positions, and how the next token of the text is predicted."""
    best = torch.softmax(logits.double(), dim=-1).topk(min(top, logits.shape[-1]))  # (T, top)
    targets = TokenPredictions.from_logits(logits[:-1], idx[1:])
    scores = zip(targets.probabilities.tolist(), targets.ranks.tolist(), strict=True)
    described = [{"probability": probability, "rank": rank} for probability, rank in scores]
    positions = []
    for names, values, target in zip(best.indices.tolist(), best.values.tolist(), [*described, None], strict=True):
        likeliest = zip(describe_tokens(run, names), values, strict=True)
        positions.append({"top": [{**token, "probability": p} for token, p in likeliest], "target": target})
    return positions


async def show_memorization(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/memorization`."""
    fields = await RequestFields.read(request, context.limits)
    run = await context.open_run(fields)
    if fields.get("ids") is not None:
        raise ApiError(400, "memorization takes a text and no ids: send text", "ids")
    ids = read_ids(fields, run, context.limits, fills_empty=False)
    text, source = fields.get("text"), await context.read(lambda: context.training_texts.read(run))
    lengths = await context.compute(request, lambda: find_verbatim(text, source))
    answer = {
        "tokens": describe_tokens(run, ids),
        "lengths": lengths.tolist(),
        "shares": {str(length): share for length, share in compute_verbatim_shares(lengths).items()},
    }
    return JSONResponse(answer)


def _cut(run: Run, ids: list[int]) -> list[int]:
    """Return the last tokens that the model sees at once and that an answer has room for."""
    return ids[-min(run.model.config.block_size, MAX_TOKENS) :]
