"""The generation engine: token ids in, token ids out. It never sees a string."""

import functools
import warnings
from collections.abc import Collection, Iterator
from types import ModuleType

import torch
from torch import Tensor

from minigpt.config import SamplingConfig
from minigpt.model import LanguageModel, count_parameters
from minigpt.model.gpt import GPT
from minigpt.sampling.cached import CachedReader, PlainReader
from minigpt.sampling.filters import apply_temperature, draw, keep_top_k, keep_top_p

STOPPED = -1  # in the place of a token, for a row that has ended
MOST_PARAMETERS = 2**26  # with more, memory is what a token waits for, and PyTorch has all threads to read it
WORTH_COMPILING = 128  # tokens: loading what was compiled takes as long as PyTorch takes for some hundred


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

    A GPT reads each token once (sampling/cached.py); alone on a CPU it goes on in compiled loops
    (sampling/decode.py) until its window is full. Any other model reads its whole window again each time.
    """
    generator = torch.Generator()
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    reader = CachedReader(model, len(idx)) if isinstance(model, GPT) else PlainReader(model)
    was_training = model.training
    model.eval()
    try:
        left, tokens = config.max_new_tokens, idx
        while left:
            with torch.inference_mode():  # not beyond the yield: what the caller does meanwhile is not in it
                logits = reader.read(tokens)  # (B, V)
            uniforms = torch.rand(len(idx), generator=generator, dtype=torch.float64)
            chosen = next_token(logits.cpu(), config, uniforms)  # (B, V) -> (B,)
            yield chosen
            left -= 1
            compiled = decode() if left and isinstance(reader, CachedReader) and suits_loops(reader, config) else None
            if compiled:
                for token in compiled.continued(reader, int(chosen), left, config, generator):
                    chosen = torch.tensor([token])
                    yield chosen
                    left -= 1
            tokens = chosen[:, None].to(idx.device)
    finally:
        model.train(was_training)


def suits_loops(reader: CachedReader, config: SamplingConfig) -> bool:
    """Whether the compiled loops go on from here: fixed by docs/performance.md's table, never by a timing."""
    weight, cache = reader.model.ln_f.weight, reader.cache
    suits = weight.device.type == "cpu" and weight.dtype == torch.float32 and cache.batch_size == 1
    room = reader.model.config.block_size - cache.length
    enough = min(config.max_new_tokens, room) >= WORTH_COMPILING
    return suits and enough and count_parameters(reader.model) <= MOST_PARAMETERS


@functools.cache
def decode() -> ModuleType | None:
    """sampling/decode.py; None, and a warning once, if Numba is missing or cannot work here."""
    try:
        from minigpt.sampling import decode

        decode.warm_up()
        return decode
    except Exception as error:  # Numba's own errors, those of its cache's folder, or an ImportError
        reason = str(error).split("\n")[0]
        warnings.warn(f"text is written with PyTorch, more slowly: Numba does not work here ({reason})", stacklevel=2)
        return None
