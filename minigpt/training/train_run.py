"""Train a run whose directory exists, from its first step or from a checkpoint to its end."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt.acceleration import describe_decoder
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.distributed.parallelism import is_sharded
from minigpt.distributed.process_group import Processes
from minigpt.errors import DivergedError
from minigpt.model import count_parameters
from minigpt.model.language_model import get_device
from minigpt.runs.exact_loss import ExactLoss
from minigpt.runs.recorded_data import measure_data_files
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo, describe_environment
from minigpt.system.plotting import write_png
from minigpt.tokenizers.base import compute_fingerprint
from minigpt.training.busy_machine_hint import BusyMachineHint
from minigpt.training.callbacks import (
    Callback,
    EarlyStopping,
    EvaluationTable,
    GatherShards,
    MetricsLog,
    ProgressBar,
    SnapshotWriter,
    StopOnSignal,
)
from minigpt.training.checkpoint_callback import AsyncWriter, Checkpointer
from minigpt.training.checkpoint_directory import suggest_resume
from minigpt.training.checkpoint_format import Checkpoint
from minigpt.training.diagnostics import diagnose
from minigpt.training.display import Display
from minigpt.training.interrupt import Interrupt
from minigpt.training.job_restart import get_job_name
from minigpt.training.loop import train_model
from minigpt.training.loss_plot import MIN_EVALUATIONS, draw_loss
from minigpt.training.loss_spikes import require_finite
from minigpt.training.objective import Objective
from minigpt.training.run_info_writer import RunInfoWriter
from minigpt.training.setup import TrainingSetup
from minigpt.training.tensorboard_log import TensorBoardLog
from minigpt.training.training_state import TrainingState

GetWeights = Callable[[], Mapping[str, Tensor]]


def train_run(
    run: Run,
    setup: TrainingSetup,
    display: Display,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    replaces: RunDirectory | None = None,
    objective: Objective | None = None,
    get_merged_weights: GetWeights | None = None,
) -> Run:
    """Train a run whose directory exists: build its callbacks, call `train_model`, and write how the training ended.

    `train`, `resume` and the functions of fine-tuning make the run and call this function. `train_model` has the loop.

    Args:
        run: the run, its directory already made. Its model is trained, or under FSDP gets the trained weights.
        setup: the data and the processes.
        display: shows the progress.
        callbacks: called after the built-in callbacks.
        checkpoint: what to resume from; the model must already have its weights.
        replaces: the run that this run replaces when it is finished.
        objective: what the training minimizes; by default the loss of the next token.
        get_merged_weights: returns the weights of the run's model.safetensors, if they are not simply the model's.

    Returns:
        The run with its final info and metrics.

    Raises:
        DivergedError: a loss jumped or is not finite. The weights of the best evaluation are kept.
        KeyboardInterrupt: a signal stopped the training; the run is saved, and can resume.
    """
    processes, objective = setup.processes, objective or Objective(setup)
    run, get_merged_weights = _prepare_run(run, setup, get_merged_weights)
    info_writer, writer = RunInfoWriter(run, display), AsyncWriter()
    try:
        with _write_failure(info_writer, writer, processes), Interrupt(quiet=not processes.is_first) as interrupt:
            built_in = [info_writer, StopOnSignal(interrupt), *_make_callbacks(run, setup, display)]
            checkpointer = Checkpointer(run.path, writer, display.say, get_merged_weights)
            state = train_model(
                setup.model,
                setup.dataset,
                run.config,
                [*built_in, checkpointer, *callbacks],
                loss_module=objective.module,
                estimate=objective.estimate_loss,
                checkpoint=checkpoint,
                processes=processes,
            )
            interrupt.received = processes.max(interrupt.received)  # a signal to one process stops all
            exact = _measure_exact_loss(objective, state)
            writer.flush()
            info = info_writer.write("finished" if state.is_finished else "interrupted", exact)
            run = dataclasses.replace(run, info=info, metrics=state.metrics)
            run = _finish_run(run, state, replaces, display)
            if interrupt.received:
                _report_stop(run, display, replaces)
    finally:
        display.stop()
        writer.stop()
    run.model.eval()
    return run


@contextmanager
def _write_failure(info_writer: RunInfoWriter, writer: AsyncWriter, processes: Processes) -> Iterator[None]:
    """Write into run.json that the training in the block diverged, or was interrupted before it was saved."""
    try:
        yield
    except DivergedError as error:
        writer.flush()
        info_writer.write("diverged")
        diverged = DivergedError(f"{error}{info_writer.describe_best()}")
        diverged.silent = not processes.is_first
        raise diverged from None
    except KeyboardInterrupt:
        if not info_writer.is_written:
            writer.flush()
            info_writer.write("interrupted")
        raise


def _measure_exact_loss(objective: Objective, state: TrainingState) -> ExactLoss:
    """Return the exact loss at the end of the training. Raise DivergedError if it is not finite."""
    with state.clock.count_as_evaluation():
        exact = objective.measure_exact_loss()
        require_finite(exact.loss, state.step, state.config)
    return exact


def create_run_info(setup: TrainingSetup) -> RunInfo:
    """Return what run.json says of a run that is about to start."""
    corpus = setup.corpus
    return RunInfo(
        status="unfinished",
        data_source=corpus.source,
        data_paths=list(corpus.paths) or None,
        data_bytes=measure_data_files(corpus.paths),
        data_characters=corpus.characters,
        data_sha256=corpus.sha256,
        parameters=count_parameters(setup.model),
        device=str(get_device(setup.model)),
        threads=setup.threads,
        tokenizer_sha256=compute_fingerprint(setup.tokenizer),
        generation=describe_decoder(setup.model),
        launch=get_job_name(),
        documents=isinstance(corpus, PreparedData),
        **describe_environment(),
    )


def _prepare_run(
    run: Run, setup: TrainingSetup, get_merged_weights: GetWeights | None
) -> tuple[Run, GetWeights | None]:
    """Return the run and the function that returns its merged weights, for one of perhaps several processes.

    Several processes write shards, so the run's weights are merged into a file of their own. Under FSDP no process
    holds the whole model on its device: the first one's run gets an unsharded copy in the computer's memory.
    """
    processes = setup.processes
    if not processes.is_first:
        torch.manual_seed(run.config.training.seed + processes.rank)  # each process drops out other activations
    if is_sharded(run.config, processes) and processes.is_first:
        run = dataclasses.replace(run, model=copy.deepcopy(setup.model).cpu())
    return run, run.model.state_dict if processes.size > 1 else get_merged_weights


def _make_callbacks(run: Run, setup: TrainingSetup, display: Display) -> list[Callback]:
    """Return the callbacks that show the training, keep its metrics and samples, and stop it early."""
    tokens_per_step = run.config.training.gradient_accumulation * setup.dataset.tokens_per_batch
    characters_per_step = tokens_per_step * run.info.data_characters / setup.dataset.num_tokens
    directory, log_to = RunDirectory(run.path), run.config.training.log_to
    return [
        *([GatherShards(run.model)] if is_sharded(run.config, setup.processes) else []),
        EvaluationTable(display, characters_per_step),
        ProgressBar(display, characters_per_step),
        MetricsLog(directory, characters_per_step),
        SnapshotWriter(run, display),
        *([TensorBoardLog(directory)] if log_to == "tensorboard" else []),
        EarlyStopping(),
        *([BusyMachineHint(display, setup.threads)] if get_device(run.model).type == "cpu" else []),
    ]


def _finish_run(run: Run, state: TrainingState, replaces: RunDirectory | None, display: Display) -> Run:
    """Draw the curve, move the run to the place of the one that it replaces, and print a diagnosis. Return the run."""
    is_first = state.processes.is_first
    if is_first and len(run.metrics) >= MIN_EVALUATIONS:
        name = (replaces or RunDirectory(run.path)).path.name
        write_png(RunDirectory(run.path).loss_plot, draw_loss(run, state.snapshots, name))
    if replaces and state.is_finished:
        if is_first:
            with replaces.lock():
                RunDirectory(run.path).take_place_of(replaces)
        run = dataclasses.replace(run, path=replaces.path)
    can_diagnose = is_first and state.is_finished and run.info.base is None
    if can_diagnose and isinstance(state.data, Dataset) and (problem := diagnose(run, state.data)):
        display.say(problem, "yellow")
    return run


def _report_stop(run: Run, display: Display, replaces: RunDirectory | None) -> None:
    """Say what is saved after a signal, and how to go on."""
    display.say(f"saved in {run.path}: {run.info.step:,} steps, validation loss {run.info.validation_loss:.4f}")
    if run.info.status == "interrupted":
        if replaces:
            display.say(f"{replaces.path} stays as it is")
        display.say(suggest_resume(run.path, is_finetuned=run.info.base is not None))
