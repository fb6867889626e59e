"""The attention heads of a model: find them, count them, and run the model without some of them (ablation)."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from minigpt.errors import ConfigError
from minigpt.model import LanguageModel, gpt, modern
from minigpt.model.lecture import MultiHeadAttention

FusedAttention = gpt.CausalSelfAttention | modern.CausalSelfAttention  # all heads in one module


def find_attentions(model: LanguageModel) -> list[MultiHeadAttention | FusedAttention]:
    """Return the attention module of each block. Raise ConfigError for a model without attention."""
    found = [part for part in model.modules() if isinstance(part, MultiHeadAttention | FusedAttention)]
    if not found:
        raise ConfigError("this model has no attention heads: look at a transformer's run")
    return found


def count_heads(attention: MultiHeadAttention | FusedAttention) -> int:
    """Return the number of heads."""
    return attention.n_head if isinstance(attention, FusedAttention) else len(attention.heads)


def require_heads(model: LanguageModel, heads: Collection[tuple[int, int]]) -> None:
    """Raise ConfigError if the model lacks one of these heads, each given as (block, head) from 0."""
    if not heads:
        return
    attentions = find_attentions(model)
    L, H = len(attentions), count_heads(attentions[0])
    for block, head in heads:
        if not (0 <= block < L and 0 <= head < H):
            raise ConfigError(
                f"there is no head {head} in block {block}: the blocks are 0 to {L - 1}, and their heads 0 to {H - 1}"
            )


@contextmanager
def without_heads(model: LanguageModel, heads: Collection[tuple[int, int]]) -> Iterator[None]:
    """Set the output of some attention heads to zero within the block.

    Args:
        model: the model.
        heads: (block, head) of each head, from 0. Without heads, any model will do.

    Raises:
        ConfigError: the model does not have one of the heads.
    """
    require_heads(model, heads)
    by_block: dict[int, list[int]] = {}
    for block, head in heads:
        by_block.setdefault(block, []).append(head)
    with ExitStack() as stack:
        for block, numbers in by_block.items():
            for hook in _zero_heads(find_attentions(model)[block], numbers):
                stack.callback(hook.remove)
        yield


def _zero_heads(attention: MultiHeadAttention | FusedAttention, numbers: list[int]) -> list[RemovableHandle]:
    """Register hooks that set the output of these heads to zero, and return them."""

    def return_zeros(head: nn.Module, inputs: object, output: Tensor) -> Tensor:
        return torch.zeros_like(output)

    def clear_heads(attend: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output = output.clone()  # (B, H, T, D)
        output[:, numbers] = 0
        return output

    if isinstance(attention, FusedAttention):
        return [attention.attend.register_forward_hook(clear_heads)]
    return [attention.heads[number].register_forward_hook(return_zeros) for number in numbers]
