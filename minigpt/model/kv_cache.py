"""What a model keeps of the tokens it has read, so that each token is read once.

Attention asks for the keys and values of all earlier tokens. They do not change while the text grows, so a cache
keeps them (Pope et al. 2022, "Efficiently Scaling Transformer Inference"). `KVCache` is that cache. `ContextWindow`
decides when it can be used: once the window of block_size tokens is full and moves on, every token has a new
position, and the model reads the whole window again.

Shapes: B batch, T new tokens, S all tokens so far, H heads, D head size, C channels, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

FIRST_CAPACITY = 64  # positions; the capacity doubles when it is used up


class KVCache:
    """Keys and values of the tokens read so far, and the last input of each token shift. It grows as needed.

    A cache belongs to one model and one batch. It is made for reading without gradients.

    Attributes:
        length: the number of tokens read so far.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys_and_values: dict[int, Tensor] = {}  # layer: (2, B, H, capacity, D)
        self._last_inputs: dict[int, Tensor] = {}  # layer: (B, 1, C)

    def positions(self, T: int, device: torch.device) -> Tensor:
        """Return the positions (T,), int64, of the next T tokens."""
        return torch.arange(self.length, self.length + T, device=device)

    def mask(self, T: int, device: torch.device) -> Tensor | None:
        """Return which of the S tokens each of the T new ones may see: (T, S), bool.

        None stands for the two simple cases: a single token sees all others, and in an empty cache each token sees
        itself and the tokens before it.
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
            stored = k.new_zeros(2, B, H, max(end, FIRST_CAPACITY), D)
        elif end > stored.shape[3]:
            stored = F.pad(stored, (0, 0, 0, 2 * end - stored.shape[3]))
        self._keys_and_values[layer] = stored
        stored[0, :, :, self.length : end], stored[1, :, :, self.length : end] = k, v
        return stored[0, :, :, :end], stored[1, :, :, :end]

    def exchange_last_input(self, layer: int, x: Tensor) -> Tensor:
        """Keep the last position of a token shift's input x (B, T, C), and return the one kept before, (B, 1, C).

        Before the first token it is zero. `layer` is the number of the block, or -1 for the embedding.
        """
        previous = self._last_inputs.get(layer)
        self._last_inputs[layer] = x[:, -1:]
        return torch.zeros_like(x[:, :1]) if previous is None else previous

    def advance(self, T: int) -> None:
        """Count T more tokens as read, once every layer has stored theirs."""
        self.length += T

    def reset(self) -> None:
        """Forget all tokens; the memory stays reserved."""
        self.length = 0
        self._last_inputs.clear()

    def keys_and_values(self) -> list[Tensor]:
        """Return the keys and values of each layer, (2, B, H, S, D), for a decoder that copies them."""
        return [self._keys_and_values[layer][:, :, :, : self.length] for layer in sorted(self._keys_and_values)]


class ContextWindow:
    """The last block_size tokens of each row of a batch, which a model reads to predict the next one.

    Attributes:
        model: the model that reads.
        cache: what it keeps of the tokens in the window, or None for a model that reads the whole window each time.
        idx: the tokens in the window, (B, T), int64, with T at most block_size; None before the first.
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
        """Add tokens (B, T) that somebody else has read: the model reads them with the next ones."""
        idx = tokens if self.idx is None else torch.cat([self.idx, tokens.to(self.idx.device)], dim=1)
        self.idx = idx[:, -min(self.model.config.block_size, idx.shape[1]) :]


@torch.no_grad()
def append_sampled_tokens(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    """Sample one token after another from the model's probabilities, with a KV cache.

    The tokens are those of `lecture.append_sampled_tokens` with the same weights and the same `torch.manual_seed`.

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
