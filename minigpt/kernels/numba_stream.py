"""The compiled loops as one way to write: token by token until the window is full, then window by window.

Importing this file needs Numba. The first use compiles, which takes some ten seconds, once on a machine.
"""

import time
from collections.abc import Iterator

import numba
import torch
from torch import Tensor

from minigpt.config import ModelConfig, SamplingConfig
from minigpt.generation.backend_selection import Loops, size_of
from minigpt.generation.cached import CachedReader
from minigpt.kernels.numba_decode import Decoder
from minigpt.kernels.numba_ops import Choice
from minigpt.kernels.numba_window import WindowDecoder
from minigpt.model.gpt import GPT
from minigpt.model.int8 import to_8_bits

MOST = 32  # tokens in a call from Python, which costs a few microseconds; fewer where each takes long
WORK = 2**26  # parameters, times positions where a window is read, for a call: some milliseconds
TRIED_EVERY = 40  # calls


def continued(
    loops: Loops, reader: CachedReader, token: int, count: int, config: SamplingConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """At most `count` tokens (1,) that follow `token`, which was chosen after what the reader, of one row, has read.

    Without `loops.window` it ends once the window is full; the reader has then read all but the last token.
    """
    model, choice = reader.model, Choice(float(config.temperature), config.top_k or 0, float(config.top_p or 1))
    size, block_size = size_of(model), model.config.block_size
    threads = min(torch.get_num_threads(), vars(numba.config)["NUMBA_NUM_THREADS"])
    read, room = [token], block_size - reader.cache.length
    if room:
        within = Decoder(reader, token, choice, loops.parts)
        for written in pieces(within, min(count, room), size, threads if loops.parts > 1 else 1, generator):
            read += written[:, 0].tolist()
            yield from written.unbind()
    reader.skip(torch.tensor([read[:-1]], dtype=torch.int64))
    left = count + 1 - len(read)
    if left and loops.window:
        past = WindowDecoder(reader, read[-1], choice)
        for written in pieces(past, left, size * block_size, threads, generator):
            yield from written.unbind()


def pieces(
    decoder: Decoder | WindowDecoder, count: int, work: int, most: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """`count` tokens of the decoder's, (N, 1) at a time, by one thread or as many as `most`, whichever is faster.

    Threads that share a token wait for one another, and where another program has one of the processor's cores, a
    hundred times as long as they work. So both are tried, now and then. The tokens are the same.
    """
    took: dict[int, float] = {}
    chunk = max(1, min(MOST, WORK // work))
    for n, start in enumerate(range(0, count, chunk)):
        threads = (1, most)[n % TRIED_EVERY] if n % TRIED_EVERY < 2 else min(took, key=took.__getitem__)
        numba.set_num_threads(threads)
        uniforms = torch.rand(min(chunk, count - start), generator=generator, dtype=torch.float64).numpy()
        began = time.perf_counter()
        written = decoder.write(uniforms)
        took[threads] = (time.perf_counter() - began) / len(written)
        yield torch.from_numpy(written)[:, None]


def warm_up(loops: Loops) -> None:
    """Compile these loops, or fetch what was compiled before; raises whatever stands in the way."""
    if vars(numba.config)["DISABLE_JIT"]:
        raise RuntimeError("NUMBA_DISABLE_JIT switches its compiler off")
    shape = ModelConfig(vocab_size=2, block_size=3, n_embd=2, n_head=2, n_layer=1, tied_head=loops.tied)
    with torch.random.fork_rng(devices=[]):
        model = GPT(shape).to("cpu", torch.float32)
    if loops.eight_bits:
        to_8_bits(model)
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            reader = CachedReader(model, 1)
            reader.read(torch.zeros(1, 1, dtype=torch.int64))
            for _ in continued(loops, reader, 0, 4, SamplingConfig(top_k=1), torch.Generator()):
                pass
    finally:
        torch.set_num_threads(threads)  # Numba's threads are PyTorch's, and starting them sets how many
