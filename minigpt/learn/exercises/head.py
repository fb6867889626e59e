"""Exercise 7: one head of self-attention."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Exercise, Mistake
from minigpt.learn.modules import MODULE_IMPORTS, make_dropout_case, make_layer_cases
from minigpt.model.lecture import Head

TEXT = """
In attention each position chooses what it reads. It has three vectors of D numbers, made by three linear layers:

    query   what it looks for
    key     what it contains
    value   what it passes on

The score of position i for position j is the dot product of the query of i and the key of j. Then as before: the
mask, the softmax, the weighted mean, now of the values.

    q @ k^T  (B, T, D) @ (B, D, T) -> (B, T, T)     the scores
    / sqrt(D)                                       exercise 8 shows why
    mask     row i keeps columns 0 to i             1 0 0
    softmax  over the last dimension                1 1 0     self.tril[:T, :T]
    dropout  self.dropout, on the weights           1 1 1
    @ v      (B, T, T) @ (B, T, D) -> (B, T, D)

The layers are already there: self.key, self.query, self.value, self.tril and self.dropout. Dropout sets some weights to
0 while the model trains. self.tril is the triangle of block_size rows, and T may be smaller. Write `forward`.
"""

EXPERIMENT = """
torch.manual_seed(0)
head = Head(ModelConfig(n_embd=8, n_head=1, block_size=6))
x = torch.randn(1, 6, 8)
with torch.no_grad():
    head.value.weight.copy_(torch.eye(8))  # so that the output shows the weights
    x[0, :, :6] = torch.eye(6)
    out = head(x)
for t in range(6):
    bars = "".join(" .:-=+*#%@"[min(9, int(10 * w))] for w in out[0, t, :6].clamp(0, 1).tolist())
    print(f"position {t} reads |{bars}|")
"""

MINUS_INFINITY = float("-inf")


def _make_head(attend: Callable[..., Tensor]) -> type[Head]:
    """Return a Head whose forward is `attend(head, q, k, v, x)`."""

    class Wrong(Head):
        def forward(self, x: Tensor) -> Tensor:
            return attend(self, self.query(x), self.key(x), self.value(x), x)

    return Wrong


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | None = None,
    mask: Callable[[Tensor], Tensor] = torch.tril,
    fill: float = MINUS_INFINITY,
    dim: int = -1,
) -> Tensor:
    """Return the output of a head, with parts of it exchanged."""
    scores = q @ k.transpose(-2, -1) * (k.shape[-1] ** -0.5 if scale is None else scale)
    hidden = mask(torch.ones(q.shape[1], q.shape[1])) == 0
    return F.softmax(scores.masked_fill(hidden, fill), dim=dim) @ v


def _mask_after_softmax(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    weights = F.softmax(q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5, dim=-1)
    return weights.tril() @ v


def _dropout_always(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
    weights = F.softmax(scores.masked_fill(head.tril[: x.shape[1], : x.shape[1]] == 0, MINUS_INFINITY), dim=-1)
    return F.dropout(weights, head.dropout.p) @ v


def _weigh_input(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return _attend(q, k, x)


def _scaled_weights(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return _attend(q, k, v, scale=1.0) * k.shape[-1] ** -0.5


def _whole_mask(head: Head, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5
    return head.dropout(F.softmax(scores.masked_fill(head.tril == 0, MINUS_INFINITY), dim=-1)) @ v


HEAD_MISTAKES = (
    (
        "the mask hides the past instead of the future",
        lambda head, q, k, v, x: _attend(q, k, v, mask=torch.triu),
    ),
    (
        "the mask hides the past and the position itself: where tril is 1 instead of where it is 0",
        lambda head, q, k, v, x: _attend(q, k, v, mask=lambda ones: ones.triu(1)),
    ),
    (
        "the mask is missing: each position reads the future too",
        lambda head, q, k, v, x: _attend(q, k, v, mask=torch.ones_like),
    ),
    (
        "a position cannot read itself: the mask hides the diagonal too",
        lambda head, q, k, v, x: _attend(q, k, v, mask=lambda ones: ones.tril(-1)),
    ),
    (
        "the softmax goes over the queries (dim=1) instead of the keys (dim=-1)",
        lambda head, q, k, v, x: _attend(q, k, v, dim=1),
    ),
    ("the softmax goes over the batch (dim=0)", lambda head, q, k, v, x: _attend(q, k, v, dim=0)),
    ("the scores are not scaled", lambda head, q, k, v, x: _attend(q, k, v, scale=1.0)),
    (
        "the scores are scaled by n_embd instead of the head size",
        lambda head, q, k, v, x: _attend(q, k, v, scale=x.shape[-1] ** -0.5),
    ),
    (
        "the scores are divided by the head size instead of its square root",
        lambda head, q, k, v, x: _attend(q, k, v, scale=1 / k.shape[-1]),
    ),
    (
        "the scores are multiplied by sqrt(D) instead of divided",
        lambda head, q, k, v, x: _attend(q, k, v, scale=k.shape[-1] ** 0.5),
    ),
    (
        "the scores are divided by sqrt(T) instead of sqrt(D)",
        lambda head, q, k, v, x: _attend(q, k, v, scale=k.shape[1] ** -0.5),
    ),
    (
        "hidden scores are 0 instead of minus infinity, so that the future gets weight",
        lambda head, q, k, v, x: _attend(q, k, v, fill=0.0),
    ),
    ("the mask comes after the softmax, so that the weights do not sum to one", _mask_after_softmax),
    ("queries and keys are exchanged: k @ q^T instead of q @ k^T", lambda head, q, k, v, x: _attend(k, q, v)),
    ("the keys are weighted instead of the values", lambda head, q, k, v, x: _attend(q, k, k)),
    ("the queries are weighted instead of the values", lambda head, q, k, v, x: _attend(q, k, q)),
    (
        "the softmax is missing",
        lambda head, q, k, v, x: (q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5).tril() @ v,
    ),
    ("dropout is left on in evaluation: use self.dropout, not F.dropout", _dropout_always),
    (
        "dropout is missing, or stands before the softmax: it belongs on the weights",
        lambda head, q, k, v, x: _attend(q, k, v),
    ),
    (
        "dropout is on the output instead of the weights",
        lambda head, q, k, v, x: head.dropout(_attend(q, k, v)),
    ),
    ("the weights are scaled instead of the scores: divide before the softmax", _scaled_weights),
    ("the weights are multiplied with x instead of the values", _weigh_input),
    ("the mask is the whole self.tril instead of self.tril[:T, :T], so that T must be block_size", _whole_mask),
)

EXERCISE = Exercise(
    text=TEXT,
    imports=MODULE_IMPORTS,
    references=(Head,),
    kept=("Head.__init__",),
    cases=(*make_layer_cases(Head), make_dropout_case(Head)),
    mistakes=tuple(Mistake(when, {"Head": _make_head(attend)}) for when, attend in HEAD_MISTAKES),
    hints=(
        "First the three vectors: k = self.key(x), q = self.query(x), v = self.value(x), (B, T, D) each.",
        "The scores: scores = q @ k.transpose(-2, -1) * k.shape[-1] ** -0.5. The mask: "
        "scores = scores.masked_fill(self.tril[:T, :T] == 0, float('-inf')), with T = x.shape[1].",
        "Then weights = F.softmax(scores, dim=-1), weights = self.dropout(weights), and return weights @ v.",
    ),
    experiment=EXPERIMENT,
)
