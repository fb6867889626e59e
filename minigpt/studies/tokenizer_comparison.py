"""Characters, BPE and SentencePiece compared: a model for each tokenizer, measured in bits per byte.

Losses per token cannot be compared, because a longer token is harder to predict and a text has fewer of them. So the
bits that a model needs for a text are divided by the text's bytes:

    bits per byte = (mean loss in nats per token) x (tokens predicted) / (ln 2 x bytes of UTF-8 predicted)

A larger vocabulary costs more multiplications per token, and gives fewer tokens. So every model trains with the same
number of multiplications, not with the same number of steps.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minigpt.config import Config, DataPath
from minigpt.runs.run import Run
from minigpt.system.plotting import create_figure, write_png
from minigpt.tokenizers.base import Tokenizer
from minigpt.training.train import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLE_LENGTH = 300  # characters, approximately
NAMES = {"char": "characters", "bpe": "BPE", "sentencepiece": "SentencePiece"}


@dataclass(frozen=True)
class TokenizerResult:
    """A tokenizer, and the model that was trained with it.

    Attributes:
        tokenizer: the tokenizer's name.
        vocab_size: the number of different tokens.
        tokens_per_character: in the training text.
        parameters: of the model.
        steps: of the training.
        loss: exact validation loss in nats per token.
        bits_per_byte: the exact validation loss in bits per byte of UTF-8.
        bits_per_character: the exact validation loss in bits per character.
        seconds: of training, without evaluation.
        characters_per_second: read in training.
        text: what the model writes.
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
    """Count the multiplications of a training step: six per token for each weight of a matrix, and attention's."""
    shape = config.model
    weights = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    return 6 * config.tokens_per_step * (weights + shape.n_layer * shape.block_size * shape.n_embd)


def compare_tokenizers(
    data: DataPath,
    out: Path,
    vocab_size: int,
    max_iters: int,
    prompt: str,
    seed: int,
    settings: Config | None = None,
) -> list[TokenizerResult]:
    """Train a model with each tokenizer, and draw the comparison.

    Args:
        data: the text, as for `minigpt.train`.
        out: the folder of the runs and of the picture.
        vocab_size: of BPE and SentencePiece.
        max_iters: training steps of the model on characters.
        prompt: a text that each model continues.
        seed: of weights, batches and samples.
        settings: of all models; None for the lecture preset.

    Raises:
        MinigptError: as `minigpt.train`.
    """
    budget, found = 0, []
    for kind in NAMES:
        learned: dict[str, Any] = {} if kind == "char" else {"vocab_size": vocab_size}
        shared = (settings or Config.from_preset("lecture")).override(tokenizer=kind, **learned)
        budget = budget or max_iters * count_multiplications(shared)
        steps = max(1, round(budget / count_multiplications(shared)))
        config = shared.override(max_iters=steps, eval_interval=max(1, steps // 20), seed=seed)
        found.append(_summarize_run(train(config, data=data, out=out / kind), prompt))
    write_png(out / "tokenizers.png", _draw_comparison(found))
    return found


def _summarize_run(run: Run, prompt: str) -> TokenizerResult:
    """Let a trained model continue the prompt, and return the text with the measurements of the training."""
    info, training = run.info, run.config.training
    read = run.metrics[-1].characters
    characters_per_token = read / (training.max_iters * run.config.tokens_per_step)
    assert info.validation_loss is not None
    assert info.bits_per_byte is not None
    assert info.bits_per_character is not None
    known_prompt = _drop_unknown_characters(prompt, run.tokenizer)
    new_tokens = round(SAMPLE_LENGTH / characters_per_token)
    return TokenizerResult(
        tokenizer=NAMES[training.tokenizer],
        vocab_size=run.tokenizer.vocab_size,
        tokens_per_character=1 / characters_per_token,
        parameters=info.parameters,
        steps=training.max_iters,
        loss=info.validation_loss,
        bits_per_byte=info.bits_per_byte,
        bits_per_character=info.bits_per_character,
        seconds=info.training_seconds,
        characters_per_second=read / info.training_seconds,
        text=run.generate(known_prompt, max_new_tokens=new_tokens, seed=training.seed),
    )


def _drop_unknown_characters(prompt: str, tokenizer: Tokenizer) -> str:
    """Return the prompt without the characters that a character tokenizer does not have."""
    stoi = getattr(tokenizer, "stoi", None)
    return prompt if stoi is None else "".join(c for c in prompt if c in stoi)


def format_table(found: list[TokenizerResult]) -> str:
    """Return the comparison as a Markdown table."""
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


def _draw_comparison(found: list[TokenizerResult]) -> "Figure":
    """Draw bits per byte, and characters per token, side by side."""
    figure = create_figure(9, 3.2)
    left, right = figure.subplots(1, 2, sharey=True)
    names = [model.tokenizer for model in found]
    for axes, values, title, shown in (
        (left, [m.bits_per_byte for m in found], "bits per byte of the text: lower is better", "{:.3f}"),
        (right, [1 / m.tokens_per_character for m in found], "characters per token", "{:.2f}"),
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
