"""The record's picture: exact loss against minutes of training, and what each model writes after the same prompt.

    python benchmarks/record_curves.py --data input.txt --tracks 2min --out docs/images/record.png

The lecture, nanoGPT's recipe, and the record's presets, alone and blended with counting. The clock stands while a loss
is measured. Prints where each curve ends, and the texts, as Markdown.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from record import NANO, TRACKS, Counted, Ground, trained
from torch import Tensor

from minigpt.config import Config, SamplingConfig
from minigpt.data.corpus import find_corpus
from minigpt.generation.engine import generate
from minigpt.model.loss import compute_token_losses
from minigpt.system.plotting import create_figure, write_png
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import Callback
from minigpt.training.evaluation import choose_snapshot_steps
from minigpt.training.training_state import TrainingState

POINTS = 14  # of a curve
MINUTES = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 100)
ON_A_GPU = 1.4697  # the loss that nanoGPT's README gives, after about three minutes
PROMPT, WRITTEN = "ROMEO:\n", 300


class Curve(Callback):
    """Measures on the way, alone and blended, at steps spread evenly on a log scale.

    Attributes:
        points: minutes of training, the loss, and that of the blend.
        model: what was trained.
    """

    def __init__(self, config: Config, ground: Ground, ngram: Counted) -> None:
        self.steps = {*choose_snapshot_steps(POINTS, config.training.max_iters)[1:]}
        self.ground, self.ngram = ground, ngram
        self.points: list[tuple[float, float, float]] = []
        self.model: Any = None

    def on_step_end(self, state: TrainingState) -> None:
        """Measure the exact losses of the model as it is."""
        if state.step not in self.steps:
            return
        self.model = state.model
        with state.clock.evaluating():
            held_out, measured = (
                compute_token_losses(self.model, ids).double() for ids in (self.ground.held_out, self.ground.measured)
            )
        minutes = state.clock.training_seconds / 60
        self.points.append((minutes, measured.mean().item(), self.ngram.blend_losses(held_out, measured)))


def main() -> None:
    """Train, draw, and print the texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text; without it as for minigpt train")
    parser.add_argument("--tracks", nargs="+", choices=TRACKS, default=["2min"])
    parser.add_argument("--out", type=Path, default=Path("record.png"))
    arguments = parser.parse_args()
    text = find_corpus(arguments.data).text
    tokenizer, ground = CharTokenizer.from_text(text), Ground.of(text, tune=False)
    ngram = Counted.of(ground)
    print("| what | steps | minutes | exact loss | blended |\n| --- | --- | --- | --- | --- |")
    curves: dict[str, Curve] = {}
    for preset in ("lecture", NANO, *(f"cpu-{track}" for track in arguments.tracks)):
        curve = curves[preset] = curve_of(ground, preset, ngram)
        minutes, alone, mixed = curve.points[-1]
        print(f"| {preset} | {max(curve.steps):,} | {minutes:.2f} | {alone:.4f} | {mixed:.4f} |", flush=True)
        draw(curves, ngram.measured.mean().item(), arguments.out)  # now, lest an hour be lost
    prompt = torch.tensor([tokenizer.encode(PROMPT)])
    for name, model in {**{name: curve.model for name, curve in curves.items()}, "n-gram": ngram.model}.items():
        print(f"\n{name}:\n\n```text\n{PROMPT}{written(model, prompt, tokenizer)}\n```")


def curve_of(ground: Ground, preset: str, ngram: Counted) -> Curve:
    """The curve of a preset's training."""
    kept: list[Curve] = []

    def make_curve(config: Config) -> Curve:
        kept.append(Curve(config, ground, ngram))
        return kept[0]

    trained(ground, Config.from_preset(preset), preset, make_curve)
    return kept[0]


def written(model: Any, prompt: Tensor, tokenizer: CharTokenizer) -> str:
    """What the model writes after the prompt."""
    return tokenizer.decode(generate(model, prompt, SamplingConfig(max_new_tokens=WRITTEN, seed=1))[0].tolist())


def draw(curves: dict[str, Curve], ngram: float, out: Path) -> None:
    """All curves in one picture."""
    figure = create_figure(11, 6)
    axes = figure.subplots()
    for name, curve in curves.items():
        minutes, alone, mixed = zip(*curve.points, strict=True)
        [line] = axes.plot(minutes, alone, "o-", linewidth=2, label=name)
        if name.startswith("cpu-"):
            axes.plot(
                minutes, mixed, "o--", linewidth=2, color=line.get_color(), label=f"{name}, blended with counting"
            )
    axes.axhline(ngram, color="black", linewidth=1.5, linestyle=":", label="counting alone: n-grams, in two seconds")
    axes.axhline(ON_A_GPU, color="gray", linewidth=1.5, linestyle="-.", label="nanoGPT's GPU recipe, on an A100")
    axes.set_xscale("log")
    axes.set_xticks(MINUTES, [f"{minutes:g}" for minutes in MINUTES])
    axes.set_xlim(MINUTES[0], MINUTES[-1])
    axes.set_ylim(1.3, 2.6)
    axes.set_xlabel("minutes of training on two CPU cores", size=13)
    axes.set_ylabel("validation loss (nats per character)", size=13)
    axes.set_title("The record: loss against time", size=15)
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize=11)
    write_png(out, figure)


if __name__ == "__main__":
    main()
