"""Exercise 5: sample one token."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.generation.filters import sample_token
from minigpt.learn.exercise import Case, Exercise, Mistake

TEXT = """
The model gives a probability to every token. To sample is to draw a token at random. In 100 draws, a token with the
probability 0.2 comes about 20 times. All you need is one random number between 0 and 1. The cumulative probability of a
token is the sum of all probabilities up to its own:

    token           0       1           2     3
    probability     0.2     0.5         0.2   0.1
    cumulative      0.2     0.7         0.9   1.0
    the number line |--0.2--|----0.5----|-0.2-|0.1|
    random number 0.63                 ^ here: token 1

The drawn token is the first whose cumulative probability is larger than the random number. `torch.multinomial` does the
same with random numbers of its own. Here the random numbers are given (`uniforms`), so that the check knows the answer.
"""

EXPERIMENT = """
torch.manual_seed(0)
probabilities = torch.tensor([0.2, 0.5, 0.2, 0.1])
logits = probabilities.log().expand(10_000, -1)  # the softmax of the logarithms gives the probabilities back
tokens = sample_token(logits, torch.rand(10_000, dtype=torch.float64))
for token, p in enumerate(probabilities.tolist()):
    share = (tokens == token).double().mean().item()
    print(f"token {token}: probability {p:.2f}, drawn {share:.3f} {'#' * round(60 * share)}")
"""


def _draw(find: Callable[[Tensor, Tensor], Tensor], dim: int = -1) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a sampler that finds the token from the cumulative probabilities (B, V) and the uniforms (B, 1)."""

    def sample_token(logits: Tensor, uniforms: Tensor) -> Tensor:
        cumulative = F.softmax(logits.double(), dim=dim).cumsum(dim=-1)
        return find(cumulative, uniforms[:, None]).clamp(0, logits.shape[-1] - 1)

    return sample_token


LOGITS = torch.tensor([[0.2, 0.5, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7], [0.4, 0.3, 0.2, 0.1]]).log()


def _sum_over_batch(logits: Tensor, uniforms: Tensor) -> Tensor:
    cumulative = F.softmax(logits.double(), dim=-1).cumsum(dim=0)
    return (cumulative <= uniforms[:, None]).sum(-1)


def _sorted_first(logits: Tensor, uniforms: Tensor) -> Tensor:
    ordered = F.softmax(logits.double(), dim=-1).sort(dim=-1, descending=True).values
    return (ordered.cumsum(dim=-1) <= uniforms[:, None]).sum(-1)


def _draw_flat(logits: Tensor, uniforms: Tensor) -> Tensor:
    return (F.softmax(logits.double(), dim=-1).cumsum(dim=-1) <= uniforms).sum(-1)


def _all_above(logits: Tensor, uniforms: Tensor) -> Tensor:
    return (F.softmax(logits.double(), dim=-1).cumsum(dim=-1) > uniforms[:, None]).nonzero()[:, 1]


IMPOSSIBLE = torch.tensor([[0.0, 0.5, 0.0, 0.5]]).log()  # tokens 0 and 2 have the probability 0


def _make_sample_case(logits: Tensor, uniforms: list[float], name: str) -> Case:
    """Return a case with these logits and random numbers."""
    given = torch.tensor(uniforms, dtype=torch.float64)
    return Case(f"sample_token({name}, uniforms {uniforms})", lambda my: my.sample_token(logits.clone(), given))


EXERCISE = Exercise(
    text=TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(sample_token,),
    cases=(
        _make_sample_case(LOGITS[:1], [0.63], "the logits of probabilities 0.2, 0.5, 0.2, 0.1"),
        _make_sample_case(LOGITS[:1], [0.15], "the logits of probabilities 0.2, 0.5, 0.2, 0.1"),
        _make_sample_case(LOGITS[:1], [0.95], "the logits of probabilities 0.2, 0.5, 0.2, 0.1"),
        _make_sample_case(LOGITS, [0.75, 0.25, 0.5], "logits (3, 4)"),
        _make_sample_case(LOGITS.flip(1), [0.05, 0.99, 0.45], "logits (3, 4)"),
        _make_sample_case(torch.tensor([[2.0, 0.5, -1.0]]), [0.9], "logits [2, 0.5, -1]"),
        _make_sample_case(IMPOSSIBLE, [0.0], "the logits of probabilities 0, 0.5, 0, 0.5"),
    ),
    mistakes=tuple(
        Mistake(when, {"sample_token": variant})
        for when, variant in (
            ("the most likely token is taken (argmax), and nothing is sampled", lambda a, u: a.argmax(dim=-1)),
            (
                "the softmax is missing: the logits are added up instead of probabilities",
                lambda a, u: (a.cumsum(dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=a.shape[-1] - 1),
            ),
            (
                "the softmax is missing, so that the id can be larger than V - 1",
                lambda a, u: (a.cumsum(dim=-1) <= u[:, None]).sum(dim=-1),
            ),
            ("the softmax goes over the batch instead of the vocabulary", _draw(lambda c, u: (c <= u).sum(-1), dim=0)),
            (
                "torch.multinomial draws with random numbers of its own: use the given ones",
                lambda a, u: torch.multinomial(F.softmax(a, dim=-1), 1).squeeze(-1),
            ),
            (
                "the result has the shape (B, 1) instead of (B,)",
                _draw(lambda c, u: (c <= u).sum(-1, keepdim=True)),
            ),
            (
                "torch.multinomial draws with random numbers of its own, and its result has the shape (B, 1)",
                lambda a, u: torch.multinomial(F.softmax(a, dim=-1), 1),
            ),
            ("the probabilities are added up over the batch (dim=0) instead of the vocabulary", _sum_over_batch),
            ("the sorted place of the token is returned instead of its id: do not sort", _sorted_first),
            (
                "the random numbers (B,) are compared with the tokens of a row: uniforms[:, None] makes them (B, 1)",
                _draw_flat,
            ),
            ("the loop goes on after the token is found: break is missing", _all_above),
            (
                "the result is a list: torch.tensor(...) makes a tensor of it",
                lambda a, u: sample_token(a, u).tolist(),
            ),
            ("the token is one too high", _draw(lambda c, u: (c <= u).sum(-1) + 1)),
            ("the token is one too low", _draw(lambda c, u: (c <= u).sum(-1) - 1)),
            (
                "the probabilities are not added up: the uniform is compared with each probability alone",
                lambda a, u: (F.softmax(a.double(), dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=a.shape[-1] - 1),
            ),
            (
                "the comparison is the wrong way round: count the sums that are not larger than the random number",
                _draw(lambda c, u: (c > u).sum(-1)),
            ),
            (
                "a token with probability 0 is drawn: the cumulative probability must be larger than the random "
                "number, not equal",
                _draw(lambda c, u: (c < u).sum(-1)),
            ),
            ("all rows use the first random number", _draw(lambda c, u: (c <= u[:1]).sum(-1))),
        )
    ),
    hints=(
        "probabilities = F.softmax(logits, dim=-1), and .cumsum(dim=-1) adds them up from the left.",
        "Count how many cumulative probabilities are not larger than the random number: that is the token's id.",
        "(cumulative <= uniforms[:, None]).sum(dim=-1). Rounding may make the last sum slightly less than 1: compute "
        "in float64.",
    ),
    experiment=EXPERIMENT,
)
