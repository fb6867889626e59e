"""The KV cache, the context window that uses it, and a short sampling loop: the model reads each token once.

Attention needs the keys and values of all earlier tokens. They do not change while the text grows, so a cache keeps
them (Pope et al. 2022, "Efficiently Scaling Transformer Inference"). `KVCache` is that cache. `ContextWindow` decides
when to use it. Up to block_size tokens, the model reads only the new tokens. After that the window moves, every token
gets a new position, and the model reads the whole window again for each token. `sample_with_cache` samples with
both. `minigpt sample` uses `generation/engine.py` instead, which has temperature, top-k, top-p and compiled decoders.

Shapes: B batch, T new tokens, S all tokens so far, H heads, D head size, C channels, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

INITIAL_CAPACITY = 64  # positions; the capacity doubles when it is used up


class KVCache:
    """Keys and values of the tokens read so far, and the last input of each token shift. It grows as needed.

    A cache belongs to one model and one batch. Use it under `torch.no_grad()`.

    Attributes:
        length: the number of tokens read so far.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys_and_values: dict[int, Tensor] = {}  # layer: (2, B, H, capacity, D)
        self._last_inputs: dict[int, Tensor] = {}  # layer: (B, 1, C)

    def get_positions(self, T: int, device: torch.device) -> Tensor:
        """Return the positions (T,), int64, of the next T tokens."""
        return torch.arange(self.length, self.length + T, device=device)

    def build_mask(self, T: int, device: torch.device) -> Tensor | None:
        """Return a mask (T, S), bool: True where a new token may see a token.

        Return None if no mask is needed: for a single new token, which sees all tokens, and for an empty cache, where a
        causal mask is enough.
        """
        if T == 1 or self.length == 0:
            return None
        return torch.ones(T, self.length + T, dtype=torch.bool, device=device).tril(self.length)

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values of new tokens to those of a layer.

        Args:
            layer: the number of the block, from 0.
            k: keys (B, H, T, D).
            v: values (B, H, T, D).

        Returns:
            The keys and values of all tokens so far, (B, H, S, D) each.
        """
        end = self.length + k.shape[2]
        stored = self._keys_and_values.get(layer)
        if stored is None:
            B, H, _, D = k.shape
            stored = k.new_zeros(2, B, H, max(end, INITIAL_CAPACITY), D)
        elif end > stored.shape[3]:
            stored = F.pad(stored, (0, 0, 0, 2 * end - stored.shape[3]))
        self._keys_and_values[layer] = stored
        stored[0, :, :, self.length : end], stored[1, :, :, self.length : end] = k, v
        return stored[0, :, :, :end], stored[1, :, :, :end]

    def swap_shift_input(self, layer: int, x: Tensor) -> Tensor:
        """Store the last position of x (B, T, C) and return the position that the previous call stored, (B, 1, C).

        `modern.TokenShift` adds to each position a share of the one before it. So it needs the last position of the
        tokens before x. The first call returns zeros. `layer` is the number of the block, or -1 for the embedding.
        """
        previous = self._last_inputs.get(layer)
        self._last_inputs[layer] = x[:, -1:]
        return torch.zeros_like(x[:, :1]) if previous is None else previous

    def advance(self, T: int) -> None:
        """Add T to `length`. Call this after every layer has stored its keys and values."""
        self.length += T

    def reset(self) -> None:
        """Forget all tokens; the memory stays reserved."""
        self.length = 0
        self._last_inputs.clear()

    def keys_and_values(self) -> list[Tensor]:
        """Return the keys and values of each layer, (2, B, H, S, D), for a decoder that copies them."""
        return [self._keys_and_values[layer][:, :, :, : self.length] for layer in sorted(self._keys_and_values)]

    def last_inputs(self) -> list[Tensor]:
        """Return what each token shift stored, (B, 1, C), in the order of the layers, for a decoder that copies it."""
        return [self._last_inputs[layer] for layer in sorted(self._last_inputs)]


class ContextWindow:
    """The last block_size tokens of each row of a batch. A model reads them to predict the next token.

    Attributes:
        model: a language model.
        cache: the KV cache of the model. None for a model without one: it reads the whole window each time.
        idx: the tokens in the window, (B, T), int64, with T at most block_size. None before the first call.
    """

    def __init__(self, model: Any, cache: KVCache | None) -> None:
        self.model, self.cache = model, cache
        self.idx: Tensor | None = None

    def read(self, tokens: Tensor) -> Tensor:
        """Read more tokens (B, T), T at least 1, and return the logits (B, V) of the token that follows them."""
        self.append(tokens)
        assert self.idx is not None
        if self.cache is None:
            return self.model(self.idx)[0][:, -1]
        if self.cache.length + tokens.shape[1] != self.idx.shape[1]:  # the window moved, or the cache missed tokens
            self.cache.reset()
            tokens = self.idx
        return self.model(tokens, cache=self.cache)[0][:, -1]

    def append(self, tokens: Tensor) -> None:
        """Add tokens (B, T) that a compiled decoder has read. The model reads them at the next call of `read`."""
        idx = tokens if self.idx is None else torch.cat([self.idx, tokens.to(self.idx.device)], dim=1)
        self.idx = idx[:, -min(self.model.config.block_size, idx.shape[1]) :]


@torch.no_grad()
def sample_with_cache(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    """Sample one token after another from the model's probabilities, with a KV cache.

    The tokens are those of `lecture.append_sampled_tokens` with the same weights and the same `torch.manual_seed`.
    `minigpt sample` uses `generation/engine.py`.

    Args:
        model: a GPT or a Modern, in evaluation mode if it has dropout.
        idx: the token ids to continue, (B, T), int64, with T at least 1.
        max_new_tokens: the number of tokens to append to each row.

    Returns:
        `idx` and the new tokens, (B, T + max_new_tokens), int64.
    """
    window, next_token = ContextWindow(model, KVCache()), idx
    for _ in range(max_new_tokens):
        probabilities = F.softmax(window.read(next_token), dim=-1)  # (B, V)
        next_token = torch.multinomial(probabilities, num_samples=1)  # (B, 1)
        idx = torch.cat([idx, next_token], dim=1)
    return idx
