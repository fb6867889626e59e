"""A transformer read piece by piece: what was computed for earlier tokens is kept, not computed again."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.kernels.elementwise import rms_norm, token_shift
from minigpt.model import LanguageModel
from minigpt.model.gpt import GPT
from minigpt.model.modern import Modern

FIRST = 64  # positions that a growing cache has room for at first


class Cache:
    """The keys and values of every block for up to block_size positions of B rows, in memory that stays where it is.

    Attributes:
        kv: one (2, B, H, T, D) for each block.
        batch_size: B.
        length: how many positions are filled.
    """

    def __init__(self, model: GPT | Modern, batch_size: int, positions: int | None = None) -> None:
        """For so many positions, by default block_size."""
        config, weight = model.config, model.token_embedding_table.weight
        shape = (2, batch_size, config.n_head, positions or config.block_size, config.n_embd // config.n_head)
        self.kv = [weight.new_zeros(shape) for _ in model.blocks]  # zeros: a masked NaN would still be one
        self.batch_size = batch_size
        self.length = 0


class ModernCache(Cache):
    """That of the modern network, which has something else to remember.

    Attributes:
        before: what each block's feed-forward saw of the last position, (B, 1, C) each.
    """

    def __init__(self, model: Modern, batch_size: int) -> None:
        super().__init__(model, batch_size, FIRST)
        weight = model.token_embedding_table.weight
        self.before = [weight.new_zeros(batch_size, 1, model.config.n_embd) for _ in model.blocks]

    def clear(self) -> None:
        """Forget all."""
        self.length = 0
        self.before = [torch.zeros_like(before) for before in self.before]


def seen(before: Tensor | None, tokens: Tensor, block_size: int) -> Tensor:
    """What a model sees once `tokens` (B, t) have come after those `before`: the last block_size of all."""
    idx = tokens if before is None else torch.cat([before, tokens], dim=1)
    return idx[:, -min(block_size, idx.shape[1]) :]  # a block_size that no weight vouches for may be beyond all slices


def gathered(q: Tensor, k: Tensor, v: Tensor, kv: Tensor, start: int) -> Tensor:
    """What the queries (B, H, t, D) gather once keys and values are in the cache (2, B, H, T, D) from `start` on.

    They are all those that are new, or only the last of them.
    """
    (keys, values), end = kv, start + k.shape[2]
    keys[:, :, start:end], values[:, :, start:end] = k, v
    return F.scaled_dot_product_attention(q, keys[:, :, :end], values[:, :, :end], is_causal=q.shape[2] > 1)


def read(model: GPT, idx: Tensor, cache: Cache) -> Tensor:
    """Logits (B, V) of the token that follows `idx` (B, t), which goes on where the cache ends and into it.

    Either the cache is empty or t is 1, and block_size is not passed: beyond it every position changes, and
    with learned positions so do all keys and values. It is `GPT.forward` but for the last block, in which only
    the last position matters.
    """
    B, t = idx.shape
    start = cache.length
    x = model.embed(idx, start)  # (B * t, C)
    for block, kv in zip(model.blocks, cache.kv, strict=True):
        q, k, v = block.attention.heads(block.ln1(x), t)  # (B, H, t, D) each
        if block is model.blocks[-1]:
            q, x = q[:, :, -1:], x.view(B, t, -1)[:, -1]
        x = x + block.attention.mix(gathered(q, k, v, kv, start))
        x = x + block.ffwd(block.ln2(x))
    cache.length += t
    return model.head(x)


def read_modern(model: Modern, window: Tensor, cache: ModernCache) -> Tensor:
    """The same for the modern network, of a whole `window` (B, T) of which the cache has the beginning: (B, V).

    As there, either the cache is empty or one token is new. The window is needed since what a token is has shares of
    the one before. Keys turn with their position in the window, so that here too they are all anew once it has moved.
    """
    start, (B, T) = cache.length, window.shape
    t = T - start
    known = min(1, start)  # tokens before the new ones that are needed
    x = model.embed(window[:, start - known :]).view(B, known + t, -1)[:, known:].flatten(0, 1)  # (B * t, C)
    for n, (block, kv) in enumerate(zip(model.blocks, cache.kv, strict=True)):
        q, k, v = block.attention.heads(rms_norm(x), t, start)  # (B, H, t, D) each
        x = x + block.attention.mix(gathered(q, k, v, kv, start))
        both = torch.cat([cache.before[n], rms_norm(x).view(B, t, -1)], dim=1)  # (B, 1 + t, C)
        cache.before[n] = both[:, -1:]
        if block is model.blocks[-1]:
            both, x = both[:, -2:], x.view(B, t, -1)[:, -1]
        x = x + block.ffwd.compute(token_shift(both, block.ffwd.before)[:, 1:].flatten(0, 1))
    cache.length = T
    return model.head(x)


class CachedReader:
    """Logits after ever longer rows of tokens."""

    def __init__(self, model: GPT, batch_size: int) -> None:
        self.model = model
        self.cache = Cache(model, batch_size)
        self.idx: Tensor | None = None  # the tokens read, at most block_size of them
        self.step: Callable[[Tensor], Tensor] | None = None  # recorded on a GPU when it is first needed

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of what follows once `tokens` (B, t) are read too."""
        block_size = self.model.config.block_size
        self.idx = seen(self.idx, tokens, block_size)
        if self.cache.length == 0 or self.cache.length + tokens.shape[1] > block_size:  # nothing is known, or all moved
            self.cache.length = 0
            tokens = self.idx
        elif tokens.is_cuda:
            self.step = self.step or recorded(self.model, self.cache)
            return self.step(tokens)
        return read(self.model, tokens, self.cache)

    def skip(self, tokens: Tensor) -> None:
        """Take `tokens` (B, t) as read; what the cache holds is not valid from here on."""
        assert self.idx is not None
        self.idx = seen(self.idx, tokens.to(self.idx.device), self.model.config.block_size)
        self.cache.length = 0


def recorded(model: GPT, cache: Cache) -> Callable[[Tensor], Tensor]:
    """`read` of one token as a CUDA graph; as it is where that cannot be recorded."""
    from minigpt.kernels.cuda_graph import RecordedStep

    try:
        return RecordedStep(model, cache)
    except RuntimeError:
        return functools.partial(read, model, cache=cache)


class ModernReader:
    """The same for the modern network. Its cache grows: no weight vouches for a block_size that a config asks for."""

    def __init__(self, model: Modern, batch_size: int) -> None:
        self.model = model
        self.cache = ModernCache(model, batch_size)
        self.idx: Tensor | None = None  # the tokens read, at most block_size of them

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of what follows once `tokens` (B, t) are read too."""
        self.idx = seen(self.idx, tokens, self.model.config.block_size)
        if self.cache.length + tokens.shape[1] > self.idx.shape[1]:  # the window has moved
            self.cache.clear()
        room = self.cache.kv[0].shape[-2]
        if self.idx.shape[1] > room:
            more = 2 * self.idx.shape[1] - room
            self.cache.kv = [F.pad(kv, (0, 0, 0, more)) for kv in self.cache.kv]
        return read_modern(self.model, self.idx, self.cache)


class PlainReader:
    """The same for any model: the last block_size tokens, all over again each time, as the lecture has it."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.idx: Tensor | None = None

    def read(self, tokens: Tensor) -> Tensor:
        """Logits (B, V) of what follows once `tokens` (B, t) are read too."""
        self.idx = seen(self.idx, tokens, self.model.config.block_size)
        logits, _ = self.model(self.idx)
        return logits[:, -1, :]
