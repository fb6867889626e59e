"""A GPT's parameters as tables of addresses, from which the compiled loops read them."""

from collections.abc import Sequence

import numpy as np
from numpy import ndarray
from torch import Tensor

from minigpt.kernels.plain_model import get_bias, get_weight
from minigpt.model.gpt import GPT


def list_parameters(model: GPT) -> list[Tensor | None] | None:
    """Return a model's parameters in the order of `numba_forward`'s addresses; None where the model has no bias.

    A matrix with adapters is the sum of both. Autograd takes its gradient on to the adapters. The blocks come first:
    their sizes are multiples of 16 where n_embd is, so their gradients begin at multiples of 64 bytes.

    Returns:
        The parameters, or None if an adapter drops some of its inputs, which no matrix does.
    """
    parameters: list[Tensor | None] = []
    for block in model.blocks:
        attention, ffwd = block.attention, block.ffwd
        for layer in (block.ln1, attention.qkv, attention.proj, block.ln2, ffwd.up, ffwd.down):
            weight = get_weight(layer)
            if weight is None:
                return None
            parameters += [weight, get_bias(layer)]
    tokens, head = model.token_embedding_table.weight, model.lm_head
    parameters += [tokens, model.position_embedding_table.weight, model.ln_f.weight, model.ln_f.bias]
    parameters += [tokens, None] if head is None else [get_weight(head), get_bias(head)]
    return parameters if head is None or parameters[-2] is not None else None


def unique_parameters(parameters: Sequence[Tensor | None]) -> list[Tensor]:
    """Return the parameters that exist, each once: a tied head is the token embedding."""
    return list(dict.fromkeys(p for p in parameters if p is not None))


def make_tables(tensors: Sequence[Tensor | None], missing: Tensor) -> tuple[ndarray, ndarray]:
    """Return the addresses of tensors outside of the blocks (6,) and in the blocks (L, 12)."""
    addresses = np.array([(missing if tensor is None else tensor).data_ptr() for tensor in tensors])
    return addresses[-6:], addresses[:-6].reshape(-1, 12)
