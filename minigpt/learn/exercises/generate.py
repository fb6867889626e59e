"""Exercise 14: generate text with a limited context."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.learn.exercise import Case, Exercise, Mistake
from minigpt.model.lecture import append_sampled_tokens

TEXT = """
A GPT writes one token after another:

    1. crop       take the last block_size tokens: the model has no more positions
    2. predict    logits, _ = model(context)              (B, T, V)
    3. last       logits[:, -1, :], the prediction after the last token   (B, V)
    4. sample     softmax, then torch.multinomial         (B, 1)
    5. append     torch.cat along the time                (B, T + 1)

The new token is part of the context of the next one. The result has the prompt and all new tokens. The model knows
its limit: model.config.block_size.
"""

EXPERIMENT = """
from minigpt.config import ModelConfig
from minigpt.model.lecture import GPTLanguageModel

torch.manual_seed(0)
model = GPTLanguageModel(ModelConfig(vocab_size=26, n_embd=16, n_head=2, n_layer=1, block_size=8)).eval()
idx = append_sampled_tokens(model, torch.zeros(2, 1, dtype=torch.int64), max_new_tokens=40)
for row in idx.tolist():
    print("".join(chr(97 + i) for i in row), " (an untrained model writes any letters)")
"""


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


def _crop_the_text(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    for _ in range(max_new_tokens):
        idx = append_sampled_tokens(model, idx[:, -model.config.block_size :], 1)
    return idx


def _softmax_over_batch(model: Any, idx: Tensor, max_new_tokens: int) -> Tensor:
    for _ in range(max_new_tokens):
        logits, _ = model(idx[:, -model.config.block_size :])
        idx = torch.cat([idx, torch.multinomial(F.softmax(logits[:, -1, :], dim=0), 1)], dim=1)
    return idx


EXERCISE = Exercise(
    text=TEXT,
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
            ("the softmax goes over the batch instead of the vocabulary", _softmax_over_batch),
            (
                "the loop does not keep what torch.cat returns: idx = torch.cat(...)",
                _make_generate(join=lambda idx, token: idx),
            ),
            (
                "the function returns inside the loop, so after one token",
                lambda model, idx, max_new_tokens: (
                    append_sampled_tokens(model, idx, min(max_new_tokens, 1)) if max_new_tokens else None
                ),
            ),
            ("the text itself is cropped, so that its beginning is lost: crop a copy for the model", _crop_the_text),
            (
                "the loop ends at a length of max_new_tokens: the prompt does not count",
                lambda model, idx, max_new_tokens: append_sampled_tokens(
                    model, idx, max(0, max_new_tokens - idx.shape[1])
                ),
            ),
            (
                "the crop is a fixed number: model.config.block_size says how long the context may be",
                _make_generate(crop=lambda idx, size: idx[:, -8:]),
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
    experiment=EXPERIMENT,
)
