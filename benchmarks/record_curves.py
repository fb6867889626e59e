"""Draw the exact loss against minutes of training for several presets, and print a sample of each model.

    python benchmarks/record_curves.py --data input.txt --tracks 2min --out docs/images/record.png

The presets are the lecture, nanoGPT's recipe and those of docs/record.md, alone and blended with the n-gram model.
The clock stops while a loss is measured. Prints the end of each curve and the samples as Markdown.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from record import NANOGPT, TRACKS, NGramBaseline, TextSplits, train_and_measure
from torch import Tensor

from minigpt.config import Config, SamplingConfig
from minigpt.data.corpus import find_corpus
from minigpt.generation.engine import generate
from minigpt.model.loss import compute_token_losses
from minigpt.system.plotting import create_figure, write_png
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import Callback
from minigpt.training.evaluation_schedule import choose_snapshot_steps
from minigpt.training.training_state import TrainingState

POINTS = 14  # points of a curve
MINUTES = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 100)
ON_A_GPU = 1.4697  # the loss in nanoGPT's README, after about three minutes
PROMPT, WRITTEN = "ROMEO:\n", 300


class Curve(Callback):
    """Measures the loss, alone and blended, at steps spread evenly on a log scale.

    Attributes:
        points: minutes of training, the loss, and the loss of the blend.
        model: the trained model.
    """

    def __init__(self, config: Config, splits: TextSplits, ngram: NGramBaseline) -> None:
        self.steps = {*choose_snapshot_steps(POINTS, config.training.max_iters)[1:]}
        self.splits, self.ngram = splits, ngram
        self.points: list[tuple[float, float, float]] = []
        self.model: Any = None

    def on_step_end(self, state: TrainingState) -> None:
        """Measure the exact loss of the model at its steps."""
        if state.step not in self.steps:
            return
        self.model = state.model
        with state.clock.count_as_evaluation():
            held_out, measured = (
                compute_token_losses(self.model, ids).double() for ids in (self.splits.held_out, self.splits.measured)
            )
        minutes = state.clock.training_seconds / 60
        self.points.append((minutes, measured.mean().item(), self.ngram.blend_losses(held_out, measured)))


def main() -> None:
    """Train, draw, and print the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, default=["2min"])
    parser.add_argument("--out", type=Path, default=Path("record.png"))
    arguments = parser.parse_args()
    text = find_corpus(arguments.data).text
    tokenizer, splits = CharTokenizer.from_text(text), TextSplits.from_text(text, tune=False)
    ngram = NGramBaseline.fit(splits)
    print("| what | steps | minutes | exact loss | blended |\n| --- | --- | --- | --- | --- |")
    curves: dict[str, Curve] = {}
    for preset in ("lecture", NANOGPT, *(f"cpu-{track}" for track in arguments.tracks)):
        curve = curves[preset] = train_curve(splits, preset, ngram)
        minutes, alone, mixed = curve.points[-1]
        print(f"| {preset} | {max(curve.steps):,} | {minutes:.2f} | {alone:.4f} | {mixed:.4f} |", flush=True)
        draw(curves, ngram.measured.mean().item(), arguments.out)  # after each curve: a training may take an hour
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    for name, model in {**{name: curve.model for name, curve in curves.items()}, "n-gram": ngram.model}.items():
        print(f"\n{name}:\n\n```text\n{PROMPT}{write_sample(model, prompt, tokenizer)}\n```")


def train_curve(splits: TextSplits, preset: str, ngram: NGramBaseline) -> Curve:
    """Train a preset and return its curve."""
    kept: list[Curve] = []

    def make_curve(config: Config) -> Curve:
        kept.append(Curve(config, splits, ngram))
        return kept[0]

    train_and_measure(splits, Config.from_preset(preset), preset, make_curve)
    return kept[0]


def write_sample(model: Any, prompt: Tensor, tokenizer: CharTokenizer) -> str:
    """Return the text that the model generates after the prompt."""
    return tokenizer.decode(generate(model, prompt, SamplingConfig(max_new_tokens=WRITTEN, seed=1))[0].tolist())


def draw(curves: dict[str, Curve], ngram: float, out: Path) -> None:
    """Draw all curves into one picture."""
    figure = create_figure(11, 6)
    axes = figure.subplots()
    for name, curve in curves.items():
        minutes, alone, mixed = zip(*curve.points, strict=True)
        [line] = axes.plot(minutes, alone, "o-", linewidth=2, label=name)
        if name.startswith("cpu-"):
            axes.plot(
                minutes,
                mixed,
                "o--",
                linewidth=2,
                color=line.get_color(),
                label=f"{name}, blended with the n-gram model",
            )
    axes.axhline(ngram, color="black", linewidth=1.5, linestyle=":", label="the n-gram model alone, in two seconds")
    axes.axhline(ON_A_GPU, color="gray", linewidth=1.5, linestyle="-.", label="nanoGPT's GPU recipe, on an A100")
    axes.set_xscale("log")
    longest = max(curve.points[-1][0] for curve in curves.values())
    shown = [minutes for minutes in MINUTES if minutes <= 1.1 * longest]
    axes.set_xticks(shown, [f"{minutes:g}" for minutes in shown])
    axes.set_xlim(MINUTES[0], 1.1 * longest)
    axes.set_ylim(1.3, 2.6)
    axes.set_xlabel("minutes of training on two CPU cores", size=13)
    axes.set_ylabel("validation loss (nats per character)", size=13)
    axes.set_title("The record: loss against time", size=15)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=11)
    write_png(out, figure)


if __name__ == "__main__":
    main()
