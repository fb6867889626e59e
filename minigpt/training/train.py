"""From a configuration and a text to a finished run."""

import copy
import dataclasses
import datetime
import math
import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

import minigpt
from minigpt.config import VOCAB_SIZE, Config, ModelConfig, TrainingConfig
from minigpt.device import memory_explained, pick_device, threads_for
from minigpt.errors import ConfigError, DataError, DivergedError
from minigpt.folder import Record, RunFolder, Status
from minigpt.model import TrainedModel, build, count_parameters
from minigpt.run import Evaluation, Run
from minigpt.sampling.path import described
from minigpt.text.corpus import Corpus, find_data
from minigpt.text.dataset import Dataset
from minigpt.text.shards import PreparedData
from minigpt.text.tokenizer import CharTokenizer, Tokenizer
from minigpt.text.tokenizers import fingerprint, kind_of, learn_tokenizer, load_tokenizer
from minigpt.training.again import begun_before, this_launch
from minigpt.training.display import Display
from minigpt.training.doctor import diagnosis
from minigpt.training.figure import draw_loss
from minigpt.training.forecast import Forecast, foresee, steps_within
from minigpt.training.gradients import require_precision, with_precision
from minigpt.training.interrupt import Interrupt
from minigpt.training.journal import Course, Journal
from minigpt.training.loop import Batches, fit, require_finite
from minigpt.training.parallel import ALONE, Processes, joined, require_shares, shards, whole
from minigpt.training.saves import Save, going_on, waiting

WAY_OUT = "lower batch_size, block_size, n_embd or n_layer, or use a text of fewer different characters"


def train(
    config: Config,
    data: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    tokenizer: str | Path | None = None,
) -> Run:
    """Train a new model on a text and leave it in a run folder; see `minigpt.train` for the arguments.

    Raises the errors of `find_data`, `Dataset`, `pick_device` and `RunFolder.create` before anything
    is written, DivergedError and MemoryShortError also after. A first Ctrl-C (or SIGTERM) ends the
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


@dataclasses.dataclass(frozen=True)
class Start:
    """All that a training begins with."""

    corpus: Corpus | PreparedData
    tokenizer: Tokenizer
    config: Config
    dataset: Any  # a Dataset, or other Batches
    model: TrainedModel
    threads: int
    processes: Processes = ALONE


def within_budget(start: Start, display: Display) -> Start:
    """The same, with as many steps as its minutes allow, if it has a budget of time.

    From then on only the steps count, and so the run can be repeated and gone on with like any other.
    """
    minutes = start.config.training.max_minutes
    if minutes is None:
        return start
    steps = steps_within(minutes, start.model, start.dataset, start.config)
    display.say(f"budget {minutes:g} minutes of training, which here are {steps:,} steps")
    display.expect(steps)
    return dataclasses.replace(start, config=start.config.override(max_iters=steps))


@contextmanager
def prepared(
    config: Config,
    data: str | Path | Corpus | PreparedData | None,
    display: Display,
    given: Tokenizer | None = None,
    model: Callable[[ModelConfig], TrainedModel] = build,
    processes: Processes = ALONE,
) -> Iterator[Start]:
    """Text, tokenizer and a model; within the block, PyTorch has the threads that suit them."""
    shares = {"rank": processes.rank, "world_size": processes.size}
    if model is build and config.model.quantization != "none":
        raise ConfigError(f"quantization {config.model.quantization} is what minigpt quantize makes: train without it")
    corpus = data if isinstance(data, Corpus | PreparedData) else find_data(data, display.say)
    if isinstance(corpus, PreparedData):
        config = fitted(config, corpus, given)
        tokenizer, dataset = corpus.tokenizer, Dataset(corpus, config, **shares)
    else:
        tokenizer = given or tokenizer_for(corpus, config)
        config = config.override(tokenizer=kind_of(tokenizer), vocab_size=tokenizer.vocab_size)
        dataset = Dataset(tokenizer.encode(corpus.text), config, **shares)
    about = f"{tokenizer.vocab_size} different"
    if config.training.tokenizer != "char":
        about = f"{dataset.tokens:,} tokens of {tokenizer.vocab_size:,} different ({config.training.tokenizer})"
    display.say(f"text   {corpus.source}: {corpus.characters:,} characters, {about}")
    device, config = pick_device(config.training.device), with_precision(config)
    require_precision(config.training.precision, device)
    numbers = config.training.batch_size * config.model.block_size * config.model.n_embd
    with memory_explained(WAY_OUT), threads_for(numbers) as threads:
        torch.manual_seed(config.training.seed)
        yield Start(corpus, tokenizer, config, dataset, model(config.model).to(device), threads, processes)


def fitted(config: Config, data: PreparedData, given: Tokenizer | None) -> Config:
    """The configuration with prepared data's tokenizer and split; DataError if it asks for others."""
    asked, was = config.training, data.index.settings
    kind, size = kind_of(data.tokenizer), data.index.vocab_size
    other = None
    if given and fingerprint(given) != data.index.tokenizer_sha256:
        other = "tokenizer that was named"
    elif asked.tokenizer not in (TrainingConfig.tokenizer, kind, was.get("tokenizer")):
        other = f"tokenizer {asked.tokenizer}"
    elif asked.tokenizer != TrainingConfig.tokenizer and config.model.vocab_size not in (VOCAB_SIZE, size):
        other = f"vocab_size of {config.model.vocab_size:,}"
    elif asked.train_fraction not in (TrainingConfig.train_fraction, was.get("train_fraction")):
        other = f"train_fraction of {asked.train_fraction:g}"
    if other:
        made = f"a {kind} tokenizer of {size:,} and a train_fraction of {was.get('train_fraction')}"
        raise DataError(f"{data.source} cannot have the {other}: they were prepared with {made}; leave it out")
    return config.override(tokenizer=kind, vocab_size=size, train_fraction=was.get("train_fraction"))


def tokenizer_for(corpus: Corpus, config: Config) -> Tokenizer:
    """The tokenizer that the config asks for, learned from the text; DataError if there is nothing to learn.

    Characters are those of the whole text; all else is learned from the part that will be trained on.
    """
    kind, text = config.training.tokenizer, corpus.text
    if kind == "char":
        return vocabulary_of(corpus)
    learned_from = text[: math.floor(config.training.train_fraction * len(text))]
    return learn_tokenizer(kind, learned_from, config.model.vocab_size)


def vocabulary_of(corpus: Corpus) -> CharTokenizer:
    """The characters of a text. Raises DataError if it has fewer than two different ones."""
    tokenizer = CharTokenizer.from_text(corpus.text)
    if tokenizer.vocab_size < 2:
        raise DataError(f"{corpus.source} holds one distinct character only: there is nothing to learn from it")
    return tokenizer


def fit_and_measure(
    run: Run,
    dataset: Batches,
    display: Display,
    replaces: RunFolder | None = None,
    course: Course | None = None,
    save: Save | None = None,
) -> Run:
    """Train the run's model, measure it exactly, and write down how it ended; the run with that record.

    The training goes on from a `save`, if one is given. Once all is saved, the run takes the place of the one that it
    `replaces`.
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
            record = journal.close("finished" if done else "interrupted", exact)
            run = dataclasses.replace(run, record=record)
            if processes.first:
                draw(run, journal)
                if replaces:
                    with replaces.locked():
                        RunFolder(run.path).replace(replaces)
                if done and journal.keeper:
                    for finding in diagnosis(run, journal.keeper.dataset):
                        display.say(finding, "yellow")
            run = dataclasses.replace(run, path=replaces.path if replaces else run.path)
            if interrupt.received:
                display.say(f"saved in {run.path}: {step:,} steps, validation loss {validation_loss:.4f}")
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
        generation=described(start.model),
        launch=this_launch(),
        documents=isinstance(corpus, PreparedData),
    )
