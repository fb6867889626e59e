"""A training in a process of its own that can be killed, or whose disk fails, at any chosen moment."""

import errno
import io
import itertools
import json
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minigpt
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.errors import MinigptError
from minigpt.finetuning.dpo import train_dpo
from minigpt.finetuning.finetune import finetune
from minigpt.finetuning.lora import LoRAConfig
from minigpt.finetuning.resume_finetuning import resume_finetuning
from minigpt.finetuning.sft import train_sft
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.checkpoint_directory import Checkpoints
from minigpt.training.resume import resume

PROCESSES = multiprocessing.get_context("forkserver")  # each forks from one that has imported what takes long


SERVER = "FAULTS_SERVER"  # set where that one runs


def start_server() -> None:
    """Start it now, with this folder among those of modules, which Python 3.11 does not tell it."""
    before = dict(os.environ)
    path = filter(None, (str(Path(__file__).parent), before.get("PYTHONPATH")))
    os.environ.update({SERVER: "1", "PYTHONPATH": os.pathsep.join(path)})
    slow = ["matplotlib.backends.backend_agg", "matplotlib.figure", "minigpt.cli.main", "numba"]
    slow += ["torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp"]
    PROCESSES.set_forkserver_preload(["fault_injection", *slow])
    multiprocessing.forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)


if SERVER not in os.environ:
    start_server()
MAX_KILL_SECONDS = 0.7  # seconds until a kill: about what the training takes
SETTINGS = {  # of a training in which everything that is random or kept has a part
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "block_size": 16,
    "batch_size": 8,
    "max_iters": 80,
    "eval_interval": 20,
    "dropout": 0.1,
    "gradient_accumulation": 2,
    "order": "epochs",
    "schedule": "cosine",
    "learning_rate": 2e-2,
    "snapshots": 3,
}
STARTED = "started"  # a file that says that the process is about to train


def start(folder: Path, settings: dict[str, Any], fault: tuple[int, str] | None = None) -> Any:
    """A process that trains the run in `folder / "run"`, or goes on with it; `fault` as for `strike`."""
    process = PROCESSES.Process(target=train, args=(folder, settings, fault))
    process.start()
    return process


def finish(folder: Path, settings: dict[str, Any], fault: tuple[int, str] | None = None) -> int | None:
    """The same to its end; its exit code."""
    process = start(folder, settings, fault)
    process.join()
    return process.exitcode


def killed(folder: Path, settings: dict[str, Any], rng: random.Random) -> int:
    """Such a training killed up to five times at random moments; how often it was."""
    kills = 0
    for _ in range(5):
        process = start(folder, settings)
        while not (folder / STARTED).exists():
            time.sleep(0.001)
        process.join(rng.uniform(0, MAX_KILL_SECONDS))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        (folder / STARTED).unlink()
        if process.exitcode == 0:
            break
    return kills


def train(folder: Path, settings: dict[str, Any], fault: tuple[int, str] | None) -> None:
    """What such a process does; 2 is the status of an error that was said in a sentence."""
    os.chdir(folder)
    sys.stderr = (folder / "errors.txt").open("a")
    (folder / STARTED).touch()
    if fault:
        strike(*fault)
    try:
        run = RunDirectory(folder / "run")
        if Checkpoints(run.path).paths():
            if run.read_record().status != "finished":  # one may be killed after all is done
                resume(run.path)
        else:
            shutil.rmtree(folder / "run", ignore_errors=True)
            minigpt.train(out=folder / "run", device="cpu", **settings)
    except MinigptError as error:
        print(f"minigpt: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except KeyboardInterrupt:
        os._exit(130)


def finetune_or_resume(bases: Path, folder: Path, kind: str, fault: tuple[int, str] | None = None) -> None:
    """Fine-tune a base into `folder / "run"`, or resume that run if it has a checkpoint.

    Args:
        bases: a folder with the runs `base` and `instructed`, and the data.
        folder: the folder of the run.
        kind: what is learned and by which method, such as "text-lora".
        fault: as for `strike`.
    """
    os.chdir(folder)
    sys.stderr = (folder / "errors.txt").open("a")
    if fault:
        strike(*fault)
    what, method = kind.split("-")
    run = folder / "run"
    if Checkpoints(run).paths():
        resume_finetuning(run)
        return
    shutil.rmtree(run, ignore_errors=True)
    base = minigpt.load(bases / ("instructed" if what == "dpo" else "base"), device="cpu")
    settings = {"max_iters": 12, "eval_interval": 4, "batch_size": 4, "out": run, "method": method}
    settings |= {} if method == "full" else {"lora": LoRAConfig(rank=2, dropout=0.1)}
    if what == "text":
        finetune(base, bases / "text.txt", **settings)
    elif what == "dpo":
        train_dpo(base, bases / "pairs.jsonl", **settings)
    elif what == "tasks":
        train_sft(base, tasks=["upper"], **settings)
    else:
        train_sft(base, bases / "questions.jsonl", **settings)


def replace_run(folder: Path, fault: tuple[int, str] | None = None) -> None:
    """Let the run `run-2` take the place of the run `run`."""
    if fault:
        strike(*fault)
    RunDirectory(folder / "run-2").take_place_of(RunDirectory(folder / "run"))


class SilentProgress:
    """Shows no progress of a preparation."""

    def say(self, text: str) -> None:
        pass

    def begin(self, title: str, total: int) -> None:
        pass

    def update(self, position: int) -> None:
        pass


def finish_preparation(folder: Path, out: str, processes: int, fault: tuple[int, str] | None = None) -> int | None:
    """Prepare `folder / "documents.jsonl"` in small parts, or go on with it; the exit code of the process."""
    process = PROCESSES.Process(target=prepare, args=(folder, out, processes, fault))
    process.start()
    process.join()
    return process.exitcode


def prepare(folder: Path, out: str, processes: int, fault: tuple[int, str] | None) -> None:
    """What such a process does."""
    os.chdir(folder)
    if fault:
        strike(*fault)
    settings = PrepareSettings(tokenizer="bpe", vocab_size=300)
    sizes = {"part_characters": 10_000, "batch_characters": 5_000, "parallel_from_bytes": 0}
    prepare_corpus(["documents.jsonl"], out, settings, SilentProgress(), processes, **sizes)


def strike(at: int, how: str) -> None:
    """At this process's so-manieth write, flush, rename or removal be killed, "kill", or let it fail, "fail".

    With "count" nothing happens, but a file `operations` says how many there were.
    """
    counter = itertools.count(1)
    seen = Path("operations").absolute()

    def struck(half: Callable[[], object] = lambda: None) -> None:
        number = next(counter)
        if how == "count":
            with io.open(seen, "w") as file:  # noqa: UP020
                file.write(str(number))
        elif number == at:
            half()
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def watched(operation: Callable) -> Callable:
        def watching(*arguments: Any, **options: Any) -> Any:
            struck()
            return operation(*arguments, **options)

        return watching

    for owner, names in (
        (os, ["fsync"]),
        (Path, ["replace", "unlink", "mkdir", "rmdir", "hardlink_to"]),
        (shutil, ["rmtree"]),
    ):
        for name in names:
            setattr(owner, name, watched(getattr(owner, name)))
    opened = pathlib.Path.open

    def opening(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        file = opened(path, mode, *arguments, **options)
        return Written(file, struck) if mode == "xb" else file

    pathlib.Path.open = opening  # type: ignore[method-assign, assignment]


class Written:
    """A file that can fail, or be the last thing that its process does, half of a write done."""

    def __init__(self, file: Any, struck: Callable) -> None:
        self.file, self.struck = file, struck

    def write(self, content: bytes) -> int:
        def half() -> None:
            self.file.write(content[: len(content) // 2])
            self.file.flush()

        self.struck(half)
        return self.file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()


def story(run: Path) -> dict[str, Any]:
    """All that must be the same of a run that was never stopped and one that was: everything but the times."""
    record = json.loads((run / "run.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for timed in (record, *metrics):
        for name in ("seconds", "training_seconds", "evaluation_seconds", "started"):
            timed.pop(name, None)
    names = ("model.safetensors", "best.safetensors", "snapshots.jsonl", "config.toml", "tokenizer.json")
    files = {name: (run / name).read_bytes() if (run / name).exists() else None for name in names}
    return {"record": record, "metrics": metrics, **files}
