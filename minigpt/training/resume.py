"""Resume a run from its newest checkpoint, or make a finished run longer."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minigpt.config import CHANGEABLE, Config, DataPath, ModelConfig
from minigpt.data.text_format import TextFormat
from minigpt.distributed.parallelism import require_parallel_config
from minigpt.distributed.process_group import Processes, join_processes
from minigpt.distributed.sharded_checkpoint import load_full_tensors
from minigpt.errors import ConfigError, RunError
from minigpt.model import TrainedModel
from minigpt.model.language_model import get_device
from minigpt.model.meta_init import build_empty_model
from minigpt.runs.recorded_data import find_training_data, measure_data_files
from minigpt.runs.run import Run
from minigpt.runs.run_directory import RunDirectory
from minigpt.runs.run_info import RunInfo
from minigpt.runs.weight_file import read_weights
from minigpt.system.advice import format_setting
from minigpt.system.pytorch_settings import use_pytorch_defaults
from minigpt.training.callbacks import Callback
from minigpt.training.checkpoint_directory import CheckpointDirectory
from minigpt.training.checkpoint_format import Checkpoint
from minigpt.training.display import Display
from minigpt.training.job_restart import get_job_name
from minigpt.training.setup import TrainingSetup, prepare_training
from minigpt.training.train_run import train_run

FINAL_FIELDS = ("validation_loss", "bits_per_byte", "bits_per_character", "predictions", "possible_predictions")


@use_pytorch_defaults()
def resume(
    path: str | Path,
    data: DataPath = None,
    restart_schedule: bool = False,
    replaces: RunDirectory | None = None,
    callbacks: Sequence[Callback] = (),
    **changes: Any,
) -> Run:
    """Resume a run: restore it from its newest whole checkpoint, then call `train_run`.

    With the same settings, on a CPU in float32, the run gets the same bits as without the stop. A finished run is
    returned as it is, unless `changes` make it longer.

    Args:
        path: the run's directory.
        data: where its text is now, if it has moved.
        restart_schedule: whether the steps that follow get the whole schedule of the learning rate again. Without it,
            steps beyond the old max_iters have the schedule's last rate.
        replaces: the run that this run replaces when it is finished.
        callbacks: called during the training, after the built-in callbacks.
        changes: new values of the settings in CHANGEABLE; more `max_iters` make the run longer.

    Raises:
        RunError: there is no checkpoint, or another process trains the run.
        ConfigError: a change would make it another run.
        DataError: the text is another one.
        FileError: a file cannot be read or written.
        DivergedError: as `train` raises it.
    """
    directory = RunDirectory(Path(path))
    with join_processes() as processes, ExitStack() as stack:
        with processes.share_errors():
            directory.require_exists()
            CheckpointDirectory(directory.path).require_no_links()
            before = directory.read_info()
            require_trained_here(directory, before)
            if not has_work_left(directory, before, changes, restart_schedule):
                return Run.open(directory.path)
            if processes.is_first:
                stack.enter_context(directory.lock())
            if get_job_name() and before.launch == get_job_name():
                restart_schedule = False  # this job did it before its processes were restarted
            display, checkpoint, setup = _prepare(directory, before, data, restart_schedule, changes, processes, stack)
        processes.require_same(setup.corpus.sha256, checkpoint.metadata, setup.config)
        with processes.share_errors():
            run = _restore(directory, before, checkpoint, setup, processes)
        return train_run(run, setup, display, checkpoint=checkpoint, replaces=replaces, callbacks=callbacks)


def _prepare(
    directory: RunDirectory,
    info: RunInfo,
    data: DataPath,
    restart_schedule: bool,
    changes: dict[str, Any],
    processes: Processes,
    stack: ExitStack,
) -> tuple[Display, Checkpoint, TrainingSetup]:
    """Read and check everything that the training needs. Nothing is written."""
    before = directory.read_config()
    tokenizer = directory.read_tokenizer(before, info)
    with Display(before.training, quiet=not processes.is_first) as messages:
        checkpoint = CheckpointDirectory(directory.path).open_newest(messages.say)
    config = change_config(before, checkpoint, info.status == "finished", restart_schedule, changes)
    require_parallel_config(config, processes)
    corpus = find_training_data(directory.path, info, data, TextFormat.from_settings(config.training))

    def load_model(shape: ModelConfig) -> TrainedModel:
        model = build_empty_model(shape)  # allocates no memory before the file has proved to fit
        weights = load_full_tensors(checkpoint.model, model.state_dict())
        if checkpoint.best:
            read_weights(checkpoint.best, model.state_dict())  # a wrong file is refused before it replaces the run's
        model.load_state_dict(weights, assign=True)
        return model.train()

    display = stack.enter_context(Display(config.training, quiet=not processes.is_first))
    setup = stack.enter_context(prepare_training(config, corpus, display, tokenizer, load_model, processes))
    display.say(f"model  {config.preset}: {info.parameters:,} parameters")
    display.say(f"run    {directory.path}, resumed after step {checkpoint.metadata.step:,}\n")
    return display, checkpoint, setup


def _restore(
    directory: RunDirectory, before: RunInfo, checkpoint: Checkpoint, setup: TrainingSetup, processes: Processes
) -> Run:
    """Give the run's files the state of the checkpoint, and return the run."""
    step = checkpoint.metadata.step
    if processes.is_first:
        step = CheckpointDirectory(directory.path).restore_run(checkpoint, setup.model.state_dict())
    info = reopen_run_info(before, setup, step)
    if processes.is_first:
        directory.write_config(setup.config)
        directory.write_info(info)
    return Run(directory.path, setup.config, setup.tokenizer, setup.model, info, list(checkpoint.metrics))


def reopen_run_info(info: RunInfo, setup: TrainingSetup, step: int) -> RunInfo:
    """Return what run.json says of a run that resumes: unfinished, without final losses.

    Args:
        info: what run.json said before.
        setup: what the run goes on with.
        step: the step of the weights in model.safetensors.
    """
    not_measured: dict[str, Any] = dict.fromkeys(FINAL_FIELDS)
    return dataclasses.replace(
        info,
        status="unfinished",
        step=step,
        device=str(get_device(setup.model)),
        threads=setup.threads,
        data_source=setup.corpus.source,
        data_paths=list(setup.corpus.paths) or None,
        data_bytes=measure_data_files(setup.corpus.paths),
        launch=get_job_name(),
        **not_measured,
    )


def require_trained_here(directory: RunDirectory, info: RunInfo) -> None:
    """Raise RunError for a run that `minigpt train` has not made."""
    if directory.finetuning.exists():
        raise RunError(f"{str(directory.path)!r} was fine-tuned: resume it with minigpt finetune --resume")
    if info.base is not None or info.status == "imported":
        raise RunError(
            f"{str(directory.path)!r} was quantized or imported, so there is no training to resume: "
            "train it further with minigpt finetune"
        )


def has_work_left(
    directory: RunDirectory, info: RunInfo, changes: Mapping[str, Any], restart_schedule: bool = False
) -> bool:
    """Return False only for a finished run in which nothing changes."""
    config = directory.read_config()
    settings = {**vars(config.model), **vars(config.training)}
    is_changed = any(value != settings.get(name) for name, value in changes.items())
    return info.status != "finished" or is_changed or restart_schedule


def change_config(
    before: Config, checkpoint: Checkpoint, is_finished: bool, restart_schedule: bool, changes: dict[str, Any]
) -> Config:
    """Return the config of the resumed training. Raise ConfigError for a change that is not possible."""
    for name, value in changes.items():
        was = getattr(before.training, name, getattr(before.model, name, None))
        if name not in CHANGEABLE and value != was:
            raise ConfigError(f"{name} is {was} in this run and cannot be changed: only {', '.join(CHANGEABLE)} can")
    step, before_iters = checkpoint.metadata.step, before.training.max_iters
    schedule = {name: getattr(before.training, name) for name in ("schedule_start", "schedule_end")}
    config = before.override(**schedule | {name: value for name, value in changes.items() if name in CHANGEABLE})
    max_iters = config.training.max_iters
    if max_iters < step or (max_iters == step and is_finished):
        raise ConfigError(f"the run is at step {step:,} of {max_iters:,} already: choose a larger max_iters")
    patience = config.training.patience
    if is_finished and before_iters > step and patience and patience <= before.training.patience:
        raise ConfigError(
            f"a patience of {patience} ended the run at step {step:,}: "
            f"choose a larger {format_setting('patience')}, or 0"
        )
    if restart_schedule:
        return config.override(schedule_start=step, schedule_end=0)
    if max_iters != before_iters:
        return config.override(schedule_end=before.training.schedule_end or before_iters)
    return config
