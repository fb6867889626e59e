"""What a model expects after a text: the probabilities of the next token, before and after the filters of sampling."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from minigpt.config import SamplingConfig
from minigpt.generation.engine import prefill
from minigpt.generation.filters import filter_logits
from minigpt.model import LanguageModel
from minigpt.model.language_model import evaluation_mode
from minigpt.model.loss_units import nats_to_bits
from minigpt.runs.run import Run
from minigpt.studies.attention_heads import without_heads
from minigpt.studies.text_window import TextOrIds, encode_window
from minigpt.system.device import limit_threads


@dataclass(frozen=True)
class NextTokenDistribution:
    """The probabilities of the next token.

    Attributes:
        probabilities: those of the model, (V,), float64.
        filtered: those after temperature, top-k and top-p, from which the token is sampled, (V,), float64.
    """

    probabilities: Tensor
    filtered: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, config: SamplingConfig) -> Self:
        """Return the distribution of the token that logits (V,) predict."""
        logits = logits.double().cpu()
        return cls(F.softmax(logits, dim=-1), F.softmax(filter_logits(logits[None], config)[0], dim=-1))

    @property
    def entropy(self) -> float:
        """The entropy in bits of the model's probabilities."""
        return compute_entropies(self.probabilities[None])[0]

    @property
    def filtered_entropy(self) -> float:
        """The entropy in bits of the filtered probabilities."""
        return compute_entropies(self.filtered[None])[0]


def compute_entropies(distributions: Tensor) -> list[float]:
    """Compute the entropy in bits of each row of probabilities (N, V)."""
    return [nats_to_bits(value) for value in torch.special.entr(distributions).sum(dim=-1).tolist()]


def next_token_distribution(
    run: Run,
    text: TextOrIds = "",
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    heads_off: Collection[tuple[int, int]] = (),
) -> NextTokenDistribution:
    """Return the probabilities of the token that follows a text.

    Args:
        run: the run whose model predicts.
        text: the text or its token ids. The model sees the last block_size tokens, and for an empty text the start
            token.
        temperature: below 1 sharpens the filtered distribution, above 1 flattens it; 0 leaves the most likely token.
        top_k: keep the k most likely tokens only.
        top_p: keep the most likely tokens of this total probability only.
        heads_off: attention heads whose output is zero, as (block, head) from 0.

    Raises:
        ConfigError: an impossible setting, or the model does not have one of the heads.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    config = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
    idx = encode_window(run, text)
    with limit_threads(len(idx) * run.config.model.n_embd):
        return NextTokenDistribution.from_logits(compute_next_logits(run.model, idx, heads_off), config)


def compute_next_logits(model: LanguageModel, idx: Tensor, heads_off: Collection[tuple[int, int]] = ()) -> Tensor:
    """Compute the logits (V,) of the token after the ids (T,), of which the model sees the last block_size.

    Args:
        model: any model. Dropout is off.
        idx: token ids (T,), at least one.
        heads_off: attention heads whose output is zero, as (block, head) from 0.

    Raises:
        ConfigError: the model does not have one of the heads.
    """
    with evaluation_mode(model), without_heads(model, heads_off):
        _, logits = prefill(model, idx[None])  # (1, V)
    return logits[0]
