"""Exercise 17: the KV cache."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn
from minigpt.learn.outcomes import name_parts, require

TEXT = """
To write the next token, the model needs the keys and values of all earlier tokens. They do not change while the text
grows. So they are kept, and the model reads only the new tokens.

    first call, 3 tokens of the prompt    keys  k0 k1 k2
    second call, 1 new token              keys  k0 k1 k2 k3       only k3 is computed

The new queries see all kept positions, and of the new ones those up to their own. With S positions in all and T new
ones, the new token i stands at position S - T + i. T = 2 new tokens after 3 old ones:

              position  0 1 2 3 4
    new token 0         1 1 1 1 0          this is torch.ones(T, S).tril(S - T)
    new token 1         1 1 1 1 1
"""

EXPERIMENT = """
torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 6, 4).unbind(0)  # (B, T, D) each: 6 tokens
whole = attend_to_cache(q, k, v)
cache = {}
pieces = []
for first, last in ((0, 3), (3, 4), (4, 6)):  # 3 tokens, then 1, then 2
    keys, values = append_to_cache(cache, k[:, first:last], v[:, first:last])
    pieces.append(attend_to_cache(q[:, first:last], keys, values))
    print(f"read {last - first} new tokens, {keys.shape[1]} in the cache")
print("in pieces the result is the same:", torch.allclose(torch.cat(pieces, dim=1), whole, atol=1e-6))
"""


def append_to_cache(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Add the keys and values of new tokens to a cache.

    Args:
        cache: empty at first; then it has the tensors "k" and "v" of the tokens so far. It is changed.
        k: keys of the new tokens, (B, T, D).
        v: values of the new tokens, (B, T, D).

    Returns:
        The keys and values of all tokens so far, (B, S, D) each.
    """
    if cache:
        k, v = torch.cat([cache["k"], k], dim=1), torch.cat([cache["v"], v], dim=1)
    cache["k"], cache["v"] = k, v
    return k, v


def attend_to_cache(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from the new tokens to all tokens up to each of them.

    Args:
        q: queries of the T new tokens, the last of S, (B, T, D).
        keys: of all tokens, (B, S, D).
        values: of all tokens, (B, S, D).

    Returns:
        The weighted means of the values, (B, T, D). The scores are divided by sqrt(D).
    """
    T, S = q.shape[1], keys.shape[1]
    scores = q @ keys.transpose(-2, -1) * keys.shape[-1] ** -0.5
    scores = scores.masked_fill(torch.ones(T, S).tril(S - T) == 0, float("-inf"))
    return F.softmax(scores, dim=-1) @ values


CACHE_EMPTY = (
    'The cache must have the keys "k" and "v" after a call: cache["k"] = ... changes it, cache = {...} does not.'
)


def _append(my: Any, lengths: tuple[int, ...], B: int = 1) -> dict[str, Any]:
    """Append pieces of these lengths; return what each call returns, and the cache."""
    cache: dict[str, Tensor] = {}
    found: dict[str, Any] = {}
    for n, T in enumerate(lengths):
        result = my.append_to_cache(cache, randn(B, T, 2, seed=n), randn(B, T, 2, seed=n + 9))
        parts = name_parts("append_to_cache", result, "the keys", "the values")
        found |= {f"{name} of call {n + 1}": value for name, value in parts.items()}
    require(cache.keys() == {"k", "v"}, CACHE_EMPTY)
    return {**found, 'cache["k"] afterwards': cache["k"], 'cache["v"] afterwards': cache["v"]}


def _attend(my: Any, T: int, S: int, B: int = 1, D: int = 2) -> Tensor:
    """Attend from T new tokens to S."""
    return my.attend_to_cache(randn(B, T, D), randn(B, S, D, seed=1), randn(B, S, D, seed=2))


def _wrong_attend(
    mask: Callable[[Tensor, int], Tensor] = lambda ones, offset: ones.tril(offset),
    scale: Callable[[Tensor], float] = lambda keys: keys.shape[-1] ** -0.5,
    dim: int = -1,
) -> dict[str, Any]:
    """Return attention with one part exchanged."""

    def attend_to_cache(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        T, S = q.shape[1], keys.shape[1]
        scores = q @ keys.transpose(-2, -1) * scale(keys)
        hidden = mask(torch.ones(T, S), S - T) == 0
        return F.softmax(scores.masked_fill(hidden, float("-inf")), dim=dim) @ values

    return {"attend_to_cache": attend_to_cache}


def _wrong_append(
    join: Callable[[Tensor, Tensor], Tensor], join_values: Callable[[Tensor, Tensor], Tensor] | None = None
) -> dict[str, Any]:
    """Return a cache that joins old and new in another way."""

    def append_to_cache(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> Any:
        if cache:
            k, v = join(cache["k"], k), (join_values or join)(cache["v"], v)
        cache["k"], cache["v"] = k, v
        return k, v

    return {"append_to_cache": append_to_cache}


def _never_stored(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> Any:
    if cache:
        return torch.cat([cache["k"], k], dim=1), torch.cat([cache["v"], v], dim=1)
    cache["k"], cache["v"] = k, v
    return k, v


def _values_to_keys(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> Any:
    if cache:
        k = torch.cat([cache["k"], k], dim=1)
        v = torch.cat([cache["k"], v], dim=1)
    cache["k"], cache["v"] = k, v
    return k, v


def _new_returned(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> Any:
    append_to_cache(cache, k, v)
    return k, v


def _twice(cache: dict[str, Tensor], k: Tensor, v: Tensor) -> Any:
    if not cache:
        cache["k"], cache["v"] = k, v
    return append_to_cache(cache, k, v)


def _attend_with(choose: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> dict[str, Any]:
    """Return attention with other queries, keys or values."""
    return {"attend_to_cache": lambda q, k, v: attend_to_cache(*choose(q, k, v))}


def _join(old: Tensor, new: Tensor) -> Tensor:
    return torch.cat([old, new], dim=1)


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(append_to_cache, attend_to_cache),
    cases=(
        Case("append_to_cache, one token", lambda my: _append(my, (1,))),
        Case("append_to_cache, 2 tokens and then 1", lambda my: _append(my, (2, 1))),
        Case("append_to_cache, 1 token, 2, and 1 more, in 3 rows", lambda my: _append(my, (1, 2, 1), 3)),
        Case("attend_to_cache, 1 new token of 1", lambda my: _attend(my, 1, 1)),
        Case("attend_to_cache, 1 new token of 3", lambda my: _attend(my, 1, 3)),
        Case("attend_to_cache, 2 new tokens of 2", lambda my: _attend(my, 2, 2)),
        Case("attend_to_cache, 2 new tokens of 4", lambda my: _attend(my, 2, 4)),
        Case("attend_to_cache, 3 new tokens of 7, 2 rows, head size 5", lambda my: _attend(my, 3, 7, 2, 5)),
    ),
    mistakes=tuple(
        Mistake(when, variants)
        for when, variants in (
            (
                "the mask begins at position 0, as if there were no cached tokens: the new tokens stand at the end",
                _wrong_attend(mask=lambda ones, offset: ones.tril()),
            ),
            ("the mask is missing: new tokens see those after them", _wrong_attend(mask=lambda ones, offset: ones)),
            (
                "a new token does not see itself",
                _wrong_attend(mask=lambda ones, offset: ones.tril(offset - 1)),
            ),
            ("the scores are not scaled", _wrong_attend(scale=lambda keys: 1.0)),
            (
                "the scores are divided by the number of positions' root instead of sqrt(D)",
                _wrong_attend(scale=lambda keys: keys.shape[1] ** -0.5),
            ),
            ("the softmax goes over the queries instead of the keys", _wrong_attend(dim=1)),
            ("the new keys and values replace the old ones", _wrong_append(lambda old, new: new)),
            ("the new tokens come before the old ones", _wrong_append(lambda old, new: torch.cat([new, old], dim=1))),
            (
                "the keys grow, but only the newest values are kept",
                _wrong_append(_join, lambda old, new: new),
            ),
            (
                "the values are joined to the keys",
                {"append_to_cache": _values_to_keys},
            ),
            ("only the new keys and values are returned, instead of all", {"append_to_cache": _new_returned}),
            ("the first tokens are stored twice: the empty cache needs an else", {"append_to_cache": _twice}),
            ("the keys are weighted instead of the values", _attend_with(lambda q, k, v: (q, k, k))),
            (
                "the new tokens are hidden: a token sees itself too",
                {"attend_to_cache": lambda q, k, v: attend_to_cache(q, k[:, : -q.shape[1]], v[:, : -q.shape[1]])},
            ),
            ("the mask lets new tokens see the one after them", _wrong_attend(mask=lambda ones, n: ones.tril(n + 1))),
            (
                "what is joined is returned but not stored, so that the cache stops growing",
                {"append_to_cache": _never_stored},
            ),
        )
    ),
    hints=(
        'If the cache is empty, store k and v. Else join them to cache["k"] and cache["v"] along dim=1, the time.',
        "Store the joined tensors in the cache too, and return them.",
        "Attention is that of exercise 7, with the mask torch.ones(T, S).tril(S - T) == 0.",
    ),
    experiment=EXPERIMENT,
)
