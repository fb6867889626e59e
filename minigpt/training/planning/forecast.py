"""The forecast of a training run: its time, its memory, and roughly its loss.

Time and memory come from timing a few real steps, an evaluation and a short sample, on a copy of the model.
loss_forecast.py predicts the loss.
"""

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from minigpt.config import Config, SamplingConfig
from minigpt.data.dataset import Dataset
from minigpt.errors import DivergedError
from minigpt.generation.engine import generate
from minigpt.model import TrainedModel, count_parameters
from minigpt.model.language_model import get_device
from minigpt.model.loss import MAX_EVALUATED_TOKENS
from minigpt.system.process_memory import measure_peak_memory
from minigpt.training.callbacks import SNAPSHOT_TOKENS
from minigpt.training.evaluation import estimate_loss
from minigpt.training.evaluation_schedule import get_snapshot_steps
from minigpt.training.loop import train_step
from minigpt.training.optimizer import Optimizer
from minigpt.training.planning.loss_forecast import predict_loss
from minigpt.training.stopwatch import format_duration
from minigpt.training.training_state import TrainingState
from minigpt.training.wrapping import wrap_model

TIMED_SHARE = 50  # 1/50 of the steps is timed
MIN_TIMED_STEPS, MAX_TIMED_STEPS = 2, 60
TIMING_SECONDS = 0.7  # no further step is timed after this time
BUDGET_SHARE, MAX_BUDGET_SECONDS = 0.02, 20.0  # with max_minutes: steps are timed for 2% of it, at most 20 seconds
MAX_WINDOWS = 64  # windows of the timed evaluation
SAMPLE_TOKENS = 16  # tokens of the timed sample
SHORTEST_COMPARED = 10.0  # seconds: the difference of a shorter training from its forecast says little


@dataclass(frozen=True)
class Timings:
    """The seconds of a training run's parts.

    Attributes:
        first_step: of the first step. With torch.compile it includes a compilation, which reads the compiler's cache.
        step: of any other step.
        evaluation: of one evaluation.
        snapshot: of one snapshot's text.
    """

    first_step: float
    step: float
    evaluation: float = 0.0
    snapshot: float = 0.0


@dataclass(frozen=True)
class Forecast:
    """What a training run will take.

    Attributes:
        seconds: of training, evaluations and snapshots together.
        memory: peak bytes of the process, or of the GPU; None where the system does not report it.
        loss: range of the exact validation loss in nats; None for a training that the formula does not cover.
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

    def compare(self, seconds: float, validation_loss: float) -> str:
        """Return a sentence that compares the forecast with the result."""
        times = f"forecast {format_duration(self.seconds)}, it took {format_duration(seconds)}"
        if seconds >= SHORTEST_COMPARED:
            times += f", {abs(seconds / self.seconds - 1):.0%} {'more' if seconds > self.seconds else 'less'}"
        if self.loss is None:
            return times
        low, high = self.loss
        return f"{times}; final loss {validation_loss:.2f} (forecast {low:.2f} to {high:.2f})"


def forecast_training(model: TrainedModel, dataset: Dataset, config: Config) -> Forecast:
    """Forecast a training run by timing parts of it. The model, the batches and all random numbers stay as they are.

    Args:
        model: the model to be trained, on its device.
        dataset: the text, encoded.
        config: the training.

    Raises:
        DeviceError: the device lacks the precision.
    """
    device = get_device(model)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    timings = _measure_timings(model, dataset, config)
    seconds = add_up_seconds(timings, config, len(dataset.val))
    return Forecast(seconds, _measure_peak_memory(model), predict_loss(dataset, config))


def count_steps_within(minutes: float, model: TrainedModel, dataset: Dataset, config: Config) -> int:
    """Return how many steps of a training run take this time, by timing some of them on a copy of the model."""
    longest = max(TIMING_SECONDS, min(MAX_BUDGET_SECONDS, BUDGET_SHARE * 60 * minutes))
    with _copy_for_timing(model, dataset) as copied:
        timings = _time_steps(copied, dataset, config, longest, max_steps=sys.maxsize)
    return divide_budget(minutes, timings, config.training.compile)


def divide_budget(minutes: float, timings: Timings, compiled: bool) -> int:
    """Return how many steps fit in a number of minutes, at least one."""
    seconds = 60 * minutes - (timings.first_step if compiled else 0)
    return max(1, round(seconds / timings.step))


def add_up_seconds(timings: Timings, config: Config, validation_tokens: int) -> float:
    """Return the seconds of a whole training.

    Args:
        timings: the seconds of its parts.
        config: the training.
        validation_tokens: the size of the validation split, which is measured at the end.
    """
    training = config.training
    snapshots = get_snapshot_steps(training)
    evaluations = training.max_iters // training.eval_interval + 1
    evaluations += sum(step % training.eval_interval != 0 for step in {*snapshots, training.max_iters})
    evaluated_tokens = 2 * training.eval_windows * config.model.block_size  # in one evaluation of both splits
    exact_loss = timings.evaluation * min(validation_tokens, MAX_EVALUATED_TOKENS) / evaluated_tokens
    seconds = training.max_iters * timings.step + evaluations * timings.evaluation + exact_loss
    seconds += len(snapshots) * timings.snapshot
    return seconds + (timings.first_step if training.compile else 0)


def _measure_timings(model: TrainedModel, dataset: Dataset, config: Config) -> Timings:
    """Time steps, an evaluation and a sample on a copy of the model."""
    training = config.training
    most = min(MAX_TIMED_STEPS, max(MIN_TIMED_STEPS, training.max_iters // TIMED_SHARE))
    windows = min(training.eval_windows, MAX_WINDOWS)
    sampling = SamplingConfig(max_new_tokens=SAMPLE_TOKENS, seed=0)
    with _copy_for_timing(model, dataset) as copied:
        steps = _time_steps(copied, dataset, config, TIMING_SECONDS, most)
        start = torch.zeros(1, 1, dtype=torch.int64, device=get_device(model))
        return Timings(
            first_step=steps.first_step,
            step=steps.step,
            evaluation=_time(lambda: estimate_loss(copied, dataset, windows)) * training.eval_windows / windows,
            snapshot=_time(lambda: generate(copied, start, sampling)) * SNAPSHOT_TOKENS / SAMPLE_TOKENS,
        )


@contextmanager
def _copy_for_timing(model: TrainedModel, dataset: Dataset) -> Iterator[TrainedModel]:
    """Yield a copy of the model to train, and restore the batches and random numbers afterwards."""
    device, state = get_device(model), dataset.state_dict()
    accelerator = "cuda" if device.type == "cpu" else device.type  # fork_rng wants one, even if there is none
    with torch.random.fork_rng([] if device.type == "cpu" else [device.index or 0], device_type=accelerator):
        try:
            yield copy.deepcopy(model).train()
        finally:
            dataset.load_state_dict(state)


def _time_steps(model: TrainedModel, dataset: Dataset, config: Config, longest: float, max_steps: int) -> Timings:
    """Time the first step and the median of the next ones, for at most `longest` seconds and `max_steps` steps."""
    if config.training.compile:  # the training compiles again, faster, because the compiler keeps its results
        with _prepare_step(copy.deepcopy(model), dataset, config) as step:
            step()
    with _prepare_step(model, dataset, config) as step:
        times = [_time(step)]
        started = time.perf_counter()
        while len(times) <= 1 or (len(times) <= max_steps and time.perf_counter() - started < longest):
            times.append(_time(step))
    return Timings(times[0], statistics.median(times[1:]))


@contextmanager
def _prepare_step(model: TrainedModel, dataset: Dataset, config: Config) -> Iterator[Callable[[], None]]:
    """Yield a function that trains the model for a step at the first step's learning rate."""
    training = config.training
    with wrap_model(model, config) as wrapped:
        state = TrainingState(model, dataset, Optimizer(wrapped.parameters, training), training)

        def step() -> None:
            state.step = 0
            with suppress(DivergedError):  # the training itself will report it
                train_step(wrapped, state)

        yield step


def _time(work: Callable[[], object]) -> float:
    """Return the seconds that a function takes."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _measure_peak_memory(model: TrainedModel) -> int | None:
    """Return the peak of the bytes while steps are timed, without the original of the copied model."""
    device = get_device(model)
    original = 4 * count_parameters(model)
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) - original
    peak = measure_peak_memory() if device.type == "cpu" else None
    return None if peak is None else peak - original
