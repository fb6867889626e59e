"""Going on with a training that was stopped, by whatever, as if it never had been; or making a finished one longer."""

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from minigpt.config import Config, ModelConfig
from minigpt.data.corpus import find_data, load_tiny_shakespeare
from minigpt.distributed.processes import Processes, joined, require_shares
from minigpt.distributed.sharded_checkpoint import saved
from minigpt.errors import ConfigError, DataError, RunError
from minigpt.model import TrainedModel
from minigpt.model.meta_init import build_empty
from minigpt.runs.run import Run, require_there
from minigpt.runs.run_directory import Record, RunFolder, read_weights
from minigpt.training.checkpoint import Save, Saves
from minigpt.training.display import Display
from minigpt.training.job_restart import this_launch
from minigpt.training.setup import Start, prepared
from minigpt.training.train import fit_and_measure, shared_out

MAY_CHANGE = (
    "max_iters",
    "eval_interval",
    "eval_windows",
    "save_minutes",
    "patience",
    "on_spike",
    "device",
    "compile",
    "checkpoint_activations",
    "parallel",
)
MEASURED = ("validation_loss", "bits_per_byte", "bits_per_character", "predictions", "possible_predictions")


def resume(
    path: str | Path,
    data: str | Path | None = None,
    restart_schedule: bool = False,
    replaces: RunFolder | None = None,
    **changes: Any,
) -> Run:
    """Go on with the run in that folder from its newest whole save; the run, as `minigpt.train` returns it.

    With the same settings, on a CPU in 32 bits, it becomes the very run that it would have been without a stop. More
    `max_iters` make it longer: the new steps stay at the schedule's last rate, or have the whole schedule to
    themselves. `data` says where its text is, if it isn't where it was. In the end it takes the place of the run that
    it `replaces`.

    Raises RunError if there is nothing to go on from or another process is at it, ConfigError for a change that would
    make it another run, DataError and FileError for a text that is gone or has changed, and what `train` raises.
    """
    folder = RunFolder(Path(path))
    with joined() as processes, ExitStack() as stack:
        with processes.together():
            require_there(folder.path)
            Saves(folder.path).require_no_links()
            before = folder.read_record()
            require_trained_here(folder, before.base is not None or before.status == "imported")
            if processes.first:
                stack.enter_context(folder.locked())
            if this_launch() and before.launch == this_launch():
                restart_schedule = False  # it has been, before a process died and all were started again
            display, save, start = ready(folder, before, data, restart_schedule, changes, processes, stack)
            unmeasured: dict[str, Any] = dict.fromkeys(MEASURED)
            record = dataclasses.replace(
                before,
                status="unfinished",
                step=save.moment.step,
                device=str(next(start.model.parameters()).device),
                threads=start.threads,
                data_source=start.corpus.source,
                data_path=start.corpus.path,
                launch=this_launch(),
                **unmeasured,
            )
        processes.require_alike(start.corpus.sha256, save.moment, start.config)
        with processes.together():
            if processes.first:
                Saves(folder.path).restore(save, start.model.state_dict())
                folder.write_config(start.config)
                folder.write_record(record)
        run = Run(folder.path, start.config, start.tokenizer, start.model, record, list(save.metrics))
        run, course = shared_out(run, start)
        return fit_and_measure(run, start.dataset, display, replaces, course, save)


def ready(
    folder: RunFolder,
    record: Record,
    data: str | Path | None,
    restart_schedule: bool,
    changes: dict[str, Any],
    processes: Processes,
    stack: ExitStack,
) -> tuple[Display, Save, Start]:
    """All that the training goes on with, read and checked; nothing is written."""
    before = folder.read_config()
    tokenizer = folder.read_tokenizer(before, record)
    with Display(before.training, quiet=not processes.first) as screen:
        save = Saves(folder.path).newest(screen.say)
    config = changed(before, save, record.status == "finished", restart_schedule, changes)
    require_shares(config, processes)
    where = data or record.data_path
    corpus = find_data(where) if where else load_tiny_shakespeare()
    if corpus.sha256 != record.data_sha256:
        raise DataError(f"{corpus.source} is not the text of {str(folder.path)!r}: name that one with --data")

    def as_saved(shape: ModelConfig) -> TrainedModel:
        model = build_empty(shape)  # takes no memory until the file has proved to fit
        weights = saved(save.model, model.state_dict())
        if save.best:
            read_weights(save.best, model.state_dict())  # refused, if at all, before it takes the run's own one's place
        model.load_state_dict(weights, assign=True)
        return model.train()

    display = stack.enter_context(Display(config.training, quiet=not processes.first))
    start = stack.enter_context(prepared(config, corpus, display, tokenizer, as_saved, processes))
    display.say(f"model  {config.preset}: {record.parameters:,} parameters")
    display.say(f"run    {folder.path}, which goes on after step {save.moment.step:,}\n")
    return display, save, start


def require_trained_here(folder: RunFolder, elsewhere: bool) -> None:
    """Raise RunError for a run that no `minigpt train` has made."""
    if elsewhere:
        raise RunError(
            f"{str(folder.path)!r} was fine-tuned or imported, and has no training to go on with: "
            "minigpt finetune trains it further"
        )


def changed(before: Config, save: Save, finished: bool, restart_schedule: bool, changes: dict[str, Any]) -> Config:
    """The configuration that the training goes on with. Raises ConfigError for a change that may not be."""
    for name, value in changes.items():
        was = getattr(before.training, name, getattr(before.model, name, None))
        if name not in MAY_CHANGE and value != was:
            known = ", ".join(MAY_CHANGE)
            raise ConfigError(f"{name} is {was} in this run and cannot change any more: only {known} can")
    step, longest = save.moment.step, before.training.max_iters
    kept = {name: getattr(before.training, name) for name in ("schedule_start", "schedule_end")}
    config = before.override(**kept | {name: value for name, value in changes.items() if name in MAY_CHANGE})
    most = config.training.max_iters
    if most < step or (most == step and finished):
        raise ConfigError(f"the run is at step {step:,} of {most:,} already: name more with max_iters")
    patience = config.training.patience
    if finished and longest > step and patience and patience <= before.training.patience:
        raise ConfigError(f"its patience of {patience} ended the run at step {step:,}: name a larger --patience, or 0")
    if restart_schedule:
        return config.override(schedule_start=step, schedule_end=0)
    if most != longest:
        return config.override(schedule_end=before.training.schedule_end or longest)
    return config
