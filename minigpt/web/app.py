"""The server's application: which function answers which request."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from minigpt.errors import MinigptError
from minigpt.web.api_errors import ApiError
from minigpt.web.chat_completions import answer_chat
from minigpt.web.completions import complete
from minigpt.web.losses_api import measure_losses
from minigpt.web.places import Places
from minigpt.web.playground_text import chat, generate, predict_next, tokenize
from minigpt.web.playground_views import show_attention, show_lens, show_memorization, show_positions
from minigpt.web.runs_api import list_models, show_metrics, show_model, show_runs
from minigpt.web.scheduler import Scheduler
from minigpt.web.security import UPLOAD_PATH, BodyLimit, HostCheck, OriginCheck, SafeHeaders, TokenCheck
from minigpt.web.served_runs import ServedRuns
from minigpt.web.server_context import ServerContext
from minigpt.web.settings import ServerSettings
from minigpt.web.trainings import Trainings
from minigpt.web.trainings_api import (
    forecast_training,
    resume_training,
    show_settings,
    show_texts,
    show_training,
    show_trainings,
    start_training,
    stop_training,
    upload_text,
)

STATIC = Path(__file__).with_name("static")
Endpoint = Callable[[Request, ServerContext], Awaitable[Response]]

GET: dict[str, Endpoint] = {
    "/v1/models": list_models,
    "/v1/models/{name:path}": show_model,
    "/api/v1/runs": show_runs,
    "/api/v1/runs/{name:path}/metrics": show_metrics,
    "/api/v1/settings": show_settings,
    UPLOAD_PATH: show_texts,
    "/api/v1/trainings": show_trainings,
    "/api/v1/trainings/{name}": show_training,
}
POST: dict[str, Endpoint] = {
    "/v1/completions": complete,
    "/v1/chat/completions": answer_chat,
    "/api/v1/tokenize": tokenize,
    "/api/v1/generate": generate,
    "/api/v1/next": predict_next,
    "/api/v1/chat": chat,
    "/api/v1/positions": show_positions,
    "/api/v1/attention": show_attention,
    "/api/v1/lens": show_lens,
    "/api/v1/memorization": show_memorization,
    "/api/v1/losses": measure_losses,
    UPLOAD_PATH: upload_text,
    "/api/v1/forecast": forecast_training,
    "/api/v1/trainings": start_training,
    "/api/v1/trainings/{name}/stop": stop_training,
    "/api/v1/trainings/{name}/resume": resume_training,
}


def build_app(runs: ServedRuns, settings: ServerSettings) -> Starlette:
    """Return the application, which any ASGI server can run.

    Args:
        runs: the runs to serve.
        settings: whom it answers, and the limits. The address is the ASGI server's business.
    """
    context = ServerContext(runs, Scheduler(), settings.limits, Trainings(runs.folder, settings.limits))

    @contextlib.asynccontextmanager
    async def run_scheduler(app: Starlette) -> AsyncIterator[None]:
        context.scheduler.start()
        yield
        context.scheduler.stop()

    def bind(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            return await endpoint(request, context)

        return answer

    routes = [
        Route("/", _send_page),
        *(Route(path, bind(endpoint), methods=["GET"]) for path, endpoint in GET.items()),
        *(Route(path, bind(endpoint), methods=["POST"]) for path, endpoint in POST.items()),
        Mount("/static", StaticFiles(directory=STATIC, check_dir=False)),
    ]
    app = Starlette(
        routes=routes,
        lifespan=run_scheduler,
        middleware=[
            Middleware(SafeHeaders),
            Middleware(HostCheck, settings.allowed_hosts),
            Middleware(OriginCheck),
            Middleware(TokenCheck, settings.token),
            Middleware(BodyLimit, settings.limits),
            Middleware(Places, settings.limits),
        ],
        exception_handlers={
            ApiError: _send_error,
            MinigptError: _send_error,
            HTTPException: _send_http_error,
            Exception: _send_error,
        },
    )
    app.state.context = context
    return app


async def _send_page(request: Request) -> Response:
    return FileResponse(STATIC / "index.html")


async def _send_error(request: Request, error: Exception) -> Response:
    return ApiError.from_exception(error).to_response()


async def _send_http_error(request: Request, error: Exception) -> Response:
    """Answer a path or a method that does not exist."""
    assert isinstance(error, HTTPException)
    messages = {404: f"there is nothing at {request.url.path[:200]!r}", 405: f"{request.method} is not allowed here"}
    message = messages.get(error.status_code, error.detail)
    return ApiError(error.status_code, message, headers=dict(error.headers or {})).to_response()
