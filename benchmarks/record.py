"""Measure how low the validation loss gets in 2, 10 or 60 minutes, beside nanoGPT's recipe and the n-gram model.

    python benchmarks/record.py --data input.txt --track 2min --seeds 3

Each seed trains the preset of the track. The validation loss is that of the last weights. A blend with the n-gram
model has a weight that is fitted on the first fiftieth of the training text; neither model trains on that part. A
unit is the training time of nanoGPT's recipe (the preset nanogpt-cpu) in the same run. `--tune` measures on the
last tenth of the training text, which is then not trained on: settings are chosen there. Prints a Markdown table.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.config import Config
from minigpt.data.corpus import find_corpus
from minigpt.data.dataset import Dataset
from minigpt.model import TrainedModel, build
from minigpt.model.loss import compute_mean_loss, compute_token_losses
from minigpt.model.ngram import NGramModel
from minigpt.studies.ladder.blend import blend_losses, find_best_weight
from minigpt.studies.ladder.ngram_comparison import fit_best_ngram, hold_out
from minigpt.system.device import limit_threads
from minigpt.tokenizers.char import CharTokenizer
from minigpt.training.callbacks import Callback, ProgressBar
from minigpt.training.display import Display
from minigpt.training.loop import train_model
from minigpt.training.planning.forecast import count_steps_within
from minigpt.training.precision import resolve_precision

TRACKS = {"2min": 2.0, "10min": 10.0, "60min": 60.0}
NANOGPT = "nanogpt-cpu"
SMALL = {  # reaches the loss of nanoGPT's recipe in less than a fifteenth of its time
    "max_iters": 400,
    "n_embd": 64,
    "n_head": 2,
    "n_layer": 1,
    "block_size": 64,
    "batch_size": 12,
    "learning_rate": 2e-2,
    "muon_learning_rate": 0.03,
    "warmup_iters": 10,
    "precision": "fp32",
}
SAMPLED = 200  # batches of nanoGPT's estimate of a loss


@dataclass(frozen=True)
class TextSplits:
    """A text in three parts: to train on (`known`), to fit the blend on (`held_out`), and to measure on."""

    known: Tensor
    held_out: Tensor
    measured: Tensor
    vocab_size: int

    @classmethod
    def from_text(cls, text: str, tune: bool) -> "TextSplits":
        """Split a text; with `tune`, measure on the last tenth of its training part."""
        tokenizer = CharTokenizer.from_text(text)
        ids = torch.tensor(tokenizer.encode(text))
        cut = math.floor(0.9 * len(ids))
        train, measured = ids[:cut], ids[cut:]
        if tune:
            cut = math.floor(0.9 * len(train))
            train, measured = train[:cut], train[cut:]
        known, held_out = hold_out(train, 256)
        return cls(known, held_out, measured, tokenizer.vocab_size)


@dataclass(frozen=True)
class NGramBaseline:
    """The n-gram model of a text, with the losses of its tokens in the two other parts."""

    model: NGramModel
    held_out: Tensor
    measured: Tensor

    @classmethod
    def fit(cls, splits: TextSplits) -> "NGramBaseline":
        """Fit the order with the lowest loss on the held-out part."""
        model = fit_best_ngram(splits.known, splits.held_out, splits.vocab_size)
        return cls(model, model.token_losses(splits.held_out), model.token_losses(splits.measured))

    def blend_losses(self, held_out: Tensor, measured: Tensor) -> float:
        """Return the loss of a blend with a model; its weight is fitted on the held-out part."""
        return blend_losses(measured, self.measured, find_best_weight(held_out, self.held_out)).mean().item()


@dataclass(frozen=True)
class TrainingResult:
    """The losses of a trained model, and what the training took.

    Attributes:
        weights: the number of weights in matrix products.
        config: the settings.
        seconds: the time of training, without evaluations.
        losses: the loss of each token of the measured part.
        held_out: the loss of each token of the held-out part.
        sampled: nanoGPT's estimate of the loss.
    """

    weights: int
    config: Config
    seconds: float
    losses: Tensor
    held_out: Tensor
    sampled: float

    @property
    def loss(self) -> float:
        """The exact loss: the mean over all tokens."""
        return self.losses.mean().item()

    @property
    def characters(self) -> int:
        """The number of characters read."""
        return self.config.training.max_iters * self.config.tokens_per_step

    @property
    def flops(self) -> float:
        """The FLOPs of forward and backward: 6 for each weight and character, 12 for each score and channel."""
        shape = self.config.model
        return self.characters * (6.0 * self.weights + 12 * shape.n_layer * shape.n_embd * shape.block_size / 2)


def train_and_measure(
    splits: TextSplits, config: Config, title: str, make_callback: Callable[[Config], Callback] | None = None
) -> TrainingResult:
    """Train a model and measure it."""
    with limit_threads(config.activations_per_batch):
        config, model, dataset = prepare_training(splits, config)
        with Display(config.training, title) as display:
            callbacks: list[Callback] = [ProgressBar(display, config.tokens_per_step)]
            if make_callback:
                callbacks.append(make_callback(config))
            state = train_model(model, dataset, config, callbacks, estimate=None)
        losses, held_out = (compute_token_losses(model, ids).double() for ids in (splits.measured, splits.held_out))
        estimates = [compute_mean_loss(model, *dataset.get_batch("val")) for _ in range(SAMPLED)]
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    if config.model.tied_head:
        weights += config.model.vocab_size * config.model.n_embd
    return TrainingResult(weights, config, state.clock.training_seconds, losses, held_out, statistics.mean(estimates))


def prepare_training(splits: TextSplits, config: Config) -> tuple[Config, TrainedModel, Dataset]:
    """Return the settings, with `max_minutes` turned into steps, the model and the dataset of a training."""
    config = resolve_precision(config.override(vocab_size=splits.vocab_size, device="cpu"))
    torch.manual_seed(config.training.seed)
    dataset = Dataset(torch.cat([splits.known, splits.measured]), config)
    dataset.train, dataset.val = splits.known, splits.measured
    model = build(config.model)
    if config.training.max_minutes is not None:
        config = config.override(max_iters=count_steps_within(config.training.max_minutes, model, dataset, config))
    return config, model, dataset


def print_table(splits: TextSplits, track: str, seeds: int) -> None:
    """Train the preset of the track with each seed, and print the table."""
    nano = train_and_measure(splits, Config.from_preset(NANOGPT), NANOGPT)
    start = time.perf_counter()
    ngram = NGramBaseline.fit(splits)
    seconds = time.perf_counter() - start
    print("| what | exact loss | sampled | blended | minutes | units | characters | FLOPs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    print_row(NANOGPT, [nano], nano.seconds, ngram)
    took = f"{seconds / 60:.2f} | {seconds / nano.seconds:.3f}"
    print(f"| n-gram, order {ngram.model.config.order} | {ngram.measured.mean():.4f} | | | {took} | | |")
    quick = Config.from_preset("cpu-2min").override(**SMALL)
    with limit_threads(1):  # its operations are too short for two threads
        small = train_and_measure(splits, quick, "quick")
    print_row("64 wide, one block", [small], nano.seconds, ngram)
    preset = f"cpu-{track}"
    recipe = Config.from_preset(preset)
    ours = [
        train_and_measure(splits, recipe.override(seed=seed), f"{preset}, seed {seed}") for seed in range(1, seeds + 1)
    ]
    print_row(preset, ours, nano.seconds, ngram)


def print_row(name: str, found: list[TrainingResult], unit: float, ngram: NGramBaseline) -> None:
    """Print a row of the table: the mean of each figure, with the range of the losses."""
    losses, sampled = [one.loss for one in found], [one.sampled for one in found]
    blends = [ngram.blend_losses(one.held_out, one.losses) for one in found]
    seconds = statistics.mean(one.seconds for one in found)
    print(
        f"| {name} | {format_spread(losses)} | {format_spread(sampled)} | {format_spread(blends)} "
        f"| {seconds / 60:.2f} | {seconds / unit:.3f} | {found[0].characters:,} | {found[0].flops:.2e} |",
        flush=True,
    )


def format_spread(values: list[float]) -> str:
    """Return the mean, with the lowest and the highest value."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def parse_arguments(about: str) -> tuple[TextSplits, str, int]:
    """Read the command line of a program with this description: the text, the track and the number of seeds."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text file; by default that of minigpt train")
    parser.add_argument("--track", choices=TRACKS, default="2min")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", action="store_true", help="measure on the last tenth of the training text")
    arguments = parser.parse_args()
    return TextSplits.from_text(find_corpus(arguments.data).text, arguments.tune), arguments.track, arguments.seeds


if __name__ == "__main__":
    print_table(*parse_arguments(__doc__))
