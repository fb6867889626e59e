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
from minigpt.kernels.numba_sampling import Sampling
from minigpt.kernels.numba_window import WindowDecoder
from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import ContextWindow, KVCache
from minigpt.model.quantization import quantize_layers

MAX_CHUNK = 32  # tokens in a call from Python, which costs a few microseconds
CHUNK_WORK = 2**26  # weights, times positions where a window is read, for a call: some milliseconds
TRIAL_INTERVAL = 40  # calls after which the number of threads is chosen again


class NumbaDecoder:
    """Continues a text of one row with compiled loops."""

    def __init__(self, window: ContextWindow, loops: Loops) -> None:
        self.window, self.loops = window, loops

    def stream(self, token: Tensor, count: int, sampler: Sampler) -> Iterator[Tensor]:
        """Yield at most `count` tokens (1,), and add those that were read to the window.

        Without `loops.window` the stream ends once the context window is full.

        Args:
            token: the last token (1,), which the window has not read.
            count: the number of tokens to yield.
            sampler: how to choose tokens, and its random numbers.
        """
        window, model, config = self.window, self.window.model, sampler.config
        assert window.cache is not None
        sampling = Sampling(float(config.temperature), config.top_k or 0, float(config.top_p or 1))
        size, block_size = count_weights(model), model.config.block_size
        threads = min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"])
        tokens, room = [int(token)], block_size - window.cache.length
        if room:
            decoder = CachedDecoder(window, tokens[0], sampling, self.loops.parts)
            most = threads if self.loops.parts > 1 else 1
            for chunk in _stream_chunks(decoder, min(count, room), size, most, sampler):
                tokens += chunk[:, 0].tolist()
                yield from chunk.unbind()
        window.append(torch.tensor([tokens[:-1]], dtype=torch.int64))
        left = count + 1 - len(tokens)
        if left and self.loops.window:
            past = WindowDecoder(window, tokens[-1], sampling)
            for chunk in _stream_chunks(past, left, size * block_size, threads, sampler):
                yield from chunk.unbind()


def _stream_chunks(
    decoder: CachedDecoder | WindowDecoder, count: int, work: int, most: int, sampler: Sampler
) -> Iterator[Tensor]:
    """Yield `count` tokens in chunks (N, 1), by one thread or by `most`, whichever is faster.

    Threads that share a token wait for each other. Where another program uses one of the cores, they wait a hundred
    times as long as they work. So both numbers are timed now and then. The tokens are the same.
    """
    seconds: dict[int, float] = {}
    size = max(1, min(MAX_CHUNK, CHUNK_WORK // work))
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
    shape = ModelConfig(vocab_size=2, block_size=3, n_embd=2, n_head=2, n_layer=1, tied_head=loops.tied)
    with torch.random.fork_rng(devices=[]):
        model = GPT(shape).to("cpu", torch.float32)
    if loops.int8:
        quantize_layers(model, "int8")
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            window = ContextWindow(model, KVCache())
            window.read(torch.zeros(1, 1, dtype=torch.int64))
            for _ in NumbaDecoder(window, loops).stream(torch.zeros(1), 4, _WarmupSampler()):
                pass
    finally:
        torch.set_num_threads(threads)  # starting Numba's threads changes PyTorch's number of threads
