"""Characters, BPE and SentencePiece, each with a model of its own, compared where they can be: in bits per byte.

A loss per token says little by itself, for a longer token is harder to predict and there are fewer of them. So all
bits that a model needs for a text are divided by the text's bytes:

    bits per byte = (mean loss in nats per token) x (tokens predicted) / (ln 2 x bytes of UTF-8 predicted)

And as a model with more tokens has more to compute for each, and fewer of them to read, every model trains not for the
same number of steps but for the same number of count_multiplications.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.config import Config
from minigpt.system.plotting import create_figure, write_png
from minigpt.tokenizers.base import Tokenizer
from minigpt.training.train import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LENGTH = 300  # characters, about, that each model writes
ABOUT = {"char": "characters", "bpe": "BPE", "sentencepiece": "SentencePiece"}


@dataclass(frozen=True)
class TokenizerResult:
    """A tokenizer and the model that was trained with it.

    Attributes:
        tokens_per_character: of the whole text.
        loss: exact validation loss, nats per token.
        characters_per_second: read in training, the fewer tokens of a longer kind counted as what they stand for.
    """

    tokenizer: str
    vocab_size: int
    tokens_per_character: float
    parameters: int
    steps: int
    loss: float
    bits_per_byte: float
    bits_per_character: float
    seconds: float
    characters_per_second: float
    text: str


def count_multiplications(config: Config) -> int:
    """How many a training step makes: six for each weight in a matrix and each token, and those of attention."""
    shape = config.model
    weights = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    return 6 * config.tokens_per_step * (weights + shape.n_layer * shape.block_size * shape.n_embd)


def compare(
    data: str | Path | None, out: Path, vocab_size: int, max_iters: int, prompt: str, seed: int
) -> list[TokenizerResult]:
    """Train a model with each tokenizer into a folder of its own in `out`, and draw the comparison there.

    Raises what `minigpt.train` does.
    """
    budget, found = 0, []
    for kind in ABOUT:
        learned: dict[str, Any] = {} if kind == "char" else {"vocab_size": vocab_size}
        wanted = Config.from_preset("lecture").override(tokenizer=kind, **learned)
        budget = budget or max_iters * count_multiplications(wanted)
        steps = max(1, round(budget / count_multiplications(wanted)))
        config = wanted.override(max_iters=steps, eval_interval=max(1, steps // 20), seed=seed)
        run = train(config, data=data, out=out / kind)
        read = run.metrics[-1].characters
        per_token = read / (steps * run.config.tokens_per_step)
        assert run.record.validation_loss is not None
        assert run.record.bits_per_byte is not None
        assert run.record.bits_per_character is not None
        text = run.generate(known(prompt, run.tokenizer), max_new_tokens=round(LENGTH / per_token), seed=seed)
        found.append(
            TokenizerResult(
                tokenizer=ABOUT[kind],
                vocab_size=run.tokenizer.vocab_size,
                tokens_per_character=1 / per_token,
                parameters=run.record.parameters,
                steps=steps,
                loss=run.record.validation_loss,
                bits_per_byte=run.record.bits_per_byte,
                bits_per_character=run.record.bits_per_character,
                seconds=run.record.training_seconds,
                characters_per_second=read / run.record.training_seconds,
                text=text,
            )
        )
    write_png(out / "tokenizers.png", draw(found))
    return found


def known(prompt: str, tokenizer: Tokenizer) -> str:
    """The prompt without characters that a vocabulary of characters lacks."""
    stoi = getattr(tokenizer, "stoi", None)
    return prompt if stoi is None else "".join(c for c in prompt if c in stoi)


def table(found: list[TokenizerResult]) -> str:
    """The comparison as Markdown."""
    lines = [
        "| tokens | different | tokens per character | parameters | steps | nats per token | bits per byte "
        "| characters read per second |",
        "| --- " * 8 + "|",
    ]
    for model in found:
        lines.append(
            f"| {model.tokenizer} | {model.vocab_size:,} | {model.tokens_per_character:.3f} | {model.parameters:,} "
            f"| {model.steps:,} | {model.loss:.4f} | {model.bits_per_byte:.4f} | {model.characters_per_second:,.0f} |"
        )
    return "\n".join(lines)


def draw(found: list[TokenizerResult]) -> "Figure":
    """Bits per byte, and what a token is worth, side by side."""
    figure = create_figure(9, 3.2)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [model.tokenizer for model in found]
    for axes, values, title, shown in (
        (left, [m.bits_per_byte for m in found], "bits per byte of the text: lower is better", "{:.3f}"),
        (right, [1 / m.tokens_per_character for m in found], "characters in a token", "{:.2f}"),
    ):
        bars = axes.barh(names, values, color="#4c9be8", height=0.6)
        axes.bar_label(bars, [shown.format(value) for value in values], padding=4)
        axes.set_title(title, size=11, loc="left")
        axes.set_xlim(0, max(values) * 1.18)
        axes.set_xticks([])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
    left.invert_yaxis()
    return figure
