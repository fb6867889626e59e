"""The requests about trainings: texts, settings, forecasts, and the trainings themselves (docs/web_api.md)."""

import asyncio
import contextlib
import json
import re
from asyncio.subprocess import DEVNULL, PIPE
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from minigpt.web.api_errors import SERVER_ERROR, ApiError
from minigpt.web.request_fields import RequestFields
from minigpt.web.server_context import MAX_NAME, ServerContext, finish_unless_gone
from minigpt.web.stored_texts import StoredText, TextUpload
from minigpt.web.training_process import build_command, find_error
from minigpt.web.training_settings import describe_settings

STEPS = ("after", "after_sample")  # of the URL's query: the steps that the page has already
INPUT_ERROR = 2  # the exit status of the program for the user's input


async def show_settings(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/settings`."""
    return JSONResponse(describe_settings())


async def show_texts(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/texts`."""
    texts = await context.read(lambda: context.trainings.texts.list_texts())
    return JSONResponse({"texts": [text.to_dict() for text in texts]})


async def upload_text(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/texts`. The body is the text itself; its parts go to a file as they arrive."""
    name = request.query_params.get("name", "")
    upload = await context.read(lambda: TextUpload(context.trainings.texts, name))
    try:
        async with asyncio.timeout(context.limits.seconds):
            async for part in request.stream():
                await context.read(lambda part=part: upload.write(part))  # type: ignore[misc]
        text: StoredText = await context.read(upload.finish)
    except TimeoutError:
        message = f"the text did not arrive within {context.limits.seconds:g} seconds: send less"
        raise ApiError(408, message, code="timeout") from None
    except ClientDisconnect:
        raise ApiError(499, "the client hung up", code="client_closed_request") from None
    finally:
        upload.close()
    return JSONResponse(text.to_dict(), 201)


async def show_trainings(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/trainings`."""
    trainings = context.trainings
    reason = await context.read(trainings.find_reason)
    found = await context.read(trainings.list_trainings)
    limits = {"max_trainings": context.limits.trainings, "upload_bytes": context.limits.upload_bytes}
    return JSONResponse({"trainings": [training.to_dict() for training in found], "reason": reason, **limits})


async def show_training(request: Request, context: ServerContext) -> Response:
    """Answer `GET /api/v1/trainings/{name}`."""
    name, (after, after_sample) = request.path_params["name"], (_read_step(request, p) for p in STEPS)
    return JSONResponse(await context.read(lambda: context.trainings.describe(name, after, after_sample)))


def _read_step(request: Request, param: str) -> int:
    """Return a step of the URL's query; -1, which is before all steps, without it."""
    value = request.query_params.get(param, "-1")
    if re.fullmatch(r"-1|\d{1,19}", value, re.ASCII) is None:
        raise ApiError(400, f"{param} must be a step, not {value[:100]!r}", param)
    return int(value)


async def start_training(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/trainings`."""
    fields = await RequestFields.read(request, context.limits)
    name, (preset, text, settings) = fields.read_text("name", MAX_NAME), _read_task(fields)
    command = await context.read(lambda: context.trainings.start(name, preset, text, settings))
    return JSONResponse({"name": name, "command": command}, 201)


async def resume_training(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/trainings/{name}/resume`."""
    fields, name = await RequestFields.read(request, context.limits), request.path_params["name"]
    command = await context.read(lambda: context.trainings.resume(name, fields.get("max_iters")))
    return JSONResponse({"name": name, "command": command}, 201)


async def stop_training(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/trainings/{name}/stop`."""
    await RequestFields.read(request, context.limits)
    name = request.path_params["name"]
    await context.read(lambda: context.trainings.stop(name))
    return JSONResponse({"name": name}, 202)


async def forecast_training(request: Request, context: ServerContext) -> Response:
    """Answer `POST /api/v1/forecast` by `minigpt train --forecast`, which times some steps in its own process."""
    fields = await RequestFields.read(request, context.limits)
    preset, text, settings = _read_task(fields)
    arguments = await context.read(lambda: context.trainings.build_forecast_command(preset, text, settings))
    if context.forecasting.locked():
        raise ApiError(503, "the server makes a forecast already: try again in a moment", code="overloaded")
    async with context.forecasting:
        return JSONResponse(await finish_unless_gone(request, _forecast(arguments, context.limits.seconds)))


def _read_task(fields: RequestFields) -> tuple[str, str | None, dict[str, Any]]:
    """Return the preset, the text's name and the settings that a request gives."""
    preset = fields.read_text("preset", MAX_NAME, "lecture")
    text = None if fields.get("text") is None else fields.read_text("text", MAX_NAME)
    settings = fields.get("settings") or {}
    if not isinstance(settings, dict):
        raise fields.refuse("settings", "an object")
    return preset, text, {name: value for name, value in settings.items() if value is not None}


async def _forecast(arguments: list[str], seconds: float) -> Any:
    """Return what the command prints. Raise ApiError with its sentence if it fails, or takes too long."""
    command = build_command(arguments)
    process = await asyncio.create_subprocess_exec(*command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(seconds):
            printed, messages = await process.communicate()
    except TimeoutError:
        message = f"the forecast took longer than {seconds:g} seconds: choose a smaller model or text"
        raise ApiError(503, message, code="timeout") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    if process.returncode != 0:
        sentence = find_error(messages.decode(errors="replace")) or "the forecast failed: start the training to see why"
        raise ApiError(400 if process.returncode == INPUT_ERROR else SERVER_ERROR, sentence)
    return json.loads(printed)
