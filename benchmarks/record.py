"""The record: how low the loss gets in 2, 10 or 60 minutes of this machine, beside nanoGPT's recipe and counting.

    python benchmarks/record.py --data input.txt --track 2min --seeds 3

Each seed trains the preset of that track for its minutes, on the training text short of its first fiftieth, on which
the weight of the blend with the n-gram model is fitted; validation is measured once, at the end, with the last weights.
The unit is the time that nanoGPT's recipe (the preset nanogpt-cpu) takes here in the same run. `--tune` measures on the
last tenth of the training text instead, which is then not trained on: recipes are tuned there. Prints Markdown.
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
from minigpt.training.forecast import steps_within
from minigpt.training.loop import fit
from minigpt.training.precision import resolve_precision

TRACKS = {"2min": 2.0, "10min": 10.0, "60min": 60.0}
NANO = "nanogpt-cpu"
SMALL = {  # what reaches nanoGPT's own loss in seconds, less than a fifteenth of its recipe's time
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
class Ground:
    """A text in three: to train on, to weigh the blend on, to measure on."""

    known: Tensor
    held_out: Tensor
    measured: Tensor
    vocab_size: int

    @classmethod
    def of(cls, text: str, tune: bool) -> "Ground":
        """The text's; measured on the last tenth of its training part, if that is to `tune`."""
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
class Counted:
    """The n-gram model of a text, and what it loses on what is kept out and on what is measured."""

    model: NGramModel
    held_out: Tensor
    measured: Tensor

    @classmethod
    def of(cls, ground: Ground) -> "Counted":
        """That of the order which suits what is kept out best."""
        model = fit_best_ngram(ground.known, ground.held_out, ground.vocab_size)
        return cls(model, model.token_losses(ground.held_out), model.token_losses(ground.measured))

    def blend_losses(self, held_out: Tensor, measured: Tensor) -> float:
        """The loss of its mixture with a model of those losses, whose weight is fitted on what is kept out."""
        return blend_losses(measured, self.measured, find_best_weight(held_out, self.held_out)).mean().item()


@dataclass(frozen=True)
class Trained:
    """What has come of a training, and what it took.

    Attributes:
        weights: of its matrix products, for each character.
        losses: of all predictions of what is measured; and of what is kept out.
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
        """The exact one: the mean over all predictions."""
        return self.losses.mean().item()

    @property
    def characters(self) -> int:
        """How many it has read."""
        return self.config.training.max_iters * self.config.tokens_per_step

    @property
    def flops(self) -> float:
        """Of its matrix products, forward and backward: six a weight and character, and twelve a score and channel."""
        shape = self.config.model
        return self.characters * (6.0 * self.weights + 12 * shape.n_layer * shape.n_embd * shape.block_size / 2)


def trained(
    ground: Ground, config: Config, title: str, make_callback: Callable[[Config], Callback] | None = None
) -> Trained:
    """Train a model of that configuration, and measure it; `max_minutes` becomes steps here."""
    with limit_threads(config.activations_per_batch):
        config, model, dataset = begun(ground, config)
        with Display(config.training, title) as display:
            callbacks = [ProgressBar(display, config.tokens_per_step)]
            if make_callback:
                callbacks.append(make_callback(config))
            state = fit(model, dataset, config, callbacks, estimate=None)
        losses, held_out = (compute_token_losses(model, ids).double() for ids in (ground.measured, ground.held_out))
        estimates = [compute_mean_loss(model, *dataset.get_batch("val")) for _ in range(SAMPLED)]
    weights = sum(layer.weight.numel() for layer in model.modules() if isinstance(layer, nn.Linear))
    if config.model.tied_head:
        weights += config.model.vocab_size * config.model.n_embd
    return Trained(weights, config, state.clock.training_seconds, losses, held_out, statistics.mean(estimates))


def begun(ground: Ground, config: Config) -> tuple[Config, TrainedModel, Dataset]:
    """What a training begins with; in its configuration, `max_minutes` is steps."""
    config = resolve_precision(config.override(vocab_size=ground.vocab_size, device="cpu"))
    torch.manual_seed(config.training.seed)
    dataset = Dataset(torch.cat([ground.known, ground.measured]), config)
    dataset.train, dataset.val = ground.known, ground.measured
    model = build(config.model)
    if config.training.max_minutes is not None:
        config = config.override(max_iters=steps_within(config.training.max_minutes, model, dataset, config))
    return config, model, dataset


def table(ground: Ground, track: str, seeds: int) -> None:
    """Train the track's preset with each seed, and print what comes out."""
    nano = trained(ground, Config.from_preset(NANO), NANO)
    began = time.perf_counter()
    ngram = Counted.of(ground)
    seconds = time.perf_counter() - began
    print("| what | exact loss | sampled | blended | minutes | units | characters | FLOPs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    show(NANO, [nano], nano.seconds, ngram)
    took = f"{seconds / 60:.2f} | {seconds / nano.seconds:.3f}"
    print(f"| n-gram, order {ngram.model.config.order} | {ngram.measured.mean():.4f} | | | {took} | | |")
    quick = Config.from_preset("cpu-2min").override(**SMALL)
    with limit_threads(1):  # its operations are too short to be shared
        small = trained(ground, quick, "quick")
    show("64 wide, one block", [small], nano.seconds, ngram)
    preset = f"cpu-{track}"
    recipe = Config.from_preset(preset)
    ours = [trained(ground, recipe.override(seed=seed), f"{preset}, seed {seed}") for seed in range(1, seeds + 1)]
    show(preset, ours, nano.seconds, ngram)


def show(name: str, found: list[Trained], unit: float, ngram: Counted) -> None:
    """A row of the table: the mean of each figure, and from where to where the losses are."""
    losses, sampled = [one.loss for one in found], [one.sampled for one in found]
    blends = [ngram.blend_losses(one.held_out, one.losses) for one in found]
    seconds = statistics.mean(one.seconds for one in found)
    print(
        f"| {name} | {spread(losses)} | {spread(sampled)} | {spread(blends)} "
        f"| {seconds / 60:.2f} | {seconds / unit:.3f} | {found[0].characters:,} | {found[0].flops:.2e} |",
        flush=True,
    )


def spread(values: list[float]) -> str:
    """The mean, and the lowest and the highest."""
    mean = f"{statistics.mean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.4f} to {max(values):.4f})"


def asked(about: str) -> tuple[Ground, str, int]:
    """The text, the track and how many seeds: what the command line names, of a program that is about that."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="the text; without it as for minigpt train")
    parser.add_argument("--track", choices=TRACKS, default="2min")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tune", action="store_true", help="measure on the last tenth of the training text")
    arguments = parser.parse_args()
    return Ground.of(find_corpus(arguments.data).text, arguments.tune), arguments.track, arguments.seeds


if __name__ == "__main__":
    table(*asked(__doc__))
