"""Generation: token ids in, token ids out.

The names are imported when they are first used, so that nothing is loaded that a command does not need.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

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

__getattr__ = import_lazily(__name__, _MODULES)
