"""What a training will take, said before it begins: its time, its memory, and roughly the loss it will reach.

Time and memory come from a rehearsal: a few real steps and a real evaluation, on a copy that is thrown away.
The loss comes from this project's own runs (`LOSS` below).
"""

import copy
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.config import Config, SamplingConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import DivergedError
from minigpt.generation.engine import generate
from minigpt.model import TrainedModel, count_parameters
from minigpt.model.loss import MAX_EVALUATED_TOKENS
from minigpt.training.callbacks import SNAPSHOT_TOKENS
from minigpt.training.display import format_duration
from minigpt.training.evaluation import choose_snapshot_steps, estimate_loss
from minigpt.training.loop import train_step
from minigpt.training.optimizer import Optimizer
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import wrap_model

SHARE = 50  # one step in so many is rehearsed, …
FEWEST, MOST, SECONDS = 4, 60, 0.7  # … but at least, at most so many, for about so long
OF_BUDGET, AT_MOST = 0.02, 20.0  # of a budget of time, to rehearse in; seconds
WINDOWS = 64  # of an evaluation, at most
WRITTEN = 16  # tokens to time the writing by
RANGE = 0.08  # the loss may be off by this share; nineteen of twenty points that LOSS was fitted to are not
LONGEST = 20  # times the text is read; in more it may be learned by heart, of which LOSS knows nothing
RATES = (3e-4, 3e-3)  # learning rates like those of the runs

# The loss as a share of the text's entropy by pairs: A / N^a + B / D^b + W / T, for N weights in matrices, D
# characters read and T characters of context. benchmarks/forecast.py trained the models and fitted this.
LOSS = {"A": 1.653, "a": 0.3123, "B": 3.217, "b": 0.1029, "W": 0.0946}


@dataclass(frozen=True)
class Forecast:
    """What a training will take.

    Attributes:
        seconds: all of it, evaluations included.
        memory: bytes that the process, or on a GPU the device, will hold at its peak; None where nobody tells.
        loss: the exact validation loss in nats, from and to; None where no run of ours is like it.
    """

    seconds: float
    memory: int | None
    loss: tuple[float, float] | None

    def __str__(self) -> str:
        parts = [f"about {format_duration(self.seconds)}"]
        if self.memory is not None:
            parts.append(f"{self.memory / 1e6:,.0f} MB of memory")
        if self.loss is not None:
            parts.append(f"a validation loss of {self.loss[0]:.2f} to {self.loss[1]:.2f}")
        return ", ".join(parts)

    def held_against(self, seconds: float, validation_loss: float) -> str:
        """How far off it was."""
        off = f"{abs(seconds / self.seconds - 1):.0%} {'more' if seconds > self.seconds else 'less'}"
        told = f"{format_duration(self.seconds)} was forecast, {format_duration(seconds)} it took, {off}"
        if self.loss is None:
            return told
        low, high = self.loss
        where = "within" if low <= validation_loss <= high else "below" if validation_loss < low else "above"
        return f"{told}; the loss is {where} the {low:.2f} to {high:.2f} that were"


def foresee(model: TrainedModel, dataset: Dataset, config: Config) -> Forecast:
    """Forecast the training of that model, which stays as it is, as do all random numbers to come.

    Raises DeviceError for a precision that its device doesn't have.
    """
    training, device = config.training, next(iter(model.parameters())).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with rehearsal(model, dataset) as rehearsed:
        first, a_step = seconds_a_step(rehearsed, dataset, config)
        windows = min(training.eval_windows, WINDOWS)
        looking = timed(lambda: estimate_loss(rehearsed, dataset, windows)) * training.eval_windows / windows
        start = torch.zeros(1, 1, dtype=torch.int64, device=device)
        sampling = SamplingConfig(max_new_tokens=WRITTEN, seed=0)
        writing = timed(lambda: generate(rehearsed, start, sampling)) * SNAPSHOT_TOKENS / WRITTEN
    texts = choose_snapshot_steps(training.snapshots, training.max_iters)
    looks = training.max_iters // training.eval_interval + 1
    looks += sum(step % training.eval_interval != 0 for step in {*texts, training.max_iters})
    measured = min(len(dataset.val), MAX_EVALUATED_TOKENS)
    exact = looking * measured / (2 * training.eval_windows * dataset.block_size)
    seconds = training.max_iters * a_step + looks * looking + len(texts) * writing + exact
    if training.compile:
        seconds += first
    return Forecast(seconds, peak_memory(model), expected_loss(dataset, config))


def steps_within(minutes: float, model: TrainedModel, dataset: Dataset, config: Config) -> int:
    """How many steps of that training take so long here, by timing some; all stays as `foresee` leaves it."""
    seconds = 60 * minutes
    with rehearsal(model, dataset) as rehearsed:
        longest = max(SECONDS, min(AT_MOST, OF_BUDGET * seconds))
        first, a_step = seconds_a_step(rehearsed, dataset, config, longest, most=sys.maxsize)
    return max(1, round((seconds - first if config.training.compile else seconds) / a_step))


@contextmanager
def rehearsal(model: TrainedModel, dataset: Dataset) -> Iterator[TrainedModel]:
    """A copy of the model to be trained a little; after the block nothing has happened to data and random numbers."""
    device, state = next(iter(model.parameters())).device, dataset.state()
    with torch.random.fork_rng([] if device.type == "cpu" else [device.index or 0], device_type=device_type(device)):
        yield copy.deepcopy(model).train()
    dataset.restore(state)


def device_type(device: torch.device) -> str:
    """What torch.random.fork_rng wants to hear: a kind of accelerator, also where there is none."""
    return "cuda" if device.type == "cpu" else device.type


def seconds_a_step(
    model: TrainedModel, dataset: Dataset, config: Config, longest: float = SECONDS, most: int | None = None
) -> tuple[float, float]:
    """The time of the first step of that training, and the median of the next ones.

    They are as many as there is time for, at most so many, by default by the training's length.
    """
    training = config.training
    with wrap_model(model, config) as wrapped:
        state = TrainingState(model, dataset, Optimizer(wrapped.parameters, training), training)

        def step() -> None:
            state.step = 0  # at the first step's learning rate
            with suppress(DivergedError):  # the training itself will report it
                train_step(wrapped, state)

        times = [timed(step)]
        most = most or min(MOST, max(FEWEST, training.max_iters // SHARE))
        began = time.perf_counter()
        while len(times) <= 1 or (len(times) <= most and time.perf_counter() - began < longest):
            times.append(timed(step))
    return times[0], statistics.median(times[1:])


def timed(work: Callable[[], object]) -> float:
    """The seconds that it takes."""
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def peak_memory(model: TrainedModel) -> int | None:
    """The bytes held at the rehearsal's peak, less the model that was there besides the copy."""
    device = next(iter(model.parameters())).device
    besides = 4 * count_parameters(model)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) - besides
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) - besides


def expected_loss(dataset: Dataset, config: Config) -> tuple[float, float] | None:
    """From where to where the exact validation loss will be, if the training is like those of ours.

    Unlike them is a model without blocks, a training that reads its text more than twenty times or at a rate far
    from 1e-3, much dropout, a large vocabulary, and a text in which each character tells the next.
    """
    shape, training = config.model, config.training
    read = training.max_iters * config.tokens_per_step
    entropy = bigram_entropy(torch.as_tensor(dataset.train[:MAX_EVALUATED_TOKENS]), shape.vocab_size)
    alike = (
        shape.architecture == "gpt"
        and training.optimizer == "adamw"
        and training.tokenizer == "char"
        and shape.vocab_size <= 256
        and shape.dropout <= 0.2
        and RATES[0] <= training.learning_rate <= RATES[1]
        and read <= LONGEST * len(dataset.train)
        and entropy > 0.5
    )
    if not alike:
        return None
    N = 12 * shape.n_layer * shape.n_embd**2 + 2 * shape.vocab_size * shape.n_embd
    share = LOSS["A"] / N ** LOSS["a"] + LOSS["B"] / read ** LOSS["b"] + LOSS["W"] / shape.block_size
    blind = math.log(shape.vocab_size)
    loss = min(share * entropy, blind)
    return loss * (1 - RANGE), min(loss * (1 + RANGE), blind)


def bigram_entropy(ids: Tensor, vocab_size: int) -> float:
    """How unsure one is of the next token in nats, knowing the one before it and how often which follows which."""
    pairs, counts = (ids[:-1] * vocab_size + ids[1:]).unique(return_counts=True)
    counts = counts.double()
    before = torch.zeros(vocab_size, dtype=torch.float64).index_add(0, pairs // vocab_size, counts)
    return float((counts * (before[pairs // vocab_size] / counts).log()).sum() / counts.sum())
