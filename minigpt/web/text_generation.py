"""Generate the text of an answer, token by token, with what OpenAI's API says about each token."""

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import SamplingConfig
from minigpt.generation import engine
from minigpt.model.language_model import get_device
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenScore:
    """How likely a token was.

    Attributes:
        text: the token.
        utf8: its bytes; a token can be a part of a character.
        log_probability: its log-probability in nats; None for a first token, which nothing predicts.
        top: the most likely tokens in its place, with their bytes and log-probabilities.
    """

    text: str
    utf8: bytes
    log_probability: float | None
    top: tuple[tuple[str, bytes, float], ...]


@dataclass(frozen=True)
class TextPiece:
    """The next part of an answer.

    Attributes:
        text: new text.
        tokens: number of tokens that were generated for it.
        scores: the scores of the tokens that begin in this text, if they were asked for.
        finish_reason: why the answer ends with this piece: "stop" at the end of the text or at a stop sequence,
            "length" after max_new_tokens; None before the end.
    """

    text: str
    tokens: int
    scores: tuple[TokenScore, ...] = ()
    finish_reason: FinishReason | None = None


class StopMatcher:
    """Finds stop sequences in a text that arrives in pieces.

    Text that may be the beginning of a stop sequence is held back until the next piece decides.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """Take a piece. Return the text before any stop sequence that is certain now, and whether one was found."""
        held = self._held + text
        starts = [start for stop in self._stops if (start := held.find(stop)) >= 0]
        if starts:
            self._held = ""
            return held[: min(starts)], True
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(held)), 0, -1):
            if any(stop.startswith(held[-length:]) for stop in self._stops):
                self._held = held[-length:]
                return held[:-length], False
        self._held = ""
        return held, False

    def flush(self) -> str:
        """Return the text that was held back: there will be no more."""
        held, self._held = self._held, ""
        return held


def generate_text(
    run: Run, ids: list[int], config: SamplingConfig, stops: Sequence[str] = (), top: int | None = None
) -> Iterator[TextPiece]:
    """Continue a prompt.

    Any special token ends the text, since it ends a document or an answer.

    Args:
        run: the run.
        ids: the prompt, at least one token.
        config: how to sample, and how many tokens.
        stops: texts before which the answer ends.
        top: how many of the most likely tokens each score lists; None for no scores.

    Yields:
        A piece for each token. The last one has a finish_reason.
    """
    ends = set(run.tokenizer.special_tokens.values())
    matcher, decoder = StopMatcher(stops), codecs.getincrementaldecoder("utf-8")("replace")
    waiting: list[tuple[int, TokenScore]] = []  # scores of tokens whose text is held back, and where they begin
    generated = shown = 0  # characters
    for token, score in _generate_tokens(run, ids, config, top):
        if token in ends:
            yield TextPiece(matcher.flush(), 1, tuple(score for _, score in waiting), "stop")
            return
        if score is not None:
            waiting.append((generated, score))
        new = decoder.decode(run.tokenizer.decode_bytes([token]))
        generated += len(new)
        text, is_found = matcher.feed(new)
        shown += len(text)
        ready = [score for start, score in waiting if start < shown]
        waiting = waiting[len(ready) :]
        yield TextPiece(text, 1, tuple(ready), "stop" if is_found else None)
        if is_found:
            return
    rest = matcher.flush() + decoder.decode(b"", final=True)
    yield TextPiece(rest, 0, tuple(score for _, score in waiting), "length")


def _generate_tokens(
    run: Run, ids: list[int], config: SamplingConfig, top: int | None
) -> Iterator[tuple[int, TokenScore | None]]:
    """Yield tokens with their scores, or with None if `top` is None."""
    if top is None:
        for token in run.stream_ids(ids, config):
            yield token, None
    else:
        idx = torch.tensor([ids], device=get_device(run.model))
        for chosen, logits in engine.stream_with_logits(run.model, idx, config):
            yield int(chosen), score_tokens(run.tokenizer, logits, chosen, top)[0]


def score_tokens(tokenizer: Tokenizer, logits: Tensor, tokens: Tensor, top: int) -> list[TokenScore]:
    """Return how likely each of some tokens was.

    Args:
        tokenizer: the tokenizer.
        logits: those from which the tokens were chosen, (N, V).
        tokens: the token ids (N,).
        top: how many of the most likely tokens each score lists.
    """
    log_probabilities = F.log_softmax(logits.double().cpu(), dim=-1)  # (N, V)
    chosen = log_probabilities.gather(1, tokens.cpu()[:, None]).squeeze(1).tolist()
    best = log_probabilities.topk(min(top, log_probabilities.shape[1]), dim=1)  # (N, top)
    scores = []
    for token, value, names, values in zip(
        tokens.tolist(), chosen, best.indices.tolist(), best.values.tolist(), strict=True
    ):
        likeliest = tuple((*describe_token(tokenizer, name), each) for name, each in zip(names, values, strict=True))
        scores.append(TokenScore(*describe_token(tokenizer, token), value, likeliest))
    return scores


def describe_token(tokenizer: Tokenizer, token: int) -> tuple[str, bytes]:
    """Return a token's text and its bytes."""
    return tokenizer.decode([token]), tokenizer.decode_bytes([token])
