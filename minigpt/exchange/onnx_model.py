"""A run's model as a function of tensors only, which ONNX can hold: the KV cache goes in and comes out.

Shapes: B batch, T new tokens, P tokens in the cache, H heads, D head size, C channels, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.model.gpt import GPT
from minigpt.model.kv_cache import KVCache
from minigpt.model.language_model import TrainedModel
from minigpt.model.modern import EMBEDDING_LAYER, Modern


class TensorCache(KVCache):
    """A KV cache whose tensors are arguments of the model. What the next call needs is collected.

    Attributes:
        present: keys and values of all tokens so far, (B, H, P + T, D), of one layer after the other.
        present_shifts: the last input of each token shift, (B, 1, C), first that of the embedding.
    """

    def __init__(self, positions: Tensor, mask: Tensor, past: Sequence[Tensor], shifts: Sequence[Tensor] = ()) -> None:
        """Take what the model sees.

        Args:
            positions: the positions of the new tokens, (T,) or (B, T).
            mask: True where a new token may see a token, (T, P + T) or (B, 1, T, P + T).
            past: keys and values (B, H, P, D) of the cached tokens, of one layer after the other.
            shifts: the last input of each token shift, (B, 1, C).
        """
        super().__init__()
        self.positions, self.mask, self.past, self.shifts = positions, mask, past, shifts
        self.present: list[Tensor] = []
        self.present_shifts: list[Tensor] = []

    def get_positions(self, T: int, device: torch.device) -> Tensor:
        """Return the positions that were given."""
        return self.positions

    def build_mask(self, T: int, device: torch.device) -> Tensor:
        """Return the mask that was given."""
        return self.mask

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (B, H, T, D) of new tokens to those of a layer."""
        k = torch.cat([self.past[2 * layer], k], dim=2)
        v = torch.cat([self.past[2 * layer + 1], v], dim=2)
        self.present += [k, v]
        return k, v

    def swap_shift_input(self, layer: int, x: Tensor) -> Tensor:
        """Collect the last position of x (B, T, C), and return that of the call before."""
        self.present_shifts.append(x[:, -1:])
        return self.shifts[layer - EMBEDDING_LAYER]

    def advance(self, T: int) -> None:
        """Do nothing: the lengths are those of the tensors."""


class OnnxModel(nn.Module):
    """A model that reads unknown tokens as the mean of all, and writes known ones only."""

    def __init__(self, model: TrainedModel) -> None:
        """Take a model over, and add a row for the unknown token to its embedding."""
        super().__init__()
        self.model, self.vocab_size = model, model.config.vocab_size
        table = model.token_embedding_table.weight.detach()
        model.token_embedding_table = nn.Embedding.from_pretrained(torch.cat([table, table.mean(dim=0, keepdim=True)]))

    def compute_logits(self, idx: Tensor, cache: KVCache) -> Tensor:
        """Return the logits (B, T, V) of new tokens (B, T)."""
        # With a cache and no targets, a model computes the last position only. The loss is no output, so the export
        # leaves it out.
        return self.model(idx, idx, cache)[0][..., : self.vocab_size]


class OnnxBigram(OnnxModel):
    """The bigram model, which needs no cache."""

    def forward(self, input_ids: Tensor) -> Tensor:
        """Token ids (B, T) -> logits (B, T, V)."""
        return self.model(input_ids)[0]


class OnnxGPT(OnnxModel):
    """The GPT with the arguments of transformers' GPT-2."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, past_key_values: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Predict the next token at every position.

        Args:
            input_ids: token ids (B, T).
            attention_mask: 0 for tokens that fill up a row of a batch, else 1, (B, P + T).
            position_ids: positions of the tokens, (B, T).
            past_key_values: keys and values (B, H, P, D), of one layer after the other.

        Returns:
            The logits (B, T, V), and the keys and values (B, H, P + T, D).
        """
        T, P = input_ids.shape[1], past_key_values[0].shape[2]
        torch._check(attention_mask.shape[1] == P + T)
        seen, new = torch.arange(P + T), torch.arange(P, P + T)[:, None]
        # A token always sees itself, because an average over no token is not a number.
        mask = (seen <= new) & ((attention_mask[:, None, None] != 0) | (seen == new))  # (B, 1, T, P + T)
        cache = TensorCache(position_ids, mask, past_key_values)
        return self.compute_logits(input_ids, cache), *cache.present


class OnnxModern(OnnxModel):
    """The modern architecture. Its token shifts also keep the last token; all rows of a batch have the same length."""

    def forward(self, input_ids: Tensor, past_key_values: list[Tensor], past_shift: list[Tensor]) -> tuple[Tensor, ...]:
        """Predict the next token at every position.

        Args:
            input_ids: token ids (B, T).
            past_key_values: keys and values (B, H, P, D), of one layer after the other.
            past_shift: the last input of each token shift, (B, 1, C).

        Returns:
            The logits (B, T, V), the keys and values (B, H, P + T, D), and the inputs of the shifts (B, 1, C).
        """
        T, P = input_ids.shape[1], past_key_values[0].shape[2]
        new = torch.arange(P, P + T)
        cache = TensorCache(new, torch.arange(P + T) <= new[:, None], past_key_values, past_shift)
        return self.compute_logits(input_ids, cache), *cache.present, *cache.present_shifts


@dataclass(frozen=True)
class OnnxSignature:
    """A model and what `torch.onnx.export` asks about it.

    Attributes:
        model: the module to export.
        arguments: an example of its arguments.
        dynamic_shapes: the names of the dimensions that may vary, for each argument.
        inputs: the names of the tensors in `arguments`.
        outputs: the names of the results.
    """

    model: OnnxModel
    arguments: tuple[Any, ...]
    dynamic_shapes: tuple[Any, ...]
    inputs: list[str]
    outputs: list[str]


def make_signature(model: TrainedModel) -> OnnxSignature:
    """Return the module to export, with example arguments and names. The module takes `model` over."""
    config, B, T, P = model.config, 2, 3, 4  # any lengths of 2 and more
    ids, tokens = torch.zeros(B, T, dtype=torch.int64), {0: "batch", 1: "length"}
    pairs = [f"{layer}.{part}" for layer in range(config.n_layer) for part in ("key", "value")]
    past = [torch.zeros(B, config.n_head, P, config.n_embd // config.n_head) for _ in pairs]
    dimensions = [{0: "batch", 2: "past"} for _ in pairs]
    past_names, present = [f"past_key_values.{pair}" for pair in pairs], [f"present.{pair}" for pair in pairs]
    if isinstance(model, GPT):
        arguments = (ids, torch.ones(B, P + T, dtype=torch.int64), torch.arange(P, P + T).repeat(B, 1), past)
        shapes = (tokens, {0: "batch", 1: "total"}, tokens, dimensions)
        inputs = ["input_ids", "attention_mask", "position_ids", *past_names]
        return OnnxSignature(OnnxGPT(model), arguments, shapes, inputs, ["logits", *present])
    if isinstance(model, Modern):
        shifts = [torch.zeros(B, 1, config.n_embd) for _ in range(config.n_layer + 1)]
        names, results = ([f"{kind}_shift.{n}" for n in range(len(shifts))] for kind in ("past", "present"))
        given = (tokens, dimensions, [{0: "batch"} for _ in shifts])
        inputs, outputs = ["input_ids", *past_names, *names], ["logits", *present, *results]
        return OnnxSignature(OnnxModern(model), (ids, past, shifts), given, inputs, outputs)
    return OnnxSignature(OnnxBigram(model), (ids,), (tokens,), ["input_ids"], ["logits"])
