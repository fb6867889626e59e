"""Exercise 3: the bigram model, and the loss by hand."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randint, randn
from minigpt.model.lecture import compute_next_token_loss

TEXT = """
A bigram model predicts the next token from the last token alone. It is a table (V, V), where V is the number of tokens
in the vocabulary. Row i holds the logits for the token that follows token i. A logit is a number for each token of the
vocabulary: the higher it is, the likelier is the token.

    idx (B, T) = [[2, 0]]      logits (B, T, V) = [[row 2 of the table, row 0 of the table]]

The softmax turns logits into probabilities: p_i = exp(logit_i) / (sum of exp of all logits). The loss of one
prediction is -ln p of the token that really came. Its unit is the nat, because ln is the natural logarithm. The loss of
a batch is the mean over all B * T predictions. An untrained model gives each of V tokens the same probability, so its
loss is ln V.

`F.cross_entropy` does all of it. Write it by hand once. `F.log_softmax` computes ln p of all tokens, and `gather` takes
one number of each row: that of the target. Do not call exp or log yourself. Logits can be large: exp(1000) is infinite,
and exp(-1000) is 0, whose logarithm is minus infinity.
"""

EXPERIMENT = """
import math

torch.manual_seed(0)
V = 65
idx, targets = torch.randint(V, (4, 8)), torch.randint(V, (4, 8))
logits = look_up_logits(0.02 * torch.randn(V, V), idx)
print("logits:", tuple(logits.shape), "(B, T, V)")
print(f"loss of an untrained table: {compute_next_token_loss(logits, targets).item():.4f}")
print(f"ln {V}:                      {math.log(V):.4f}")
print(f"F.cross_entropy:            {F.cross_entropy(logits.view(-1, V), targets.view(-1)).item():.4f}")
"""


def look_up_logits(table: Tensor, idx: Tensor) -> Tensor:
    """Return the logits of the next token at every position.

    Args:
        table: row i has the logits of the token after token i, (V, V).
        idx: token ids (B, T), int64.

    Returns:
        Logits (B, T, V).
    """
    return table[idx]


def _with(compute: Any) -> dict[str, Any]:
    """Return a wrong loss that also returns None without targets."""
    return {"compute_next_token_loss": lambda logits, targets: None if targets is None else compute(logits, targets)}


def _entropy(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1), **options)


def _softmax_over(dim: int) -> Any:
    def compute(logits: Tensor, targets: Tensor) -> Tensor:
        return -F.log_softmax(logits, dim=dim).gather(-1, targets[..., None]).mean()

    return compute


def _by_exp(logits: Tensor, targets: Tensor) -> Tensor:
    p = logits.exp() / logits.exp().sum(dim=-1, keepdim=True)
    return -p.gather(-1, targets[..., None]).log().mean()


LOSS_SHAPES = ((1, 1, 2), (2, 3, 4), (1, 6, 5), (3, 2, 4))


def _make_loss_case(shape: tuple[int, int, int], scale: float = 1.0) -> Case:
    """Return a case with random logits of a shape and random targets."""
    B, T, V = shape
    logits, targets = scale * randn(*shape, seed=B + T), randint(V, B, T, seed=T)
    about = f"compute_next_token_loss(logits, targets), logits of shape {shape}{', large' if scale > 1 else ''}"
    return Case(about, lambda my: _compute_loss_and_gradient(my, logits, targets))


def _compute_loss_and_gradient(my: Any, logits: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return the loss, and its gradient at the logits."""
    logits = logits.clone().requires_grad_()
    loss = my.compute_next_token_loss(logits, targets)
    if isinstance(loss, Tensor) and loss.requires_grad and loss.numel() == 1:
        loss.backward()
    return {"the loss": loss, "the gradient of the logits": logits.grad}


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(look_up_logits, compute_next_token_loss),
    cases=(
        Case("look_up_logits(table (3, 3), idx [[2]])", lambda my: my.look_up_logits(randn(3, 3), torch.tensor([[2]]))),
        Case("look_up_logits(table (5, 5), idx (2, 4))", lambda my: my.look_up_logits(randn(5, 5), randint(5, 2, 4))),
        *(_make_loss_case(shape) for shape in LOSS_SHAPES),
        _make_loss_case((2, 3, 4), 1000.0),
        Case("compute_next_token_loss(logits, None)", lambda my: my.compute_next_token_loss(randn(1, 2, 3), None)),
    ),
    mistakes=(
        Mistake("columns of the table are taken instead of rows", {"look_up_logits": lambda table, idx: table.T[idx]}),
        Mistake(
            "columns of the table are taken: table[:, idx] instead of table[idx]",
            {"look_up_logits": lambda table, idx: table[:, idx]},
        ),
        Mistake(
            "probabilities are returned instead of logits: the softmax belongs to the loss",
            {"look_up_logits": lambda table, idx: F.softmax(table[idx], dim=-1)},
        ),
        Mistake("only the last position is looked up", {"look_up_logits": lambda table, idx: table[idx[:, -1]]}),
        Mistake("the softmax goes over the time dimension instead of the vocabulary", _with(_softmax_over(1))),
        Mistake("the softmax goes over the batch dimension instead of the vocabulary", _with(_softmax_over(0))),
        Mistake(
            "logits and targets are flattened in different orders, so that predictions meet the wrong targets",
            _with(lambda logits, targets: _entropy(logits, targets.T)),
        ),
        Mistake(
            "the losses are added up instead of averaged",
            _with(lambda logits, targets: _entropy(logits, targets, reduction="sum")),
        ),
        Mistake(
            "each prediction keeps its own loss: the mean is missing",
            _with(lambda logits, targets: _entropy(logits, targets, reduction="none").view(targets.shape)),
        ),
        Mistake(
            "each prediction keeps its own loss, in a dimension of 1 at the end: the mean is missing",
            _with(lambda a, b: -F.log_softmax(a, -1).gather(-1, b[..., None])),
        ),
        Mistake("the minus sign is missing", _with(lambda logits, targets: -_entropy(logits, targets))),
        Mistake(
            "the loss is in bits: the logarithm has base 2 instead of e",
            _with(lambda logits, targets: _entropy(logits, targets) / 0.6931471805599453),
        ),
        Mistake(
            "the softmax is applied twice: F.cross_entropy takes logits, not probabilities",
            _with(lambda logits, targets: _entropy(F.softmax(logits, dim=-1), targets)),
        ),
        Mistake("the logarithm is missing", _with(lambda a, b: -F.softmax(a, -1).gather(-1, b[..., None]).mean())),
        Mistake("the softmax is missing", _with(lambda logits, targets: -logits.gather(-1, targets[..., None]).mean())),
        Mistake(
            "the loss of a very unlikely token is infinite: F.log_softmax instead of the logarithm of F.softmax",
            _with(lambda a, b: -F.softmax(a, -1).gather(-1, b[..., None]).log().mean()),
        ),
        Mistake(
            "the loss has no gradient: return a tensor, without .item()",
            _with(lambda logits, targets: _entropy(logits.detach(), targets)),
        ),
        Mistake(
            "the losses of a row are added up: the mean must go over all B * T predictions",
            _with(lambda logits, targets: _entropy(logits, targets) * targets.shape[1]),
        ),
        Mistake(
            "the mean goes over the probabilities of all tokens, not of the targets alone",
            _with(lambda logits, targets: -F.log_softmax(logits, dim=-1).mean()),
        ),
        Mistake(
            "the mean comes before the logarithm: first the logarithm of each probability, then the mean",
            _with(lambda a, b: -F.softmax(a, -1).gather(-1, b[..., None]).mean().log()),
        ),
        Mistake(
            "the targets of all windows are looked up in each window: use gather",
            _with(lambda logits, targets: -F.log_softmax(logits, dim=-1)[:, :, targets].mean()),
        ),
        Mistake(
            "only the last position is predicted, instead of all",
            _with(lambda logits, targets: F.cross_entropy(logits[:, -1], targets[:, -1])),
        ),
        Mistake("exp of large logits overflows: use F.log_softmax or torch.logsumexp", _with(_by_exp)),
    ),
    hints=(
        "Indexing with a tensor takes rows: table[idx] has the shape of idx, and V at its end.",
        "F.log_softmax(logits, dim=-1) is ln p for every token of the vocabulary. You need the one of the target.",
        "log_p.gather(-1, targets[..., None]) takes ln p of each target. The loss is minus its mean. Return None first "
        "if targets is None.",
    ),
    experiment=EXPERIMENT,
)
