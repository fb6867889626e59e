"""Train a run from its first step, or from a checkpoint, to its record."""

import copy
import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from minigpt.acceleration import describe_decoder
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.distributed.parallelism import is_sharded
from minigpt.distributed.process_group import Processes
from minigpt.errors import DivergedError
from minigpt.model import LanguageModel, count_parameters
from minigpt.model.language_model import get_device
from minigpt.runs.evaluation import Evaluation
from minigpt.runs.record import Record, Status, describe_environment
from minigpt.runs.recorded_data import measure_data_files
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.system.advice import choose_advice
from minigpt.system.plotting import write_png
from minigpt.tokenizers.base import compute_fingerprint
from minigpt.training.busy_machine import BusyMachineHint
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
from minigpt.training.evaluation import estimate_loss
from minigpt.training.interrupt import Interrupt
from minigpt.training.job_restart import get_job_name
from minigpt.training.loop import fit
from minigpt.training.loss_plot import draw_loss
from minigpt.training.loss_spikes import require_finite
from minigpt.training.setup import TrainingSetup
from minigpt.training.training_state import TrainingState


def run_training(
    run: Run,
    setup: TrainingSetup,
    display: Display,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    replaces: RunDirectory | None = None,
    objective: LanguageModel | None = None,
    estimate: Callable[..., dict[str, float]] = estimate_loss,
    measure: Callable[[], Evaluation] | None = None,
    merge: Callable[[], Mapping[str, Tensor]] | None = None,
) -> Run:
    """Train a run's model, measure it exactly, and write down how the training ended.

    Pre-training, fine-tuning, instruction tuning and DPO all train here.

    Args:
        run: the run, its directory already made. Its model is trained, or under FSDP gets the trained weights.
        setup: the data and the processes.
        display: shows the progress.
        callbacks: called after the built-in callbacks.
        checkpoint: what to resume from; the model must already have its weights.
        replaces: the run whose place this one takes, once it is finished.
        objective: a module that computes the loss in place of the model, such as DPO's.
        estimate: computes the losses of an evaluation.
        measure: returns the final evaluation; by default the exact loss of the validation split.
        merge: returns the weights of the run's model.safetensors, if they are not simply the model's.

    Returns:
        The run with its record and metrics.

    Raises:
        DivergedError: a loss jumped or is not finite. The weights of the best evaluation are kept.
        KeyboardInterrupt: a signal stopped the training; the run is saved, and can resume.
    """
    processes = setup.processes
    run, merge, measure = _prepare_run(run, setup, merge, measure)
    recorder, writer = _RunRecorder(run, display), AsyncWriter()
    try:
        with Interrupt(quiet=not processes.is_first) as interrupt:
            usual = [recorder, StopOnSignal(interrupt), *_make_callbacks(run, setup, display)]
            checkpointer = Checkpointer(run.path, writer, display.say, merge)
            state = fit(
                setup.model,
                setup.dataset,
                run.config,
                [*usual, checkpointer, *callbacks],
                objective=objective,
                estimate=estimate,
                checkpoint=checkpoint,
                processes=processes,
            )
            interrupt.received = processes.max(interrupt.received)  # a signal to one process stops all
            with state.clock.count_as_evaluation():
                exact = measure()
                require_finite(exact.loss, state.step, state.config)
            writer.flush()
            record = recorder.write("finished" if state.is_finished else "interrupted", exact)
            run = dataclasses.replace(run, record=record, metrics=state.metrics)
            if processes.is_first:
                _draw_loss(run, state, replaces or RunDirectory(run.path))
            if replaces and state.is_finished:
                run = _move_run(run, replaces, processes)
            if processes.is_first:
                _print_diagnosis(run, state, display)
            if interrupt.received:
                _describe_stop(run, display, replaces)
    except DivergedError as error:
        writer.flush()
        recorder.write("diverged")
        diverged = DivergedError(f"{error}{recorder.describe_best()}")
        diverged.silent = not processes.is_first
        raise diverged from None
    except KeyboardInterrupt:
        if not recorder.is_written:
            writer.flush()
            recorder.write("interrupted")
        raise
    finally:
        display.stop()
        writer.stop()
    run.model.eval()
    return run


class _RunRecorder(Callback):
    """Writes run.json: which kernels are used when the training begins, and in whatever way it ends, how it ended.

    Attributes:
        is_written: True once the record of the end is on disk.
    """

    def __init__(self, run: Run, display: Display) -> None:
        self.path, self.record, self.display = run.path, run.record, display
        self.state: TrainingState | None = None
        self.is_written = False

    def on_train_begin(self, state: TrainingState) -> None:
        """Keep the state, which outlives an error in the loop. Say if a resumed run has other kernels than before."""
        self.state = state
        state.saved_step = self.record.step
        before, now = self.record.kernels, ", ".join(state.kernels)
        if before not in (None, now):
            self.display.say(
                f"the run was trained with {before or 'no kernels'} and resumes with {now or 'no kernels'}: "
                "the bits will differ from those of a run without the stop",
                "yellow",
            )
        self.record = dataclasses.replace(self.record, kernels=now)
        if state.processes.is_first:
            RunDirectory(self.path).write_record(self.record)

    def write(self, status: Status, exact: Evaluation | None = None) -> Record:
        """Write and return the record of a training run that ended.

        Args:
            status: how it ended.
            exact: the final evaluation, if there is one.
        """
        record = dataclasses.replace(self.record, status=status)
        if self.state:
            record = dataclasses.replace(
                record,
                step=self.state.saved_step,
                data_position=self.state.data.position,
                training_seconds=self.state.clock.training_seconds,
                evaluation_seconds=self.state.clock.evaluation_seconds,
            )
        if exact:
            record = dataclasses.replace(
                record,
                validation_loss=exact.loss,
                bits_per_byte=exact.bits_per_byte,
                bits_per_character=exact.bits_per_character,
                predictions=exact.predictions,
                possible_predictions=exact.possible_predictions,
            )
        if self.state is None or self.state.processes.is_first:
            RunDirectory(self.path).write_record(record)
        self.is_written = True
        return record

    def describe_best(self) -> str:
        """Return the end of a sentence: which weights of a failed training are kept."""
        best = self.state and self.state.best
        if not best:
            return ""
        command = f"minigpt sample {shlex.quote(str(self.path))} --weights best"
        call = f"minigpt.load({str(self.path)!r}, weights='best')"
        return (
            f"; the weights of the best evaluation (step {best.step:,}, validation loss {best.validation_loss:.4f}) "
            f"are kept: {choose_advice(command, call)}"
        )


def create_record(setup: TrainingSetup) -> Record:
    """Return the record of a run that is about to start."""
    corpus = setup.corpus
    return Record(
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
    run: Run,
    setup: TrainingSetup,
    merge: Callable[[], Mapping[str, Tensor]] | None,
    measure: Callable[[], Evaluation] | None,
) -> tuple[Run, Callable[[], Mapping[str, Tensor]] | None, Callable[[], Evaluation]]:
    """Return the run, how to merge its weights, and how to measure it, for one of perhaps several processes.

    Several processes write shards, so the run's weights are merged into a file of their own. Under FSDP no process
    holds the whole model on its device: the first one's run gets an unsharded copy in the computer's memory.
    """
    model, processes = setup.model, setup.processes
    if not processes.is_first:
        torch.manual_seed(run.config.training.seed + processes.rank)  # each process drops out other activations
    if is_sharded(run.config, processes) and processes.is_first:
        run = dataclasses.replace(run, model=copy.deepcopy(model).cpu())

    def measure_validation_loss() -> Evaluation:
        assert isinstance(setup.dataset, Dataset)
        val, source, corpus = setup.dataset.val, run.record.data_source, setup.corpus
        altered = isinstance(corpus, PreparedData) and corpus.is_altered
        return Evaluation.measure(model, val, run.tokenizer, "validation split", source, is_altered=altered)

    if processes.size > 1:
        merge = run.model.state_dict
    return run, merge, measure or measure_validation_loss


def _make_callbacks(run: Run, setup: TrainingSetup, display: Display) -> list[Callback]:
    """Return the callbacks that show the training, keep its metrics and samples, and stop it early."""
    tokens_per_step = run.config.training.gradient_accumulation * setup.dataset.tokens_per_batch
    characters_per_step = tokens_per_step * run.record.data_characters / setup.dataset.num_tokens
    return [
        *([GatherShards(run.model)] if is_sharded(run.config, setup.processes) else []),
        EvaluationTable(display, characters_per_step),
        ProgressBar(display, characters_per_step),
        MetricsLog(RunDirectory(run.path), characters_per_step),
        SnapshotWriter(run, display),
        EarlyStopping(),
        *([BusyMachineHint(display, setup.threads)] if get_device(run.model).type == "cpu" else []),
    ]


def _draw_loss(run: Run, state: TrainingState, named: RunDirectory) -> None:
    """Write loss.png, whose title has the name that the run's directory will keep."""
    write_png(RunDirectory(run.path).loss_plot, draw_loss(run, state.snapshots, named.path.name))


def _move_run(run: Run, replaced: RunDirectory, processes: Processes) -> Run:
    """Move the run to the place of the one that it replaces, and return it with its new path."""
    if processes.is_first:
        with replaced.lock():
            RunDirectory(run.path).take_place_of(replaced)
    return dataclasses.replace(run, path=replaced.path)


def _print_diagnosis(run: Run, state: TrainingState, display: Display) -> None:
    """Print the most serious problem of a finished pre-training, if there is one."""
    can_diagnose = state.is_finished and run.record.base is None
    if can_diagnose and isinstance(state.data, Dataset) and (problem := diagnose(run, state.data)):
        display.say(problem, "yellow")


def _describe_stop(run: Run, display: Display, replaces: RunDirectory | None) -> None:
    """Say what is saved after a signal, and how to go on."""
    display.say(f"saved in {run.path}: {run.record.step:,} steps, validation loss {run.record.validation_loss:.4f}")
    if run.record.status == "interrupted":
        if replaces:
            display.say(f"{replaces.path} stays as it is")
        display.say(suggest_resume(run.path, is_finetuned=run.record.base is not None))
