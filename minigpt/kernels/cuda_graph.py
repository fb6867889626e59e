"""A CUDA graph of one decoding step of GPT.

Where a model is small, starting an operation takes the CPU longer than the GPU needs to run it, and a step is some
dozens of operations. A CUDA graph records them once and starts them all together (Ng et al. 2020, "CUDA graphs"; so
does gpt-fast). The graph records the model's own forward. Only the contents of memory may differ from step to step,
so the token and its position are in tensors that stay where they are, and attention sees the whole cache, masked
where nothing is written yet.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.kernels.decoder import Sampler
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow, KVCache

WARMUP_STEPS = 3  # before the recording; meanwhile libraries choose their algorithms


class StaticCache(KVCache):
    """A KV cache of fixed size for one new token at a time; nothing in it depends on a Python number.

    Attributes:
        position: that of the next token, (1,), int64.
    """

    def __init__(self, cache: KVCache, capacity: int) -> None:
        """Copy a cache into one with room for `capacity` positions."""
        super().__init__()
        self._static = [F.pad(stored, (0, 0, 0, capacity - cache.length)) for stored in cache.keys_and_values()]
        self.length = cache.length
        self.position = torch.full((1,), cache.length, device=self._static[0].device)
        self._places = torch.arange(capacity, device=self._static[0].device)  # (S,)

    def get_positions(self, T: int, device: torch.device) -> Tensor:
        """Return the position of the next token, (1,)."""
        return self.position

    def build_mask(self, T: int, device: torch.device) -> Tensor:
        """Return which positions the new token may see: (1, S), bool."""
        return (self._places <= self.position)[None]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the key and value (B, H, 1, D) of a new token, and return all, (B, H, S, D) each."""
        keys, values = self._static[layer]
        keys.index_copy_(2, self.position, k)
        values.index_copy_(2, self.position, v)
        return keys, values

    def advance(self, T: int) -> None:
        """Count T more tokens; the position's tensor is set before the next step."""
        self.length += T


class GraphDecoder:
    """Decodes with a recorded step until the context window is full."""

    def __init__(self, window: ContextWindow) -> None:
        """Record a step for the model and the batch of a window that has read a prompt.

        Raises:
            RuntimeError: the step cannot be recorded.
        """
        model, cache = window.model, window.cache
        assert isinstance(model, GPT)
        assert cache is not None
        assert window.idx is not None
        self.window = window
        self.cache = StaticCache(cache, model.config.block_size)
        self.token = torch.zeros(len(window.idx), 1, dtype=torch.int64, device=window.idx.device)
        self.graph = torch.cuda.CUDAGraph()
        self._record(model)
        self.cache.length = cache.length

    def _record(self, model: GPT) -> None:
        """Run the step a few times on a stream of its own, then record it. It writes where the next token will."""
        device = self.token.device
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            for _ in range(WARMUP_STEPS):
                model(self.token, cache=self.cache)
        torch.cuda.current_stream(device).wait_stream(stream)
        with torch.cuda.graph(self.graph):
            logits, _ = model(self.token, cache=self.cache)  # (B, 1, V)
            self.logits = logits[:, -1]

    def step(self, token: Tensor) -> Tensor:
        """Read one more token (B,) of each row and return the logits (B, V) of the next."""
        self.token.copy_(token[:, None])
        self.cache.position.fill_(self.cache.length)
        self.graph.replay()
        self.cache.advance(1)
        return self.logits.clone()

    def stream(self, token: Tensor, count: int, sampler: Sampler) -> Iterator[Tensor]:
        """Yield at most `count` tokens (B,) that follow `token` (B,), and add those that were read to the window.

        Args:
            token: the last token, which the window has not read.
            count: tokens to yield; fewer if the context window is full before.
            sampler: how to choose tokens.
        """
        room = self.window.model.config.block_size - self.cache.length
        for _ in range(min(count, room)):
            with torch.inference_mode():
                logits = self.step(token)
            self.window.append(token[:, None])
            token = sampler.choose(logits)
            yield token
