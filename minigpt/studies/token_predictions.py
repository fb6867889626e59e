"""How a model predicts each token of a text: its loss, its probability and its rank."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.generation.engine import prefill
from minigpt.model import LanguageModel
from minigpt.model.language_model import evaluation_mode, get_device
from minigpt.model.loss import TOKENS_PER_BATCH, count_windows_per_batch
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import require_heads, without_heads
from minigpt.studies.text_window import TextOrIds
from minigpt.system.device import limit_threads


@dataclass(frozen=True)
class TokenPredictions:
    """How a model predicted N tokens.

    Attributes:
        losses: in nats, (N,), float64.
        ranks: how likely the token was among all tokens: 1 is the most likely. (N,), int64. Of several tokens with the
            same probability, each has the best rank.
    """

    losses: Tensor
    ranks: Tensor

    @property
    def probabilities(self) -> Tensor:
        """The probability of each token, (N,), float64."""
        return self.losses.neg().exp()

    @classmethod
    def from_logits(cls, logits: Tensor, tokens: Tensor) -> Self:
        """Return how logits (N, V) predict tokens (N,)."""
        losses = F.cross_entropy(logits, tokens, reduction="none").double()
        ranks = 1 + (logits > logits.gather(1, tokens[:, None])).sum(dim=1)
        return cls(losses.cpu(), ranks.cpu())

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the predictions of consecutive tokens. Without parts, there are no tokens."""
        losses = torch.cat([torch.empty(0, dtype=torch.float64), *(part.losses for part in parts)])
        return cls(losses, torch.cat([torch.empty(0, dtype=torch.int64), *(part.ranks for part in parts)]))


def predict_text(run: Run, text: TextOrIds, heads_off: Collection[tuple[int, int]] = ()) -> TokenPredictions:
    """Predict each token of a text after the first from at most block_size tokens before it.

    Args:
        run: the run whose model predicts.
        text: the text or its token ids. With fewer than two tokens there is nothing to predict.
        heads_off: attention heads whose output is zero, as (block, head) from 0.

    Returns:
        The predictions of the N - 1 tokens after the first.

    Raises:
        ConfigError: the model does not have one of the heads.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    return TokenPredictions.concatenate([*stream_predictions(run, text, heads_off)])


def stream_predictions(
    run: Run, text: TextOrIds, heads_off: Collection[tuple[int, int]] = ()
) -> Iterator[TokenPredictions]:
    """Yield the result of `predict_text` in parts. The model may be used for something else between two parts."""
    require_heads(run.model, heads_off)
    ids = torch.tensor(run.tokenizer.encode(text) if isinstance(text, str) else text, dtype=torch.int64)
    start, steps = 1, stream_text_logits(run.model, ids, heads_off)
    while True:
        with limit_threads(TOKENS_PER_BATCH * run.config.model.n_embd):  # never around the yield
            logits = next(steps, None)
        if logits is None:
            return
        yield TokenPredictions.from_logits(logits, ids[start : start + len(logits)].to(logits.device))
        start += len(logits)


def stream_text_logits(
    model: LanguageModel, ids: Tensor, heads_off: Collection[tuple[int, int]] = ()
) -> Iterator[Tensor]:
    """Yield the logits that predict each token of a text after the first from at most block_size tokens before it.

    One forward pass predicts the first block_size tokens. Each later token has a window of its own; the windows are
    read in batches, so that little memory is needed. Dropout is off. The model may be used for something else between
    two parts.

    Args:
        model: any model.
        ids: the token ids of the text, (N,).
        heads_off: attention heads whose output is zero, as (block, head) from 0.

    Yields:
        The logits (n, V) of the next n tokens; those of all parts together predict ids[1:].

    Raises:
        ConfigError: the model does not have one of the heads.
    """
    ids, T = ids.to(get_device(model)), model.config.block_size
    if len(ids) > 1:
        with torch.no_grad(), evaluation_mode(model), without_heads(model, heads_off):
            logits, _ = model(ids[None, :-1][:, :T])  # (1, T, V), or fewer
        yield logits[0]
    if len(ids) > T + 1:
        windows = ids[1:-1].unfold(0, T, 1)  # (N - 1 - T, T)
        for batch in windows.split(count_windows_per_batch(model, T)):
            with evaluation_mode(model), without_heads(model, heads_off):
                _, logits = prefill(model, batch.contiguous())  # (B, V)
            yield logits
