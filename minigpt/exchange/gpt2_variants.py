"""Variants of GPT-2 that compute what our GPT can: another epsilon of layer norm, narrower feed-forward layers."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.errors import ExchangeError

EPSILON = 1e-5  # our GPT's layer norm has it
MIN_EPSILON, MAX_EPSILON = 1e-13, 1.0
_PARTS = ("weight", "bias")


def require_epsilon(value: Any, name: str, where: str) -> float:
    """Return an epsilon of layer norm. Raise ExchangeError for one that cannot be converted into ours.

    Args:
        value: what a file has.
        name: what the file calls it.
        where: the file, for the message.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not MIN_EPSILON <= value <= MAX_EPSILON:
        known = f"{MIN_EPSILON:g} to {MAX_EPSILON:g}"
        raise ExchangeError(f"{where} has {name} {value!r}, and only {known} can be read")
    return float(value)


def require_inner(value: Any, config: ModelConfig, name: str, where: str) -> int:
    """Return the number of hidden numbers of feed-forward layers. Raise ExchangeError for more than ours have.

    Args:
        value: what a file has; None for four times n_embd.
        config: the model's configuration.
        name: what the file calls it.
        where: the file, for the message.
    """
    most = 4 * config.n_embd
    if value is None:
        return most
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ExchangeError(f"{where} has {name} {value!r}, and only 1 to {most:,}, 4 times n_embd, can be read")
    return value


def convert_variant(weights: dict[str, Tensor], config: ModelConfig, inner: int, epsilon: float) -> None:
    """Change weights, in place, so that our GPT computes what the variant does.

    Args:
        weights: the parameters of a GPT, by our names.
        config: its configuration.
        inner: the hidden numbers of its feed-forward layers, at most 4 * n_embd.
        epsilon: the epsilon of its layer norms.
    """
    if inner < 4 * config.n_embd:
        pad_feed_forward(weights, config)
    if not math.isclose(epsilon, EPSILON, rel_tol=1e-6):  # a file may have it in float32
        fold_epsilon(weights, config, epsilon)


def fold_epsilon(weights: dict[str, Tensor], config: ModelConfig, epsilon: float) -> None:
    """Change weights, in place, so that layer norms with our epsilon compute those of another one.

    The proof. Let u be the input of a layer norm, m its mean and v its variance. Multiply u by c > 0:

        (c * u - c * m) / sqrt(c^2 * v + EPSILON) = (u - m) / sqrt(v + EPSILON / c^2)

    With c = sqrt(EPSILON / epsilon) that is the layer norm with the other epsilon. The input of every layer norm is a
    sum of embeddings, of outputs of attention and of outputs of feed-forward layers. So it is multiplied by c if the
    embeddings and the last layer of each part are. A tied head gets the embedding times c, so the last layer norm is
    divided by c.

    Args:
        weights: the parameters of a GPT, by our names.
        config: its configuration.
        epsilon: the epsilon that the weights were trained with.
    """
    c = math.sqrt(EPSILON / epsilon)
    scaled = ["token_embedding_table.weight", "position_embedding_table.weight"]
    for layer in range(config.n_layer):
        scaled += [f"blocks.{layer}.{name}.{part}" for name in ("attention.proj", "ffwd.down") for part in _PARTS]
    for name in scaled:
        weights[name] = weights[name] * c
    if config.tied_head:
        for part in _PARTS:
            weights[f"ln_f.{part}"] = weights[f"ln_f.{part}"] / c


def compute_stored_shape(name: str, shape: Sequence[int], inner: int) -> tuple[int, ...]:
    """Return the shape of a tensor where the feed-forward layers have `inner` hidden numbers.

    Args:
        name: our name of the tensor.
        shape: its shape with 4 * n_embd hidden numbers.
        inner: the other number.
    """
    if ".ffwd.up." in name:
        return (inner, *shape[1:])
    return (*shape[:-1], inner) if name.endswith(".ffwd.down.weight") else tuple(shape)


def pad_feed_forward(weights: dict[str, Tensor], config: ModelConfig) -> None:
    """Add hidden numbers to narrow feed-forward layers, in place, up to 4 * n_embd.

    Their weights are zero. ReLU and GELU of zero are zero, so they change nothing.

    Args:
        weights: the parameters of a GPT, by our names.
        config: its configuration.
    """
    for layer in range(config.n_layer):
        up, up_bias, down = (f"blocks.{layer}.ffwd.{name}" for name in ("up.weight", "up.bias", "down.weight"))
        missing = 4 * config.n_embd - len(weights[up])
        weights[up] = F.pad(weights[up], (0, 0, 0, missing))
        weights[up_bias], weights[down] = (F.pad(weights[name], (0, missing)) for name in (up_bias, down))
