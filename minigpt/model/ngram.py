"""An n-gram model with modified Kneser-Ney smoothing: the best baseline that only counts.

An n-gram is n tokens in a row. The model predicts a token from the n - 1 tokens before it, its context. It
uses how often each token followed this context in the training text. Most long contexts occur there once or
never, so the model also needs the shorter contexts. How it combines them is called smoothing. This file has
interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, "An Empirical Study of Smoothing Techniques
for Language Modeling", section 3; Kneser and Ney 1995). It has four ideas:

1. Interpolation. The longest context gives a part of its probability to the context that is one token
   shorter, which does the same, down to the uniform distribution over the vocabulary:

       p_k(w | context) = max(c(context w) - D, 0) / c(context) + leftover(context) * p_{k-1}(w | shorter context)

2. Discounts. The leftover is what the discount D takes off the counts: D1 off a count of one, D2 off two, D3
   off three or more. D1, D2 and D3 are computed from the training text (`compute_discounts`).
3. Continuation counts. Below the longest order, c is not how often an n-gram occurs but after how many
   different tokens it occurs. "Francisco" may be frequent, but it follows one word only. So it should be
   unlikely after a new context.
4. A context that never occurred changes nothing: p_k is then p_{k-1}.

The n-grams of one order are a sorted list of integers, their keys: index of the context * vocab_size + token,
where the context is an n-gram of the order below. So the tokens that follow one context lie side by side, and
a binary search finds an n-gram.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError, DataError
from minigpt.model.lecture import compute_next_token_loss

DEFAULT_DISCOUNTS = (0.5, 1.0, 1.5)  # KenLM's, where the formula does not apply
PROBABILITIES_PER_CHUNK = 2**20  # limits the memory of a table of probabilities (rows, V)


@dataclass(frozen=True)
class NGramConfig:
    """The shape of an n-gram model.

    Args:
        vocab_size: the number of different tokens.
        order: the length of the longest n-gram. Order 3 predicts a token from the two before it.

    Raises:
        ConfigError: a value is below 1.
    """

    vocab_size: int
    order: int

    def __post_init__(self) -> None:
        if self.order < 1 or self.vocab_size < 1:
            raise ConfigError(f"order and vocab_size must be at least 1, not {self.order} and {self.vocab_size}")

    @property
    def block_size(self) -> int:
        """The number of tokens that the model sees: order - 1, but at least 1, as sampling needs a token."""
        return max(1, self.order - 1)


class NGramModel(nn.Module):
    """An n-gram model with interpolated modified Kneser-Ney smoothing, made by `fit`.

    It has no parameters. Its buffers are the n-grams of each order.
    """

    orders: "list[NGramOrder]"

    def __init__(self, config: NGramConfig, orders: "Sequence[NGramOrder]") -> None:
        super().__init__()
        self.config = config
        self.orders = nn.ModuleList(orders)  # type: ignore[assignment]

    @classmethod
    def fit(cls, ids: Tensor | Sequence[int], vocab_size: int, order: int) -> Self:
        """Count the n-grams of a text, of every length from 1 to `order`.

        Args:
            ids: the token ids of the training text, (N,).
            vocab_size: the number of different tokens.
            order: the length of the longest n-gram.

        Returns:
            The model.

        Raises:
            ConfigError: `vocab_size` or `order` is below 1.
            DataError: an id is outside the vocabulary.
        """
        config = NGramConfig(vocab_size, order)
        ids = _to_valid_ids(ids, vocab_size)
        keys: list[Tensor] = []
        counts: list[Tensor] = []
        starting = torch.zeros(len(ids) + 1, dtype=torch.int64)  # index of the (k-1)-gram that starts at each position
        for k in range(1, order + 1):
            all_keys = starting[: max(0, len(ids) - k + 1)] * vocab_size + ids[k - 1 :]  # context, then token
            distinct, longer, occurrences = all_keys.unique(return_inverse=True, return_counts=True)
            if k > 1:  # idea 3: each distinct k-gram adds one to the count of the (k-1)-gram at its end
                suffix = torch.empty_like(distinct)
                suffix[longer] = starting[1 : len(longer) + 1]
                counts[-1] = suffix.bincount(minlength=len(keys[-1]))
            keys.append(distinct)
            counts.append(occurrences)
            starting = longer
        contexts = [1, *map(len, keys)]
        return cls(config, [NGramOrder(*parts, vocab_size) for parts in zip(keys, counts, contexts[:-1], strict=True)])

    @property
    def n_grams(self) -> int:
        """The number of n-grams of all orders together."""
        return sum(len(order.keys) for order in self.orders)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Predict the next token at every position from the last order - 1 tokens.

        Args:
            idx: token ids (B, T), int64.
            targets: the token that follows each of `idx`, (B, T), int64.

        Returns:
            Log-probabilities (B, T, V), float64, which serve as logits; and the mean loss in nats, or None
            without `targets`.
        """
        contexts = self._find_contexts(idx)
        flat = [context.flatten() for context in contexts]  # (B * T) each
        logits = self._compute_probabilities(flat).log().view(*idx.shape, -1)  # (B * T, V) -> (B, T, V)
        return logits, compute_next_token_loss(logits, targets)

    @torch.inference_mode()
    def log_probs(self, ids: Tensor | Sequence[int]) -> Tensor:
        """Return the log-probabilities of every token of the vocabulary, at every position of a text.

        Args:
            ids: the token ids of the text, (N,).

        Returns:
            (N, V), float64. Row i predicts ids[i] from the ids before it; row 0 has no context.
        """
        contexts = self._find_contexts_before(ids)
        rows = torch.empty(len(contexts[0]), self.config.vocab_size, dtype=torch.float64)
        for chunk in self._split_into_chunks(len(rows)):
            torch.log(self._compute_probabilities([context[chunk] for context in contexts]), out=rows[chunk])
        return rows

    @torch.inference_mode()
    def token_losses(self, ids: Tensor | Sequence[int]) -> Tensor:
        """Return the loss of every token of a text, each predicted once from the order - 1 tokens before it.

        Args:
            ids: the N token ids of the text.

        Returns:
            The losses in nats of the N - 1 tokens after the first, (N - 1,), float64.
        """
        contexts = self._find_contexts_before(ids)
        targets = _to_valid_ids(ids, self.config.vocab_size)
        losses = torch.empty(len(targets), dtype=torch.float64)
        for chunk in self._split_into_chunks(len(targets)):
            probabilities = self._compute_probabilities([context[chunk] for context in contexts])  # (n, V)
            losses[chunk] = -probabilities.gather(1, targets[chunk, None]).squeeze(1).log()
        return losses[1:]

    def _split_into_chunks(self, length: int) -> list[slice]:
        """Return slices of up to PROBABILITIES_PER_CHUNK / V rows."""
        size = max(1, PROBABILITIES_PER_CHUNK // self.config.vocab_size)
        return [slice(i, min(i + size, length)) for i in range(0, length, size)]

    def _find_contexts_before(self, ids: Tensor | Sequence[int]) -> list[Tensor]:
        """Return `_find_contexts` shifted by one token: the contexts that end before each id, one (N,) an order."""
        empty, *contexts = self._find_contexts(_to_valid_ids(ids, self.config.vocab_size))
        return [empty, *map(_shift_right, contexts)]

    def _find_contexts(self, ids: Tensor) -> list[Tensor]:
        """Return the index of the context that ends at each id, (..., T) for each order; -1 where it never occurred.

        The context of order k is a (k-1)-gram.
        """
        contexts = [torch.zeros_like(ids)]  # the empty context is everywhere
        shorter = contexts[0]
        for order in self.orders[:-1]:
            contexts.append(order.find(shorter, ids))
            shorter = _shift_right(contexts[-1])
        return contexts

    def _compute_probabilities(self, contexts: list[Tensor]) -> Tensor:
        """Return the probabilities (N, V) of the next token after contexts from `_find_contexts`, (N,) each."""
        p = torch.full((len(contexts[0]), self.config.vocab_size), 1 / self.config.vocab_size, dtype=torch.float64)
        for order, context in zip(self.orders, contexts, strict=True):
            order.interpolate_(p, context)
        return p


class NGramOrder(nn.Module):
    """The n-grams of one length, with their discounted probabilities.

    Args:
        keys: the sorted keys of the n-grams, (M,), int64.
        counts: the count of each n-gram, (M,), int64.
        contexts: the number of contexts, which are the n-grams of the order below.
        vocab_size: the number of different tokens.
    """

    keys: Tensor
    shares: Tensor
    starts: Tensor
    leftover: Tensor

    def __init__(self, keys: Tensor, counts: Tensor, contexts: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        discount = torch.tensor((0.0, *compute_discounts(counts)), dtype=torch.float64)[counts.clamp(max=3)]  # (M,)
        context = keys // vocab_size  # (M,)
        totals = torch.zeros(contexts, dtype=torch.float64).index_add(0, context, counts.double())
        discounted = torch.zeros(contexts, dtype=torch.float64).index_add(0, context, discount)
        # A context without continuations, such as the end of the text, leaves all its probability.
        self.register_buffer("leftover", torch.where(totals > 0, discounted / totals, 1.0))  # (contexts,)
        self.register_buffer("shares", ((counts - discount) / totals[context]).nan_to_num(0.0))  # (M,)
        self.register_buffer("keys", keys)
        self.register_buffer("starts", torch.searchsorted(keys, torch.arange(contexts + 1) * vocab_size))

    def find(self, context: Tensor, token: Tensor) -> Tensor:
        """Return the index of the n-gram `context` + `token`, or -1 where it never occurred.

        Args:
            context: indices of contexts, int64, any shape; -1 for a context that never occurred.
            token: the tokens after them, int64, the same shape.

        Returns:
            Indices of n-grams, int64, the same shape.
        """
        if not len(self.keys):
            return torch.full_like(token, -1)
        key = context * self.vocab_size + token
        index = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where((context >= 0) & (self.keys[index] == key), index, -1)

    def interpolate_(self, p: Tensor, context: Tensor) -> None:
        """Turn the probabilities after the shorter context into those after `context`, in place.

        Args:
            p: probabilities (N, V) of the next token, float64.
            context: indices of contexts (N,), int64; rows with -1 stay as they are.
        """
        rows = (context >= 0).nonzero().squeeze(1)
        context = context[rows]
        p[rows] *= self.leftover[context][:, None]
        first = self.starts[context]
        lengths = self.starts[context + 1] - first  # the number of different tokens after each context
        steps = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        entries = first.repeat_interleave(lengths) + steps  # the n-grams of all rows, one row after another
        p[rows.repeat_interleave(lengths), self.keys[entries] % self.vocab_size] += self.shares[entries]


def compute_discounts(counts: Tensor) -> tuple[float, float, float]:
    """Return the discounts D1, D2 and D3 of Chen and Goodman for counts of one, two, and three or more.

    With n_j the number of n-grams of count j: Y = n1 / (n1 + 2 n2), and D_j = j - (j + 1) Y n_{j+1} / n_j.
    The discounts are 0.5, 1 and 1.5 where n1, n2 or n3 is zero, as at order 1, where every count is large,
    or where a D_j is not above 0 and at most j.

    Args:
        counts: the counts of all n-grams of one order, (M,), int64.

    Returns:
        (D1, D2, D3).
    """
    n = counts.clamp(max=5).bincount(minlength=6).tolist()
    if not all(n[1:4]):
        return DEFAULT_DISCOUNTS
    Y = n[1] / (n[1] + 2 * n[2])
    D1, D2, D3 = (j - (j + 1) * Y * n[j + 1] / n[j] for j in (1, 2, 3))
    return (D1, D2, D3) if 0 < D1 <= 1 and 0 < D2 <= 2 and 0 < D3 <= 3 else DEFAULT_DISCOUNTS


def _shift_right(contexts: Tensor) -> Tensor:
    """Move (..., T) one position to the right, with -1 at the first."""
    return torch.cat([torch.full_like(contexts[..., :1], -1), contexts[..., :-1]], dim=-1)


def _to_valid_ids(ids: Tensor | Sequence[int], vocab_size: int) -> Tensor:
    """Return the ids as an int64 tensor (N,) on the CPU; raise DataError if one is outside the vocabulary."""
    ids = torch.as_tensor(ids, dtype=torch.int64, device="cpu")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(f"ids run from {int(ids.min())} to {int(ids.max())}: they must lie in 0 to {vocab_size - 1}")
    return ids
