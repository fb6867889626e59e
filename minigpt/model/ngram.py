"""Counting, done well: the n-gram model that every GPT should be held against.

An n-gram is n tokens in a row. The model predicts a token from the n - 1 before it, by what followed
them in the training text. Most long contexts were never seen, or once, so the art is in what to do
then: interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999, "An Empirical Study of
Smoothing Techniques for Language Modeling", section 3; Kneser and Ney 1995). Four ideas:

1. Interpolation. The longest context speaks first and leaves some of its probability to the context
   that is one token shorter, and so on down to the uniform distribution over the vocabulary:

       p_k(w | context) = max(c(context w) - D, 0) / c(context) + leftover(context) * p_{k-1}(w | shorter context)

2. Discounts. What it leaves is what is taken off every count: D1 off a count of one, D2 off two, D3 off
   three or more. How much, the counts of counts tell (`discounts`).
3. Continuation counts. Below the longest order, c counts not how often an n-gram was seen but after how
   many different tokens. "Francisco" may be frequent; it follows one word only, so a context that has
   never been seen should not expect it.
4. A context never seen says nothing: p_k is then p_{k-1}.

The n-grams of an order are kept as one sorted list of whole numbers: the index of the context, an n-gram
of the order below, times the size of the vocabulary, plus the token. So the tokens seen after a context
are neighbours, and looking an n-gram up is a binary search.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from minigpt.errors import ConfigError, DataError
from minigpt.model.lecture import next_token_loss

FALLBACK = (0.5, 1.0, 1.5)  # discounts where the counts of counts leave them undefined; KenLM falls back on the same
NUMBERS_A_CHUNK = 2**20  # of a (rows, V) table of probabilities at a time


@dataclass(frozen=True)
class NGramConfig:
    """The shape of an n-gram model. `order` counts the predicted token: order 3 sees the two before it."""

    vocab_size: int
    order: int

    def __post_init__(self) -> None:
        if self.order < 1 or self.vocab_size < 1:
            raise ConfigError(f"order and vocab_size must be at least 1, not {self.order} and {self.vocab_size}")

    @property
    def block_size(self) -> int:
        """How many tokens the model sees; one too many for order 1, since nothing samples from no token at all."""
        return max(1, self.order - 1)


class NGramModel(nn.Module):
    """An n-gram model with interpolated modified Kneser-Ney smoothing; make one with `fit`.

    It learns no parameters. Its buffers are the n-grams of each order; `n_grams` says how many.
    """

    orders: "list[Order]"

    def __init__(self, config: NGramConfig, orders: "Sequence[Order]") -> None:
        super().__init__()
        self.config = config
        self.orders = nn.ModuleList(orders)  # type: ignore[assignment]

    @classmethod
    def fit(cls, ids: Tensor | Sequence[int], vocab_size: int, order: int) -> Self:
        """Count the n-grams of the token ids (N,), of every length up to `order`.

        Raises ConfigError for an order or vocabulary below 1, DataError for an id outside the vocabulary.
        """
        config = NGramConfig(vocab_size, order)
        ids = checked(ids, vocab_size)
        keys: list[Tensor] = []
        counts: list[Tensor] = []
        grams = torch.zeros(len(ids) + 1, dtype=torch.int64)  # which (k-1)-gram starts at each place; one has length 0
        for k in range(1, order + 1):
            keys_here = grams[: max(0, len(ids) - k + 1)] * vocab_size + ids[k - 1 :]  # a context and what follows it
            distinct, longer, seen = keys_here.unique(return_inverse=True, return_counts=True)
            if k > 1:  # idea 3: each distinct k-gram is one more token before the (k-1)-gram that it ends in
                ends_in = torch.empty_like(distinct)
                ends_in[longer] = grams[1 : len(longer) + 1]
                counts[-1] = ends_in.bincount(minlength=len(keys[-1]))
            keys.append(distinct)
            counts.append(seen)
            grams = longer
        contexts = [1, *map(len, keys)]
        return cls(config, [Order(*parts, vocab_size) for parts in zip(keys, counts, contexts[:-1], strict=True)])

    @property
    def n_grams(self) -> int:
        """How many n-grams the model holds, of all orders together."""
        return sum(len(order.keys) for order in self.orders)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, T) to log-probabilities (B, T, V), and the mean loss in nats if `targets` (B, T) are given.

        They serve as logits. What lies further back than order - 1 tokens makes no difference.
        """
        contexts = self._contexts(idx)
        flat = [context.flatten() for context in contexts]  # (B * T) each
        logits = self._probabilities(flat).log().view(*idx.shape, -1)  # (B * T, V) -> (B, T, V)
        return logits, next_token_loss(logits, targets)

    @torch.inference_mode()
    def log_probs(self, ids: Tensor | Sequence[int]) -> Tensor:
        """Log-probabilities (N, V) in float64: row i predicts ids[i] from the ids before it, row 0 from none."""
        contexts = self._contexts_before(ids)
        rows = torch.empty(len(contexts[0]), self.config.vocab_size, dtype=torch.float64)
        for part in self._chunks(len(rows)):
            torch.log(self._probabilities([context[part] for context in contexts]), out=rows[part])
        return rows

    @torch.inference_mode()
    def token_losses(self, ids: Tensor | Sequence[int]) -> Tensor:
        """The loss in nats of every next-token prediction in a text of N ids, each made once: (N - 1,), float64.

        Each sees the order - 1 tokens before it, wherever they lie: counting knows no windows.
        """
        contexts = self._contexts_before(ids)
        targets = checked(ids, self.config.vocab_size)
        losses = torch.empty(len(targets), dtype=torch.float64)
        for part in self._chunks(len(targets)):
            probabilities = self._probabilities([context[part] for context in contexts])  # (n, V)
            losses[part] = -probabilities.gather(1, targets[part, None]).squeeze(1).log()
        return losses[1:]

    def _chunks(self, length: int) -> list[slice]:
        size = max(1, NUMBERS_A_CHUNK // self.config.vocab_size)
        return [slice(i, min(i + size, length)) for i in range(0, length, size)]

    def _contexts_before(self, ids: Tensor | Sequence[int]) -> list[Tensor]:
        """As `_contexts`, but what lies before each of the ids (N,), without it: order tensors (N,)."""
        empty, *contexts = self._contexts(checked(ids, self.config.vocab_size))
        return [empty, *map(delayed, contexts)]

    def _contexts(self, ids: Tensor) -> list[Tensor]:
        """For each order, which of its contexts ends at each of the ids (..., T), or -1 where it was never seen.

        The context of order k is a (k-1)-gram: the index of its last token after the index of the rest.
        """
        contexts = [torch.zeros_like(ids)]  # the empty context, seen everywhere
        before = contexts[0]
        for order in self.orders[:-1]:
            contexts.append(order.find(before, ids))
            before = delayed(contexts[-1])
        return contexts

    def _probabilities(self, contexts: list[Tensor]) -> Tensor:
        """Probabilities (N, V) of the next token after contexts given as `_contexts` gives them, (N,) each."""
        p = torch.full((len(contexts[0]), self.config.vocab_size), 1 / self.config.vocab_size, dtype=torch.float64)
        for order, context in zip(self.orders, contexts, strict=True):
            order.refine(p, context)
        return p


class Order(nn.Module):
    """The n-grams of one length: what each context has seen after it, discounted, and what it leaves."""

    keys: Tensor
    shares: Tensor
    starts: Tensor
    leftover: Tensor

    def __init__(self, keys: Tensor, counts: Tensor, contexts: int, vocab_size: int) -> None:
        """From the sorted keys (M,) of the n-grams, how much each counts (M,), and how many contexts there are."""
        super().__init__()
        self.vocab_size = vocab_size
        off = torch.tensor((0.0, *discounts(counts)), dtype=torch.float64)[counts.clamp(max=3)]  # (M,)
        context = keys // vocab_size  # (M,)
        totals = torch.zeros(contexts, dtype=torch.float64).index_add(0, context, counts.double())
        taken = torch.zeros(contexts, dtype=torch.float64).index_add(0, context, off)
        # A context that nothing counts after, such as the end of the text, leaves everything.
        self.register_buffer("leftover", torch.where(totals > 0, taken / totals, 1.0))  # (contexts,)
        self.register_buffer("shares", ((counts - off) / totals[context]).nan_to_num(0.0))  # (M,)
        self.register_buffer("keys", keys)
        self.register_buffer("starts", torch.searchsorted(keys, torch.arange(contexts + 1) * vocab_size))

    def find(self, context: Tensor, token: Tensor) -> Tensor:
        """The index of the n-gram: `token` after `context` (an index, or -1), any shape; -1 where it isn't there."""
        if not len(self.keys):
            return torch.full_like(token, -1)
        key = context * self.vocab_size + token
        place = torch.searchsorted(self.keys, key).clamp(max=len(self.keys) - 1)
        return torch.where((context >= 0) & (self.keys[place] == key), place, -1)

    def refine(self, p: Tensor, context: Tensor) -> None:
        """Turn the shorter context's probabilities p (N, V) into this one's, in place; `context` (N,) as in `find`."""
        rows = (context >= 0).nonzero().squeeze(1)  # those whose context has been seen
        context = context[rows]
        p[rows] *= self.leftover[context][:, None]
        first = self.starts[context]
        lengths = self.starts[context + 1] - first  # how many tokens each has seen after it
        steps = torch.arange(int(lengths.sum())) - (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
        entries = first.repeat_interleave(lengths) + steps  # of all rows, one after another
        p[rows.repeat_interleave(lengths), self.keys[entries] % self.vocab_size] += self.shares[entries]


def discounts(counts: Tensor) -> tuple[float, float, float]:
    """What is taken off a count of one, of two, and of three or more: D1, D2, D3 of Chen and Goodman.

    n_j being how many n-grams count j, Y = n1 / (n1 + 2 n2), and D_j = j - (j + 1) Y n_{j+1} / n_j. If one
    of n1, n2, n3 is zero, as at order 1, where every count is large, or if a discount is not above 0 and at
    most j, they tell nothing: the discounts are then 0.5, 1 and 1.5.
    """
    n = counts.clamp(max=5).bincount(minlength=6).tolist()
    if not all(n[1:4]):
        return FALLBACK
    Y = n[1] / (n[1] + 2 * n[2])
    D1, D2, D3 = (j - (j + 1) * Y * n[j + 1] / n[j] for j in (1, 2, 3))
    return (D1, D2, D3) if 0 < D1 <= 1 and 0 < D2 <= 2 and 0 < D3 <= 3 else FALLBACK


def delayed(grams: Tensor) -> Tensor:
    """(..., T) moved one place on: what ended at a token now stands at the next one; before the first, nothing."""
    return torch.cat([torch.full_like(grams[..., :1], -1), grams[..., :-1]], dim=-1)


def checked(ids: Tensor | Sequence[int], vocab_size: int) -> Tensor:
    """The ids as an int64 tensor (N,) on the CPU. Raises DataError for one outside the vocabulary."""
    ids = torch.as_tensor(ids, dtype=torch.int64, device="cpu")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(f"ids run from {int(ids.min())} to {int(ids.max())}: they must lie in 0 to {vocab_size - 1}")
    return ids
