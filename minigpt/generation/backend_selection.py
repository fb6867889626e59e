"""Which of the ways to write serves which model: fixed rules, made from docs/performance.md's table, never a timing."""

from typing import NamedTuple

import torch
from torch import nn

from minigpt.config import SamplingConfig
from minigpt.generation.cached import CachedReader
from minigpt.kernels.onednn_linear import Linear
from minigpt.model.gpt import GPT, Attention, Block, FeedForward
from minigpt.model.int8 import Linear8bit

WORTH_COMPILING = 128  # tokens: loading what was compiled takes as long as PyTorch takes for some hundred
WORTH_SHARING = 2**20  # parameters: with fewer, two threads wait for one another for as long as they work
MOST_PARAMETERS = 2**28  # with more, the loops' own copy of the weights would be more than a gigabyte
LARGEST_WINDOW = 2**31  # parameters times positions: with more, PyTorch's large matrix products read a window faster

EPSILON = 1e-5  # of layer norms
KNOWN = {GPT, Block, Attention, FeedForward, Linear, Linear8bit, nn.Embedding, nn.LayerNorm, nn.ModuleList}


class Loops(NamedTuple):
    """The compiled loops that a text is written with; each kind is compiled on its own."""

    parts: int  # that a layer is cut into
    eight_bits: bool  # whether the matrices are
    window: bool  # whether they go on past block_size
    tied: bool = False  # whether the head is, and so never in 8 bits


def described(model: nn.Module, tokens: int = SamplingConfig.max_new_tokens) -> str:
    """How a text of so many tokens is written, for a run's record."""
    loops = loops_for(CachedReader(model, 1), tokens) if isinstance(model, GPT) else None
    if loops is None:
        return "PyTorch"
    return f"compiled loops in {loops.parts} part{'s' if loops.parts > 1 else ''}"


def size_of(model: GPT) -> int:
    """How many numbers the model holds, those in 8 bits included."""
    return sum(tensor.numel() for tensor in model.state_dict().values())


def loops_for(reader: CachedReader, tokens: int) -> Loops | None:
    """The compiled loops for so many tokens more than a reader has read; None where PyTorch writes them."""
    model = reader.model
    kinds = {type(module) for module in model.modules()}
    weight, block_size = model.ln_f.weight, model.config.block_size
    size = size_of(model)
    known = kinds <= KNOWN and len(kinds & {Linear, Linear8bit}) == 1
    known = known and not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    known = known and all(norm.eps == EPSILON for norm in model.modules() if isinstance(norm, nn.LayerNorm))
    known = known and weight.device.type == "cpu" and weight.dtype == torch.float32
    if not known or reader.cache.batch_size > 1 or size > MOST_PARAMETERS:
        return None
    room = block_size - reader.cache.length
    window = tokens > room and size * block_size <= LARGEST_WINDOW
    if (tokens if window else min(tokens, room)) < WORTH_COMPILING:
        return None
    parts = 2 if size >= WORTH_SHARING and model.config.n_head % 2 == 0 else 1
    return Loops(parts, Linear8bit in kinds, window, model.lm_head is None)
