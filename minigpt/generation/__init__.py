"""Generation: token ids in, token ids out.

The names are imported when they are first used, so that nothing is loaded that a command does not need.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minigpt.generation.engine import Sampler, decode, generate, next_token, prefill, stream
    from minigpt.generation.filters import apply_temperature, keep_top_k, keep_top_p, sample_token

__all__ = [
    "Sampler",
    "apply_temperature",
    "decode",
    "generate",
    "keep_top_k",
    "keep_top_p",
    "next_token",
    "prefill",
    "sample_token",
    "stream",
]

_MODULES = {
    "Sampler": "engine",
    "apply_temperature": "filters",
    "decode": "engine",
    "generate": "engine",
    "keep_top_k": "filters",
    "keep_top_p": "filters",
    "next_token": "engine",
    "prefill": "engine",
    "sample_token": "filters",
    "stream": "engine",
}


def __getattr__(name: str) -> Any:
    """Import a public name on its first use (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
