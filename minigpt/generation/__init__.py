"""Generation: token ids in, token ids out.

The names are imported when they are first used, so that nothing is loaded that a command does not need.
"""

from typing import TYPE_CHECKING

from minigpt.system.lazy_imports import import_lazily

if TYPE_CHECKING:
    from minigpt.generation.engine import Sampler, choose_next_token, decode, generate, prefill, stream
    from minigpt.generation.filters import apply_temperature, filter_logits, keep_top_k, keep_top_p, sample_token

__all__ = [
    "Sampler",
    "apply_temperature",
    "choose_next_token",
    "decode",
    "filter_logits",
    "generate",
    "keep_top_k",
    "keep_top_p",
    "prefill",
    "sample_token",
    "stream",
]

_MODULES = {
    "Sampler": "engine",
    "apply_temperature": "filters",
    "decode": "engine",
    "filter_logits": "filters",
    "generate": "engine",
    "keep_top_k": "filters",
    "keep_top_p": "filters",
    "choose_next_token": "engine",
    "prefill": "engine",
    "sample_token": "filters",
    "stream": "engine",
}

__getattr__ = import_lazily(__name__, _MODULES)
