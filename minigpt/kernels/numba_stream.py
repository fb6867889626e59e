"""A decoder of compiled loops: token by token until the context window is full, then window by window.

Importing this file needs Numba. The first use compiles the loops, once on a machine.
"""

import time
from collections.abc import Iterator

import numba
import torch
from torch import Tensor

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.kernels.decoder import Loops, Sampler, count_weights
from minigpt.kernels.numba_decode import CachedDecoder
from minigpt.kernels.numba_rows import ModernRowsDecoder, RowsDecoder
from minigpt.kernels.numba_sampling import Sampling, sample_tokens
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow, KVCache
from minigpt.model.modern import Modern

MAX_CHUNK = 32  # tokens in a call from Python, which costs a few microseconds
CHUNK_WORK = 2**26  # weights that a call reads: some milliseconds
TRIAL_INTERVAL = 40  # calls after which the number of threads is chosen again


class NumbaDecoder:
    """Continues the rows of a context window with compiled loops."""

    def __init__(self, window: ContextWindow, loops: Loops) -> None:
        self.window, self.loops = window, loops

    def stream(self, token: Tensor, count: int, sampler: Sampler) -> Iterator[Tensor]:
        """Yield at most `count` tokens (B,), and add those that were read to the window.

        Without `loops.window` the stream ends once the context window is full.

        Args:
            token: the last token of each row (B,), which the window has not read.
            count: the number of tokens to yield.
            sampler: how to choose tokens, and its random numbers.
        """
        window, config = self.window, sampler.config
        sampling = Sampling(float(config.temperature), config.top_k or 0, float(config.top_p or 1))
        stages = [self._stream_row] if self.loops.kind == "row" else []
        for stage in (*stages, self._stream_rows):
            read = []
            for next_token in stage(token, count, sampler, sampling):
                read.append(token)
                token, count = next_token, count - 1
                yield token
            if read:
                window.append(torch.stack(read, dim=1))

    def _stream_row(self, token: Tensor, count: int, sampler: Sampler, sampling: Sampling) -> Iterator[Tensor]:
        """Yield tokens (1,) until the window of a single row is full."""
        window = self.window
        assert window.cache is not None
        room = window.model.config.block_size - window.cache.length
        if room and count:
            decoder = CachedDecoder(window, int(token), sampling, self.loops.parts)
            threads = min(self.loops.parts, torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"])
            size = max(1, min(MAX_CHUNK, CHUNK_WORK // count_weights(window.model)))
            for chunk in _stream_chunks(decoder, min(count, room), size, threads, sampler):
                yield from chunk

    def _stream_rows(self, token: Tensor, count: int, sampler: Sampler, sampling: Sampling) -> Iterator[Tensor]:
        """Yield tokens (B,), by a cache until the windows are full, and then by reading them again for each token."""
        assert self.window.idx is not None
        is_full = self.window.idx.shape[1] == self.window.model.config.block_size
        if count and (self.loops.window or not is_full):
            kind = ModernRowsDecoder if self.loops.kind == "modern" else RowsDecoder
            decoder, tokens = kind(self.window, torch.get_num_threads()), token.numpy()
            while count and (self.loops.window or not decoder.is_full):
                uniforms = sampler.draw_uniforms(len(tokens)).numpy()
                tokens = sample_tokens(decoder.read(tokens), sampling, uniforms)
                yield torch.from_numpy(tokens)
                count -= 1


def _stream_chunks(decoder: CachedDecoder, count: int, size: int, most: int, sampler: Sampler) -> Iterator[Tensor]:
    """Yield `count` tokens in chunks (N, 1) of `size` tokens, by one thread or by `most`, whichever is faster.

    Threads that share a token wait for each other. Where another program uses one of the cores, they wait a hundred
    times as long as they work. So both numbers are timed now and then. The tokens are the same.
    """
    seconds: dict[int, float] = {}
    for n, start in enumerate(range(0, count, size)):
        trial = n % TRIAL_INTERVAL
        threads = (1, most)[trial] if trial < 2 else min(seconds, key=seconds.__getitem__)
        numba.set_num_threads(threads)
        uniforms = sampler.draw_uniforms(min(size, count - start)).numpy()
        start_time = time.perf_counter()
        tokens = decoder.decode(uniforms)
        seconds[threads] = (time.perf_counter() - start_time) / len(tokens)
        yield torch.from_numpy(tokens)[:, None]


class _WarmupSampler:
    """Random numbers and a configuration for the compilation."""

    config = SamplingConfig(top_k=1)

    def draw_uniforms(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.float64)

    def choose(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=-1)


def compile_loops(loops: Loops) -> None:
    """Compile these loops, or load them from the cache. Raises whatever prevents it."""
    if vars(numba.config)["DISABLE_JIT"]:
        raise RuntimeError("NUMBA_DISABLE_JIT switches its compiler off")
    shape = ModelConfig(vocab_size=2, block_size=3, n_embd=4, n_head=2, n_layer=1)
    with torch.random.fork_rng(devices=[]):
        model = (Modern if loops.kind == "modern" else GPT)(shape).to("cpu", torch.float32).eval()
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            window = ContextWindow(model, KVCache())
            token = torch.zeros(2 if loops.kind == "rows" else 1, dtype=torch.int64)
            window.read(token[:, None])
            for _ in NumbaDecoder(window, loops).stream(token, 4, _WarmupSampler()):
                pass
    finally:
        torch.set_num_threads(threads)  # starting Numba's threads changes PyTorch's number of threads
