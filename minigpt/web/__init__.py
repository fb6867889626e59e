"""The server of `minigpt serve`: OpenAI's API, the playground's API and the playground's page."""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.web.app import build_app
    from minigpt.web.server import serve
    from minigpt.web.settings import Limits, ServerSettings

__all__ = ["Limits", "ServerSettings", "build_app", "serve"]

_MODULES = {"Limits": "settings", "ServerSettings": "settings", "build_app": "app", "serve": "server"}

__getattr__ = import_lazily(__name__, _MODULES)
