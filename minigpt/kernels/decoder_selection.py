"""Which decoder continues a text faster than the model's own forward, and when.

The rules are fixed. They come from the table in docs/performance.md, never from a timing.
"""

import functools
from typing import Literal, NamedTuple

import torch
from torch import nn

from minigpt.kernels.compilation import compile_or_warn, has_loaded_loops
from minigpt.kernels.decoder import Decoder, Loops, count_weights
from minigpt.kernels.functional_decode import FunctionalDecoder
from minigpt.kernels.plain_model import is_plain_model
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow
from minigpt.model.modern import Modern
from minigpt.system.fork_detector import ForkDetector

SMALL_WEIGHTS = 2**20  # with this many weights, a token takes PyTorch twice as long as a token of a tiny GPT does
MODERN_TOKEN = 5  # a token of a small Modern, by its modules, takes PyTorch as long as this many tokens of a GPT
_numba_threads = ForkDetector()
_work_before = 0.0  # of the texts for which Numba was not started, in tokens of a tiny GPT


class Limits(NamedTuple):
    """When compiled loops are faster than PyTorch."""

    min_tokens: int = 32  # for fewer, PyTorch is as fast
    min_shared_weights: int = 2**20  # with fewer, two threads wait for each other for as long as they work
    max_weights: int = 2**28  # with more, the loops' own copy of the weights would take over a gigabyte
    max_width: int = 128  # channels; for several wider rows PyTorch's large products are faster
    max_window: int = 2**31  # weights times positions; with more, PyTorch's large products are faster past block_size
    start_tokens: int = 2048  # in the time in which Numba starts, PyTorch generates that many tokens of a tiny GPT
    max_functional_weights: int = 2**24  # with more, calling the modules takes hardly any of a token's time


def build_decoder(window: ContextWindow, tokens: int, limits: Limits) -> Decoder | None:
    """Build the fastest decoder for `tokens` more tokens, or return None where the model's forward is fastest."""
    global _work_before
    model = window.model
    if not isinstance(model, GPT | Modern) or window.cache is None or window.idx is None:
        return None
    if window.idx.is_cuda:
        has_room = isinstance(model, GPT) and window.cache.length < model.config.block_size
        return _build_graph_decoder(window) if has_room else None
    loops = select_loops(model, len(window.idx), window.cache.length, tokens, limits)
    if loops is not None:
        work = _estimate_work(model, len(window.idx), tokens)
        if _is_worth_loading(work, limits) and _can_compile(loops):
            from minigpt.kernels.numba_stream import NumbaDecoder

            return NumbaDecoder(window, loops)
        _work_before += work
    is_small_gpt = isinstance(model, GPT) and count_weights(model) <= limits.max_functional_weights
    return FunctionalDecoder(window) if tokens and is_small_gpt and is_plain_model(model, quantized=True) else None


def describe_decoder(model: nn.Module, tokens: int) -> str:
    """Describe how a text of `tokens` tokens is generated, for run.json."""
    loops = select_loops(model, 1, 0, tokens, Limits()) if isinstance(model, GPT | Modern) else None
    if loops is None:
        return "PyTorch"
    return f"compiled loops in {loops.parts} part{'s' if loops.parts > 1 else ''}"


def should_use_loops(model: nn.Module, tokens: int) -> bool:
    """Return True if `build_decoder` uses compiled loops for a text of `tokens` tokens in this process."""
    limits = Limits()
    loops = select_loops(model, 1, 0, tokens, limits) if isinstance(model, GPT | Modern) else None
    return loops is not None and _is_worth_loading(_estimate_work(model, 1, tokens), limits)


def _estimate_work(model: nn.Module, rows: int, tokens: int) -> float:
    """Return the number of tokens of a tiny GPT that take PyTorch as long as these texts."""
    work = tokens * (1 + rows * count_weights(model) / SMALL_WEIGHTS)
    return MODERN_TOKEN * work if isinstance(model, Modern) else work


def _is_worth_loading(work: float, limits: Limits) -> bool:
    """Return True if Numba has started, or if its start takes less time than this text and those before it took."""
    return has_loaded_loops() or _work_before + work >= limits.start_tokens


def select_loops(model: GPT | Modern, rows: int, length: int, tokens: int, limits: Limits) -> Loops | None:
    """Select the compiled loops for a text.

    Args:
        model: the model that continues it.
        rows: texts in the batch.
        length: tokens that the model has read already.
        tokens: tokens to generate.
        limits: when loops are worth it.

    Returns:
        The loops, or None where PyTorch is faster, the model has something that the loops do not know, or this process
        was forked from one that used the loops.
    """
    size, block_size = count_weights(model), model.config.block_size
    if size > limits.max_weights or _numba_threads.is_forked or not is_plain_model(model, quantized=True):
        return None
    kind: Literal["row", "rows", "modern"] = "modern" if isinstance(model, Modern) else "row" if rows == 1 else "rows"
    if kind != "row" and model.config.n_embd > limits.max_width:
        return None
    room = block_size - length
    window = tokens > room and size * block_size <= limits.max_window
    if rows * (tokens if window else min(tokens, room)) < limits.min_tokens:
        return None
    parts = 2 if kind == "row" and size >= limits.min_shared_weights and model.config.n_head % 2 == 0 else 1
    return Loops(parts, kind, window)


def _build_graph_decoder(window: ContextWindow) -> Decoder | None:
    """Record a CUDA graph; None where that cannot be done."""
    from minigpt.kernels.cuda_graph import GraphDecoder

    try:
        with torch.inference_mode():
            return GraphDecoder(window)
    except RuntimeError:
        return None


@functools.cache
def _can_compile(loops: Loops) -> bool:
    """Compile loops, or load them. Warn once and return False where Numba is missing or cannot work."""
    _numba_threads.mark_started()  # in a process forked from this one, they would end it

    def load() -> bool:
        from minigpt.kernels.numba_stream import compile_loops

        compile_loops(loops)
        return True

    return bool(compile_or_warn("loops that generate text", load, "text is written with PyTorch, more slowly"))
