"""Train a new run on a text."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from minigpt.config import Config, DataPath
from minigpt.data.dataset import Dataset
from minigpt.distributed.parallelism import require_parallel_config
from minigpt.distributed.process_group import Processes, join_processes
from minigpt.errors import DivergedError
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo, Status
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.tokenizers.base import compute_fingerprint
from minigpt.tokenizers.loading import load_tokenizer
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_directory import describe_unfinished
from minigpt.training.display import Display
from minigpt.training.job_restart import find_restarted_run
from minigpt.training.planning.forecast import Forecast, forecast_training
from minigpt.training.resume import resume
from minigpt.training.setup import TrainingSetup, prepare_training, resolve_max_minutes
from minigpt.training.train_run import create_run_info, train_run


@use_pytorch_defaults()
def train(
    config: Config,
    data: DataPath = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    tokenizer: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Train a new run: make its directory, its data and its model from the settings, then call `train_run`.

    A first Ctrl-C (or SIGTERM) ends the training after the current step; the run is then evaluated and saved, its
    status is "interrupted", and KeyboardInterrupt is raised. A second one stops at once.

    Args:
        config: the settings.
        data: text files, or a directory of prepared data; None for input.txt, or Tiny Shakespeare.
        out: the run's directory; None for runs/PRESET. If the name is taken, a number is added.
        overwrite: whether to replace the run with that name. The old run stays until the new one is finished.
        tokenizer: the file of a tokenizer to use; without it one is made from the text.
        callbacks: called during the training, after the built-in callbacks.

    Returns:
        The run.

    Raises:
        InputError: the input cannot be used; nothing is written then.
        DivergedError: the loss jumped or is not finite.
        OutOfMemoryError: the model or a batch does not fit in memory.
    """
    target = RunDirectory(Path(f"runs/{config.preset}" if out is None else out))
    with join_processes() as processes, ExitStack() as stack:
        if restarted := processes.broadcast(find_restarted_run(target) if processes.is_first else None):
            path, status = restarted
            return _resume_job(path, status, data, target if overwrite else None, processes)
        with processes.share_errors():
            require_parallel_config(config, processes)
            given_tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
            display = stack.enter_context(Display(config.training, quiet=not processes.is_first))
            setup = stack.enter_context(prepare_training(config, data, display, given_tokenizer, processes=processes))
            setup = resolve_max_minutes(setup, display)
        processes.require_same(setup.corpus.sha256, compute_fingerprint(setup.tokenizer), setup.config)
        with processes.share_errors():
            directory, info = target, create_run_info(setup)
            if processes.is_first:
                directory = _create_run(target, setup, info, display, overwrite)
                stack.enter_context(directory.lock())
        directory = RunDirectory(processes.broadcast(directory.path))
        replaces = target if overwrite and directory.path != target.path else None
        replacing = f", replaces {target.path} at the end" if replaces else ""
        display.say(f"run    {directory.path}{replacing}")
        run = Run(directory.path, setup.config, setup.tokenizer, setup.model, info, [])
        return _train_with_forecast(run, setup, display, replaces, callbacks)


def _train_with_forecast(
    run: Run, setup: TrainingSetup, display: Display, replaces: RunDirectory | None, callbacks: Sequence[Callback]
) -> Run:
    """Call `train_run`. One process alone says before how long it will take, and afterwards how long it took."""
    prediction = _forecast(setup) if setup.processes.size == 1 else None
    display.say(f"takes  {prediction}\n" if prediction else "")
    run = train_run(run, setup, display, replaces=replaces, callbacks=callbacks)
    if prediction and run.info.validation_loss is not None:
        seconds = run.info.training_seconds + run.info.evaluation_seconds
        display.say(prediction.compare(seconds, run.info.validation_loss))
    return run


@use_pytorch_defaults()
def forecast(config: Config, data: DataPath = None, tokenizer: str | Path | None = None) -> Forecast:
    """Return how long the training will take, its memory and roughly its loss, from a few real steps.

    Nothing is written. The arguments and errors are those of `train`.
    """
    given_tokenizer = None if tokenizer is None else load_tokenizer(tokenizer)
    with Display(config.training) as display, prepare_training(config, data, display, given_tokenizer) as setup:
        return _forecast(resolve_max_minutes(setup, display))


def _forecast(setup: TrainingSetup) -> Forecast:
    assert isinstance(setup.dataset, Dataset)
    return forecast_training(setup.model, setup.dataset, setup.config)


def _resume_job(path: Path, status: Status, data: DataPath, replaces: RunDirectory | None, processes: Processes) -> Run:
    """Return the run that this job started before torchrun restarted it. Resume the run if it is not finished."""
    if status == "finished":
        return Run.open(path)
    if status == "diverged":
        error = DivergedError(f"the run in {str(path)!r} diverged: start a new run with a lower learning rate")
        error.silent = not processes.is_first
        raise error
    return resume(path, data, replaces=replaces if replaces and replaces.path != path else None)


def _create_run(
    target: RunDirectory, setup: TrainingSetup, info: RunInfo, display: Display, overwrite: bool
) -> RunDirectory:
    """Make the run's directory, and write what is known before the first step. Raise FileError."""
    if overwrite:
        target.require_run_or_empty()
        if target.info.is_file():
            with target.lock():
                pass  # if another process trains it, say so before the training and not after it
    directory = RunDirectory.create(target.path)
    if directory.path != target.path and (unfinished := describe_unfinished(target.path)):
        display.say(unfinished)
    directory.write_config(setup.config)
    directory.write_info(info)
    directory.write_tokenizer(setup.tokenizer, setup.config)
    training, size = setup.config.training, setup.processes.size
    parallel = f", {training.parallel} in {size} processes" if size > 1 else ""
    display.say(f"model  {setup.config.preset}: {info.parameters:,} parameters, on {info.device}{parallel}")
    return directory
