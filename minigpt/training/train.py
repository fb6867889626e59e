"""From a configuration and a text to a finished run."""

import copy
import dataclasses
import datetime
import platform
from contextlib import ExitStack
from pathlib import Path

import torch

import minigpt
from minigpt.acceleration import describe_decoder
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.data.prepared_data import PreparedData
from minigpt.distributed.processes import Processes, joined, require_shares, shards, whole
from minigpt.errors import DivergedError
from minigpt.model import count_parameters
from minigpt.runs.run import Evaluation, Run
from minigpt.runs.run_directory import Record, RunFolder, Status
from minigpt.tokenizers.base import fingerprint
from minigpt.tokenizers.loading import load_tokenizer
from minigpt.training.callbacks import Course, Journal
from minigpt.training.checkpoint import Save, going_on, waiting
from minigpt.training.diagnostics import diagnosis
from minigpt.training.display import Display
from minigpt.training.forecast import Forecast, foresee
from minigpt.training.interrupt import Interrupt
from minigpt.training.job_restart import begun_before, this_launch
from minigpt.training.loop import Batches, fit, require_finite
from minigpt.training.loss_plot import draw_loss
from minigpt.training.setup import Start, prepared, within_budget


def train(
    config: Config,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    tokenizer: str | Path | None = None,
) -> Run:
    """Train a new model on a text and leave it in a run folder; see `minigpt.train` for the arguments.

    Raises the errors of `find_data`, `Dataset`, `pick_device` and `RunFolder.create` before anything
    is written, DivergedError and OutOfMemoryError also after. A first Ctrl-C (or SIGTERM) ends the
    training after the step it is in; the run is measured and saved as it is then, its status
    "interrupted", and KeyboardInterrupt raised. A second one stops at once.
    """
    wanted = RunFolder(Path(f"runs/{config.preset}" if out is None else out))
    with joined() as processes, ExitStack() as stack:
        if before := processes.told(begun_before(wanted) if processes.first else None):
            path, status = before
            return went_on(path, status, data, wanted if overwrite else None, processes)
        with processes.together():
            require_shares(config, processes)
            given = None if tokenizer is None else load_tokenizer(tokenizer)
            display = stack.enter_context(Display(config.training, quiet=not processes.first))
            start = stack.enter_context(prepared(config, data, display, given, processes=processes))
            start = within_budget(start, display)
        processes.require_alike(start.corpus.sha256, fingerprint(start.tokenizer), start.config)
        with processes.together():
            folder = wanted
            if processes.first:
                folder = begun(wanted, start, display, overwrite)
                stack.enter_context(folder.locked())
        folder = RunFolder(processes.told(folder.path))
        replaces = wanted if overwrite and folder.path != wanted.path else None
        display.say(f"run    {folder.path}{f', in the place of {wanted.path} when done' if replaces else ''}")
        forecast = foresee(start.model, start.dataset, start.config) if processes.size == 1 else None
        display.say(f"takes  {forecast}\n" if forecast else "")
        run = Run(folder.path, start.config, start.tokenizer, start.model, new_record(start), [])
        run, course = shared_out(run, start)
        run = fit_and_measure(run, start.dataset, display, replaces, course)
        if forecast and run.record.validation_loss is not None:
            seconds = run.record.training_seconds + run.record.evaluation_seconds
            display.say(forecast.held_against(seconds, run.record.validation_loss))
        return run


def went_on(
    path: Path, status: Status, data: str | Path | None, replaces: RunFolder | None, processes: Processes
) -> Run:
    """The run that this job has begun before, brought to its end; DivergedError if it never will be there."""
    from minigpt.training.resume import resume  # which needs this module

    if status == "finished":
        return Run.open(path)
    if status == "diverged":
        error = DivergedError(f"the run in {str(path)!r} diverged, and would again: train another, with other settings")
        error.silent = not processes.first
        raise error
    return resume(path, data, replaces=replaces if replaces and replaces.path != path else None)


def begun(wanted: RunFolder, start: "Start", display: Display, overwrite: bool) -> RunFolder:
    """A new run's folder, of that name or the next that is free, with what is known of the run. Raises FileError."""
    if overwrite:
        wanted.require_run()
        if wanted.record.is_file():
            with wanted.locked():
                pass  # refused now, not when all is done
    folder = RunFolder.create(wanted.path)
    if folder.path != wanted.path and (unfinished := waiting(wanted)):
        display.say(unfinished)
    record = new_record(start)
    folder.write_config(start.config)
    folder.write_record(record)
    folder.write_tokenizer(start.tokenizer, start.config)
    many = f", {start.config.training.parallel} in {start.processes.size} processes" if start.processes.size > 1 else ""
    display.say(f"model  {start.config.preset}: {record.parameters:,} parameters, on {record.device}{many}")
    return folder


def shared_out(run: Run, start: "Start") -> tuple[Run, Course]:
    """How one of several processes trains that run; alone, as usual.

    With FSDP the first one's run has a copy of the model, whole, in the computer's memory, into which the parts are
    brought together at each evaluation; what is measured is what is trained.
    """
    processes = start.processes
    if not processes.first:
        torch.manual_seed(run.config.training.seed + processes.rank)  # dropout, another one in each
    if not shards(run.config, processes):
        return run, Course(processes=processes)
    trained = start.model
    run = dataclasses.replace(run, model=copy.deepcopy(trained).cpu() if processes.first else trained)

    def gather() -> None:
        here = run.model.state_dict()
        for name, tensor in trained.state_dict().items():
            value = whole(tensor)
            if processes.first:
                here[name].copy_(value)

    def measure() -> Evaluation:
        return measured(dataclasses.replace(run, model=trained), start.dataset)

    return run, Course(model=trained, gather=gather, measure=measure, processes=processes)


def forecast(config: Config, data: str | Path | None = None, tokenizer: str | Path | None = None) -> Forecast:
    """What the training will take; nothing is written. Raises as `train` does before it has written anything."""
    given = None if tokenizer is None else load_tokenizer(tokenizer)
    with Display(config.training) as display, prepared(config, data, display, given) as start:
        start = within_budget(start, display)
        return foresee(start.model, start.dataset, start.config)


def fit_and_measure(
    run: Run,
    dataset: Batches,
    display: Display,
    replaces: RunFolder | None = None,
    course: Course | None = None,
    save: Save | None = None,
) -> Run:
    """Train the run's model, measure it exactly, and write down how it ended; the run with that record.

    The training goes on from a `save`, if one is given. Once it is done, and not before, the run takes the place of the
    one that it `replaces`.
    """
    course = course or Course()
    journal = Journal(run, display, dataset, course, save)
    training, processes = run.config.training, course.processes
    record = None
    try:
        with Interrupt(quiet=not processes.first) as interrupt:
            model = course.model or run.model
            step = fit(model, dataset, run.config, journal, interrupt, course.estimate, processes)
            interrupt.received = processes.most(interrupt.received)  # a signal to one is one to all
            with journal.evaluating():
                exact = course.measure() if course.measure else measured(run, dataset)
                validation_loss = exact.loss
                require_finite(validation_loss, step, training)
            done = step == training.max_iters or journal.enough()
            replaced = replaces if done else None
            record = journal.close("finished" if done else "interrupted", exact)
            run = dataclasses.replace(run, record=record)
            if processes.first:
                draw(run, journal)
                if replaced:
                    with replaced.locked():
                        RunFolder(run.path).replace(replaced)
                if done and journal.keeper:
                    for finding in diagnosis(run, journal.keeper.dataset):
                        display.say(finding, "yellow")
            run = dataclasses.replace(run, path=replaced.path if replaced else run.path)
            if interrupt.received:
                display.say(f"saved in {run.path}: {step:,} steps, validation loss {validation_loss:.4f}")
                display.say(f"{replaces.path} stays as it is" if replaces and not done else "")
                display.say(going_on(run.path) if record.status == "interrupted" and journal.keeper else "")
    except DivergedError as error:
        journal.close("diverged")
        diverged = DivergedError(f"{error}{journal.kept()}")
        diverged.silent = not processes.first
        raise diverged from None
    except KeyboardInterrupt:
        if record is None:
            journal.close("interrupted")
        raise
    finally:
        journal.writer.stop()
    run.model.eval()
    return run


def draw(run: Run, journal: Journal) -> None:
    """The learning curves, in the run's folder."""
    title = f"{run.config.preset}: {run.record.parameters:,} parameters"
    unit = "character" if run.config.training.tokenizer == "char" else "token"
    draw_loss(run.path, title, journal.metrics, journal.snapshots, unit)


def measured(run: Run, dataset: Batches) -> Evaluation:
    """The exact loss of a run that trained on a text."""
    assert isinstance(dataset, Dataset)
    return Evaluation.of(run.model, dataset.val, run.tokenizer, "validation split", run.record.data_source)


def new_record(start: Start) -> Record:
    """The record of a run that is about to start."""
    corpus = start.corpus
    return Record(
        status="unfinished",
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        data_source=corpus.source,
        data_path=corpus.path,
        data_characters=corpus.characters,
        data_sha256=corpus.sha256,
        parameters=count_parameters(start.model),
        device=str(next(iter(start.model.parameters())).device),
        threads=start.threads,
        minigpt_version=minigpt.__version__,
        torch_version=torch.__version__,
        python_version=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        tokenizer_sha256=fingerprint(start.tokenizer),
        generation=describe_decoder(start.model),
        launch=this_launch(),
        documents=isinstance(corpus, PreparedData),
    )
