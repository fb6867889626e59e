"""What a model expects after a text: the probabilities of the next token, before and after the filters of sampling."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

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
from minigpt.studies.text_window import TextOrIds, decode_tokens, encode_window
from minigpt.system.device import limit_threads
from minigpt.system.plotting import Plottable, create_figure, make_token_label, replace_undrawable
from minigpt.tokenizers.base import Tokenizer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 15  # most likely tokens in the figure
SHOWN = 40  # characters of the text in its title
COLORS = ("#1f77b4", "#ff7f0e")


@dataclass(frozen=True)
class NextTokenDistribution(Plottable):
    """The probabilities of the next token. A notebook shows them as a figure.

    Attributes:
        probabilities: those of the model, (V,), float64.
        filtered: those after temperature, top-k and top-p, from which the token is sampled, (V,), float64.
        text: what the model has read, for the figure.
        tokenizer: names the tokens in the figure; None for their ids.
    """

    probabilities: Tensor
    filtered: Tensor
    text: str = ""
    tokenizer: Tokenizer | None = field(default=None, repr=False)

    @classmethod
    def from_logits(
        cls, logits: Tensor, config: SamplingConfig, text: str = "", tokenizer: Tokenizer | None = None
    ) -> Self:
        """Return the distribution of the token that logits (V,) predict, after a text."""
        logits = logits.double().cpu()
        filtered = F.softmax(filter_logits(logits[None], config)[0], dim=-1)
        return cls(F.softmax(logits, dim=-1), filtered, text, tokenizer)

    def plot(self) -> "Figure":
        """Draw the probabilities of the 15 most likely tokens as bars."""
        top = self.probabilities.topk(min(TOP, len(self.probabilities))).indices
        names = decode_tokens(self.tokenizer, top) if self.tokenizer else [f"#{i}" for i in top.tolist()]
        series = {f"model: {self.entropy:.2f} bits": self.probabilities[top]}
        if not self.filtered.equal(self.probabilities):
            series[f"temperature, top-k, top-p: {self.filtered_entropy:.2f} bits"] = self.filtered[top]
        return draw_next_tokens(names, series, self.text)

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
        logits = compute_next_logits(run.model, idx, heads_off)
    return NextTokenDistribution.from_logits(logits, config, run.tokenizer.decode(idx.tolist()), run.tokenizer)


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


def draw_next_tokens(tokens: Sequence[str], series: Mapping[str, Tensor], text: str) -> "Figure":
    """Draw the probabilities of tokens as horizontal bars, the first token on top.

    Args:
        tokens: the text of each token, (N,).
        series: the probabilities (N,) by what the legend calls them.
        text: the text that the tokens follow; the title shows its end.
    """
    figure = create_figure(8, 1.5 + 0.3 * len(tokens))
    axes = figure.subplots()
    height = 0.8 / len(series)
    for n, (label, probabilities) in enumerate(series.items()):
        places = [place + height * (n - (len(series) - 1) / 2) for place in range(len(tokens))]
        axes.barh(places, probabilities.tolist(), height=height, label=label, color=COLORS[n])
    labels = [make_token_label(token) for token in tokens]
    axes.set_yticks(range(len(tokens)), labels, size=11, family="monospace", parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("probability")
    shown = ("…" if len(text) > SHOWN else "") + replace_undrawable(text[-SHOWN:])
    axes.set_title(f"The next token after “{shown}”", size=12, parse_math=False)
    axes.legend()
    return figure
