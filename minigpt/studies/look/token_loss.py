"""The view `surprise`: a text colored by the loss of each token."""

import html
import math
from collections.abc import Sequence

import torch
from rich.text import Text

from minigpt.model.loss import TOKENS_PER_BATCH, compute_token_losses
from minigpt.model.loss_units import nats_to_bits
from minigpt.runs.exact_loss import require_two_tokens
from minigpt.runs.run import Run
from minigpt.studies.look.html_page import make_page
from minigpt.system.device import limit_threads
from minigpt.system.terminal import escape_control_characters

STRONGEST = 10.0  # bits: a token of probability 1/1000 has the full color
TERMINAL_STYLES = (  # a loss in bits, and the style of the losses up to it
    (1, ""),
    (2.5, "white on #4a2a2a"),
    (4.5, "white on #7a2424"),
    (7, "white on #a81c1c"),
    (math.inf, "bold white on #d60000"),
)


def split_tokens(run: Run, text: str) -> list[str]:
    """Split a text into its tokens. A token that is only a part of a character becomes U+FFFD."""
    return [run.tokenizer.decode([i]) for i in run.tokenizer.encode(text)]


def compute_text_losses(run: Run, text: str) -> list[float]:
    """Compute the loss in nats of each token after the first, in the windows of an evaluation.

    Raises:
        DataError: the text has fewer than two tokens.
        UnknownCharacterError: the text has a character outside the vocabulary.
    """
    ids = torch.tensor(run.tokenizer.encode(text))
    require_two_tokens(ids)
    with limit_threads(TOKENS_PER_BATCH * run.config.model.n_embd):
        return compute_token_losses(run.model, ids).tolist()


def make_token_loss_page(title: str, tokens: Sequence[str], losses: list[float]) -> str:
    """Return a page of HTML: each token after the first shaded by its loss, which is darkest from ten bits on."""
    spans = [html.escape(escape_control_characters(tokens[0]))]
    for token, loss in zip(tokens[1:], losses, strict=True):
        strength = min(1.0, nats_to_bits(loss) / STRONGEST)
        mark = "⏎\n" if token == "\n" else html.escape(escape_control_characters(token))
        spans.append(f'<span style="--s:{strength:.2f}" title="{nats_to_bits(loss):.2f} bits">{mark}</span>')
    mean = nats_to_bits(sum(losses) / len(losses))
    legend = "".join(f'<span style="--s:{b / STRONGEST}">&nbsp;{b:g}&nbsp;</span>' for b in (0, 1, 2, 4, 6, 8, 10))
    return make_page(
        title,
        f"<p>A stronger color marks a token that the model expected less: {legend} bits. The mean is "
        f'{mean:.2f} bits per token. Point at a token to read its loss.</p><pre dir="auto">\n{"".join(spans)}</pre>',
    )


def color_by_loss(tokens: Sequence[str], losses: list[float]) -> Text:
    """Return the text for a terminal, with a background color by the loss of each token."""
    shown = Text(escape_control_characters(tokens[0]))
    for token, loss in zip(tokens[1:], losses, strict=True):
        style = next(style for limit, style in TERMINAL_STYLES if nats_to_bits(loss) < limit)
        shown.append("⏎\n" if token == "\n" and style else escape_control_characters(token), style)
    return shown
