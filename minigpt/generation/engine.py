"""The generation engine: token ids in, token ids out. It never sees a string."""

import functools
import logging
import threading
import warnings
from collections.abc import Collection, Iterator
from types import ModuleType

import torch
from torch import Tensor

from minigpt.config import SamplingConfig
from minigpt.generation.backend_selection import Loops, loops_for
from minigpt.generation.cached import CachedReader, ModernReader, PlainReader
from minigpt.generation.filters import apply_temperature, draw, keep_top_k, keep_top_p
from minigpt.model import LanguageModel
from minigpt.model.gpt import GPT
from minigpt.model.modern import Modern

logger = logging.getLogger(__name__)
STOPPED = -1  # in the place of a token, for a row that has ended


def next_token(logits: Tensor, config: SamplingConfig, uniforms: Tensor) -> Tensor:
    """The next token of each row: (B, V) logits and (B,) random numbers in [0, 1) to (B,) ids."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.double() - logits.amax(dim=-1, keepdim=True)  # so that no temperature overflows
    logits = apply_temperature(logits, config.temperature)
    if config.top_k is not None:
        logits = keep_top_k(logits, config.top_k)
    if config.top_p is not None:
        logits = keep_top_p(logits, config.top_p)
    return draw(logits, uniforms)


def stream(model: LanguageModel, idx: Tensor, config: SamplingConfig, stop: Collection[int] = ()) -> Iterator[Tensor]:
    """Continue each row of `idx` (B, T), T at least 1, and yield the new tokens (B,) one step at a time.

    At every step the model sees the last block_size tokens. The random numbers come from the config's
    seed and the CPU, whatever device the model is on, so every way to the same logits chooses alike. A row
    that has come to a token of `stop` yields STOPPED from there on, and the stream ends when all have.
    Dropout is off meanwhile.
    """
    if not stop:
        yield from choices(model, idx, config)
        return
    alive, ends = torch.ones(len(idx), dtype=torch.bool), torch.tensor(sorted(stop), dtype=torch.int64)
    for chosen in choices(model, idx, config):
        alive &= ~torch.isin(chosen, ends)
        if not alive.any():
            return
        yield chosen.where(alive, STOPPED)


def generate(model: LanguageModel, idx: Tensor, config: SamplingConfig, stop: Collection[int] = ()) -> Tensor:
    """The tokens that follow each row of `idx` (B, T): (B, N), where N is max_new_tokens or, if all stop, less."""
    steps = list(stream(model, idx, config, stop))
    return torch.stack(steps, dim=1) if steps else torch.empty(len(idx), 0, dtype=torch.int64)


def choices(model: LanguageModel, idx: Tensor, config: SamplingConfig) -> Iterator[Tensor]:
    """The max_new_tokens tokens (B,) that follow, one after another, by the fastest way there is.

    A GPT, a modern one too, reads each token once (generation/cached.py); alone on a CPU it goes on in compiled loops
    (kernels/numba_stream.py). Any other model reads its whole window again each time.
    """
    generator = torch.Generator()
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    reader = reader_of(model, len(idx))
    was_training = model.training
    model.eval()
    try:
        chosen = one(reader, idx, config, generator)
        yield chosen
        left = config.max_new_tokens - 1
        loops = loops_for(reader, left) if isinstance(reader, CachedReader) else None
        compiled = compiled_loops(loops) if loops else None
        if compiled:
            for token in compiled.continued(loops, reader, int(chosen), left, config, generator):
                yield token
                left, chosen = left - 1, token
        for _ in range(left):
            chosen = one(reader, chosen[:, None].to(idx.device), config, generator)
            yield chosen
    finally:
        model.train(was_training)


def reader_of(model: LanguageModel, batch_size: int) -> CachedReader | ModernReader | PlainReader:
    """What reads for that model, so many rows at a time."""
    if isinstance(model, GPT):
        return CachedReader(model, batch_size)
    return ModernReader(model, batch_size) if isinstance(model, Modern) else PlainReader(model)


def one(
    reader: CachedReader | ModernReader | PlainReader,
    tokens: Tensor,
    config: SamplingConfig,
    generator: torch.Generator,
) -> Tensor:
    """The token of each row (B,) that follows once `tokens` (B, t) are read too."""
    with torch.inference_mode():  # not around a yield: what the caller does meanwhile is not in it
        logits = reader.read(tokens)  # (B, V)
    uniforms = torch.rand(len(tokens), generator=generator, dtype=torch.float64)
    return next_token(logits.cpu(), config, uniforms)


@functools.cache
def compiled_loops(loops: Loops) -> ModuleType | None:
    """kernels/numba_stream.py, ready; None, and a warning once, if Numba is missing or cannot work here."""
    notice = threading.Timer(1.5, logger.info, ["compiling the loops that write text, once on this machine ..."])
    notice.start()
    try:
        from minigpt.kernels import numba_stream as continued

        continued.warm_up(loops)
        return continued
    except Exception as error:  # Numba's own errors, those of its cache's folder, or an ImportError
        reason = str(error).split("\n")[0]
        warnings.warn(f"text is written with PyTorch, more slowly: Numba does not work here ({reason})", stacklevel=2)
        return None
    finally:
        notice.cancel()
