"""Exercises 5, 14 and 15: sample a token, generate text, and shape the probabilities."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.generation.filters import apply_temperature, keep_top_k, keep_top_p, sample_token
from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.learn.modules import randn
from minigpt.model.lecture import append_sampled_tokens

SAMPLE_TEXT = """
The model gives a probability to every token. To sample means to draw a token so that each comes as often as its
probability says. All you need is one random number between 0 and 1:

    token           0       1           2     3
    probability     0.2     0.5         0.2   0.1
    cumulative      0.2     0.7         0.9   1.0
    the number line |--0.2--|----0.5----|-0.2-|0.1|
    uniform = 0.63          ^ here: token 1

The token is the first whose cumulative probability is larger than the random number. `torch.multinomial` does the
same with random numbers of its own. Here the random numbers are given, so that the check knows the answer.
"""

SAMPLE_EXPERIMENT = """
torch.manual_seed(0)
probabilities = torch.tensor([0.2, 0.5, 0.2, 0.1])
logits = probabilities.log().expand(10_000, -1)  # the softmax of the logarithms gives the probabilities back
tokens = sample_token(logits, torch.rand(10_000, dtype=torch.float64))
for token, p in enumerate(probabilities.tolist()):
    share = (tokens == token).double().mean().item()
    print(f"token {token}: probability {p:.2f}, drawn {share:.3f} {'#' * round(60 * share)}")
"""

GENERATE_TEXT = """
A GPT writes one token after another:

    1. crop       take the last block_size tokens: the model has no more positions
    2. predict    logits, _ = model(context)              (B, T, V)
    3. last       logits[:, -1, :], the prediction after the last token   (B, V)
    4. sample     softmax, then torch.multinomial         (B, 1)
    5. append     torch.cat along the time                (B, T + 1)

The new token is part of the context of the next one. The result has the prompt and all new tokens. The model knows
its limit: model.config.block_size.
"""

GENERATE_EXPERIMENT = """
from minigpt.config import ModelConfig
from minigpt.model.lecture import GPTLanguageModel

torch.manual_seed(0)
model = GPTLanguageModel(ModelConfig(vocab_size=26, n_embd=16, n_head=2, n_layer=1, block_size=8)).eval()
idx = append_sampled_tokens(model, torch.zeros(2, 1, dtype=torch.int64), max_new_tokens=40)
for row in idx.tolist():
    print("".join(chr(97 + i) for i in row), " (an untrained model writes any letters)")
"""

FILTERS_TEXT = """
Three ways to change the probabilities before the draw. All of them work on logits (B, V). A token that must not be
drawn gets the logit minus infinity, so that its probability is 0.

Temperature: logits / temperature. Below 1 likely tokens become more likely, above 1 all become more alike.

Top-k: keep the k largest logits of each row.

Top-p: keep the smallest set of most likely tokens whose probabilities add up to p or more.

    p = 0.8   sorted probabilities   0.5   0.25   0.15   0.1
              cumulative             0.5   0.75   0.90   1.0
              kept                   yes   yes    yes    no        0.5 + 0.25 is not yet 0.8, so the third stays

The token that crosses p stays. The most likely token always stays, also if p is 0.
"""

FILTERS_EXPERIMENT = """
logits = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0]])
rows = {
    "as they are": logits,
    "temperature 0.5": apply_temperature(logits, 0.5),
    "temperature 2": apply_temperature(logits, 2.0),
    "top-k 2": keep_top_k(logits, 2),
    "top-p 0.9": keep_top_p(logits, 0.9),
}
for name, row in rows.items():
    p = torch.softmax(row, dim=-1)[0].tolist()
    print(f"{name:<16}", " ".join(f"{x:.2f}" for x in p))
"""

# Sampling a token.


def _draw(find: Callable[[Tensor, Tensor], Tensor], dim: int = -1) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a sampler that finds the token from the cumulative probabilities (B, V) and the uniforms (B, 1)."""

    def sample_token(logits: Tensor, uniforms: Tensor) -> Tensor:
        cumulative = F.softmax(logits.double(), dim=dim).cumsum(dim=-1)
        return find(cumulative, uniforms[:, None]).clamp(0, logits.shape[-1] - 1)

    return sample_token


LOGITS = torch.tensor([[0.2, 0.5, 0.2, 0.1], [0.1, 0.1, 0.1, 0.7], [0.4, 0.3, 0.2, 0.1]]).log()
IMPOSSIBLE = torch.tensor([[0.0, 0.5, 0.0, 0.5]]).log()  # tokens 0 and 2 have the probability 0


def _make_sample_case(logits: Tensor, uniforms: list[float], name: str) -> Case:
    """Return a case with these logits and random numbers."""
    given = torch.tensor(uniforms, dtype=torch.float64)
    return Case(f"sample_token({name}, uniforms {uniforms})", lambda my: my.sample_token(logits.clone(), given))


SAMPLE_TOKEN = Exercise(
    text=SAMPLE_TEXT,
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
            ("the softmax goes over the batch instead of the vocabulary", _draw(lambda c, u: (c <= u).sum(-1), dim=0)),
            ("the token is one too high", _draw(lambda c, u: (c <= u).sum(-1) + 1)),
            ("the token is one too low", _draw(lambda c, u: (c <= u).sum(-1) - 1)),
            (
                "the probabilities are not added up: the uniform is compared with each probability alone",
                lambda a, u: (F.softmax(a.double(), dim=-1) <= u[:, None]).sum(dim=-1).clamp(max=a.shape[-1] - 1),
            ),
            (
                "the comparison is the wrong way round: the last token below the random number is meant to be skipped",
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
    experiment=SAMPLE_EXPERIMENT,
)

# Generating.


class FakeModel(nn.Module):
    """A model that is sure of the next token, which depends on the tokens that it reads, and on their order.

    With `is_sure` False it gives two tokens the same probability. With `is_limited` it refuses more than block_size
    tokens, as a GPT does.
    """

    def __init__(self, block_size: int, is_sure: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(block_size=block_size, vocab_size=11)
        self.is_sure = is_sure

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, None]:
        """Return logits (B, T, V)."""
        if not self.is_sure:
            logits = torch.full((*idx.shape, 11), -1e4)
            logits[..., 3:5] = 0.0
            return logits, None
        places = torch.arange(1, idx.shape[1] + 1)
        following = (idx * places + idx + 1).cumsum(dim=1) % 11  # (B, T)
        return 1e4 * F.one_hot(following, 11).float(), None


def _generate(my: Any, prompt: list[list[int]], count: int, block_size: int) -> Any:
    """Continue a prompt with the model that is sure."""
    return my.append_sampled_tokens(FakeModel(block_size), torch.tensor(prompt), count)


def _count_both(my: Any) -> str:
    """Sample 60 tokens, of which two are equally likely; return whether both occur."""
    idx = my.append_sampled_tokens(FakeModel(4, is_sure=False), torch.zeros(1, 1, dtype=torch.int64), 60)
    return "both tokens occur" if len(set(idx[0, -60:].tolist()) & {3, 4}) == 2 else "only one of two tokens occurs"


def _make_generate(
    crop: Callable[[Tensor, int], Tensor] = lambda idx, size: idx[:, -size:],
    position: int = -1,
    choose: Callable[[Tensor], Tensor] = lambda p: torch.multinomial(p, 1),
    join: Callable[[Tensor, Tensor], Tensor] = lambda idx, token: torch.cat([idx, token], dim=1),
) -> Callable[..., Tensor]:
    """Return a generate loop with one step exchanged."""

    def generate(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
        for _ in range(max_new_tokens):
            logits, _ = model(crop(idx, model.config.block_size))
            idx = join(idx, choose(F.softmax(logits[:, position, :], dim=-1)))
        return idx

    return generate


def _new_tokens_only(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    return append_sampled_tokens(model, idx, max_new_tokens)[:, idx.shape[1] :]


def _one_too_many(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    return append_sampled_tokens(model, idx, max_new_tokens + 1)


def _prompt_only(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    """Predict every token from the prompt: the context does not grow."""
    prompt = idx
    for _ in range(max_new_tokens):
        new = append_sampled_tokens(model, prompt, 1)[:, -1:]
        idx = torch.cat([idx, new], dim=1)
    return idx


GENERATE = Exercise(
    text=GENERATE_TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F\n\n"
    "from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel",
    references=(append_sampled_tokens,),
    cases=(
        Case("a prompt of 1 token, 1 new one", lambda my: _generate(my, [[2]], 1, 8)),
        Case("a prompt of 3 tokens, 2 new ones", lambda my: _generate(my, [[2, 5, 1]], 2, 8)),
        Case("two prompts of 2 tokens, 3 new ones", lambda my: _generate(my, [[2, 5], [4, 1]], 3, 8)),
        Case("more tokens than block_size 3", lambda my: _generate(my, [[2, 5, 1, 7]], 6, 3)),
        Case("0 new tokens", lambda my: _generate(my, [[2, 5]], 0, 8)),
        Case("60 tokens, of which two are equally likely", _count_both),
    ),
    mistakes=tuple(
        Mistake(when, {"append_sampled_tokens": variant})
        for when, variant in (
            (
                "the model gets the whole context instead of the last block_size tokens",
                _make_generate(crop=lambda idx, size: idx),
            ),
            (
                "the model gets the first block_size tokens instead of the last",
                _make_generate(crop=lambda idx, size: idx[:, :size]),
            ),
            (
                "the model gets one token too few: the last block_size - 1",
                _make_generate(crop=lambda idx, size: idx[:, -(size - 1) :]),
            ),
            (
                "the model gets only the last token",
                _make_generate(crop=lambda idx, size: idx[:, -1:]),
            ),
            ("the logits of the first position are used instead of the last", _make_generate(position=0)),
            (
                "the most likely token is taken (argmax), and nothing is sampled",
                _make_generate(choose=lambda p: p.argmax(dim=-1, keepdim=True)),
            ),
            (
                "new tokens are put before the text instead of after it",
                _make_generate(join=lambda idx, token: torch.cat([token, idx], dim=1)),
            ),
            (
                "all rows of the batch get the token of the first row",
                _make_generate(join=lambda idx, token: torch.cat([idx, token[:1].expand(len(idx), 1)], dim=1)),
            ),
            ("only the new tokens are returned, without the prompt", _new_tokens_only),
            ("one token too many is generated", _one_too_many),
            ("each token is predicted from the prompt alone: the new tokens are not read", _prompt_only),
        )
    ),
    hints=(
        "The last block_size tokens of each row: idx[:, -model.config.block_size :].",
        "logits[:, -1, :] is (B, V). F.softmax(..., dim=-1) and torch.multinomial(p, num_samples=1) give (B, 1).",
        "idx = torch.cat([idx, next_token], dim=1), inside the loop, so that the next token is predicted from it.",
    ),
    experiment=GENERATE_EXPERIMENT,
)

# The filters.


def _keep_top_p(
    p_of: Callable[[Tensor], Tensor] = lambda ascending: F.softmax(ascending, dim=-1),
    keep: Callable[[Tensor, Tensor, float], Tensor] = lambda cumulative, own, p: cumulative - own < p,
    descending: bool = True,
    should_unsort: bool = True,
) -> Callable[[Tensor, float], Tensor]:
    """Return a top-p that keeps other tokens."""

    def keep_top_p(logits: Tensor, p: float) -> Tensor:
        ordered, order = logits.sort(dim=-1, descending=descending)
        own = p_of(ordered)
        kept = keep(own.cumsum(dim=-1), own, p)
        if should_unsort:
            kept = kept.scatter(-1, order, kept)
        return logits.masked_fill(~kept, MINUS_INFINITY)

    return keep_top_p


def _first_always(kept: Tensor) -> Tensor:
    kept[:, 0] = True
    return kept


MINUS_INFINITY = float("-inf")
FILTERED = torch.tensor([[0.15, 0.5, 0.1, 0.25]]).log()


SMALL, ROWS = torch.tensor([[1.0, 3.0, 2.0]]), randn(3, 6, seed=4)


def _make_filter_case(name: str, logits: Tensor, about: str, value: float) -> Case:
    """Return a case that applies one of the filters."""
    return Case(f"{name}({about}, {value})", lambda my: getattr(my, name)(logits.clone(), value))


FILTER_CASES = (
    *(_make_filter_case("apply_temperature", SMALL, "[[1, 3, 2]]", t) for t in (2.0, 0.5)),
    *(_make_filter_case("keep_top_k", SMALL, "[[1, 3, 2]]", k) for k in (2, 1, 3)),
    *(_make_filter_case("keep_top_k", ROWS, "logits (3, 6)", k) for k in (2, 10)),
    *(
        _make_filter_case("keep_top_p", FILTERED, "the logits of probabilities 0.15, 0.5, 0.1, 0.25", p)
        for p in (0.8, 0.6, 0.45, 0.0)
    ),
    *(_make_filter_case("keep_top_p", ROWS, "logits (3, 6)", p) for p in (0.5, 0.99)),
)


FILTERS = Exercise(
    text=FILTERS_TEXT,
    imports="import torch\nfrom torch import Tensor\nfrom torch.nn import functional as F",
    references=(apply_temperature, keep_top_k, keep_top_p),
    cases=FILTER_CASES,
    mistakes=tuple(
        Mistake(when, {name: variant})
        for name, when, variant in (
            ("apply_temperature", "the logits are multiplied by the temperature", lambda a, t: a * t),
            ("apply_temperature", "the temperature is applied to probabilities", lambda a, t: F.softmax(a, -1) / t),
            ("apply_temperature", "probabilities are returned instead of logits", lambda a, t: F.softmax(a / t, -1)),
            (
                "keep_top_k",
                "top-k sets the other logits to 0 instead of minus infinity",
                lambda a, k: a.masked_fill(a < torch.topk(a, min(k, a.shape[-1])).values[:, -1:], 0.0),
            ),
            (
                "keep_top_k",
                "top-k drops the k-th token too: it needs < instead of <=",
                lambda a, k: a.masked_fill(a <= torch.topk(a, min(k, a.shape[-1])).values[:, -1:], MINUS_INFINITY),
            ),
            (
                "keep_top_k",
                "top-k keeps the k smallest logits instead of the largest",
                lambda a, k: a.masked_fill(
                    a > torch.topk(a, min(k, a.shape[-1]), largest=False).values[:, -1:], MINUS_INFINITY
                ),
            ),
            (
                "keep_top_k",
                "top-k returns only the k largest logits, so that the ids are lost",
                lambda a, k: torch.topk(a, min(k, a.shape[-1])).values,
            ),
            (
                "keep_top_k",
                "top-k uses the threshold of the first row for all rows",
                lambda a, k: a.masked_fill(a < torch.topk(a, min(k, a.shape[-1])).values[:1, -1:], MINUS_INFINITY),
            ),
            (
                "keep_top_p",
                "top-p drops the token which crosses p",
                _keep_top_p(keep=lambda cumulative, own, p: _first_always(cumulative <= p)),
            ),
            (
                "keep_top_p",
                "top-p drops the token which crosses p, and even the most likely token if it alone is above p",
                _keep_top_p(keep=lambda cumulative, own, p: cumulative <= p),
            ),
            (
                "keep_top_p",
                "top-p drops all tokens if p is 0: the most likely token must stay",
                _keep_top_p(),
            ),
            (
                "keep_top_p",
                "top-p adds up logits instead of probabilities: the softmax is missing",
                _keep_top_p(
                    p_of=lambda ordered: ordered, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)
                ),
            ),
            (
                "keep_top_p",
                "top-p begins at the least likely token",
                _keep_top_p(descending=False, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)),
            ),
            (
                "keep_top_p",
                "top-p applies the mask of the sorted tokens to the unsorted ones",
                _keep_top_p(should_unsort=False, keep=lambda cumulative, own, p: _first_always(cumulative - own < p)),
            ),
            (
                "keep_top_p",
                "top-p keeps each token whose own probability is at least p",
                _keep_top_p(keep=lambda cumulative, own, p: _first_always(own >= p)),
            ),
        )
    ),
    hints=(
        "masked_fill(condition, float('-inf')) sets logits to minus infinity where the condition is true.",
        "Top-k: torch.topk(logits, k).values[:, -1:] is the k-th largest logit of each row. k may be larger than V.",
        "Top-p: sort in descending order, softmax, cumsum. Keep a token if the sum before it is less than p. "
        "kept.scatter(-1, order, kept) brings the mask into the old order. The first always stays.",
    ),
    experiment=FILTERS_EXPERIMENT,
)

EXERCISES = {"sample_token": SAMPLE_TOKEN, "generate": GENERATE, "filters": FILTERS}
