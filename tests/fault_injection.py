"""A training in a process of its own that can be killed, or whose disk fails, at any chosen moment."""

import errno
import gc
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
from typing import Any, NamedTuple

from safetensors.torch import load_file

import minigpt
from minigpt.data.prepare import PrepareSettings, prepare_corpus
from minigpt.errors import MinigptError
from minigpt.finetuning.dpo import train_dpo
from minigpt.finetuning.lora_layer import LoRAConfig
from minigpt.finetuning.resume_finetuning import resume_finetuning
from minigpt.finetuning.sft import train_sft
from minigpt.finetuning.text_finetuning import train_on_text
from minigpt.runs.run_directory import RunDirectory
from minigpt.training.checkpoint_directory import CheckpointDirectory
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
    "max_iters": 24,
    "eval_interval": 6,
    "dropout": 0.1,
    "gradient_accumulation": 2,
    "order": "epochs",
    "schedule": "cosine",
    "learning_rate": 2e-2,
    "snapshots": 2,
}
STARTED = "started"  # a file that says that the process is about to train


class Work(NamedTuple):
    """What a process does in a folder: it makes `folder / "run"`, or goes on with it after a kill."""

    function: Callable[..., None]  # called with the folder and the arguments
    arguments: tuple[Any, ...]

    def start(self, folder: Path, fault: tuple[int, str] | None = None) -> Any:
        """Start the process and return it; `fault` as for `strike`."""
        process = PROCESSES.Process(target=run_work, args=(self, folder, fault))
        process.start()
        return process

    def finish(self, folder: Path, fault: tuple[int, str] | None = None) -> int | None:
        """Start the process, wait for its end, and return its exit code."""
        process = self.start(folder, fault)
        process.join()
        return process.exitcode

    def kill(self, folder: Path, rng: random.Random, seconds: float = MAX_KILL_SECONDS) -> int:
        """Kill the process up to five times, at a random moment within the seconds; return how often that happened."""
        kills = 0
        for _ in range(5):
            process = self.start(folder)
            while not (folder / STARTED).exists():
                time.sleep(0.001)
            process.join(rng.uniform(0, seconds))
            process.kill()
            process.join()
            kills += process.exitcode == -signal.SIGKILL
            (folder / STARTED).unlink()
            if process.exitcode == 0:
                break
        return kills


def run_work(work: Work, folder: Path, fault: tuple[int, str] | None) -> None:
    """Do the work in this process. The exit status 2 is that of an error with a message."""
    gc.freeze()  # what the server has imported is no garbage: a collection need not look at it, nor copy its pages
    os.chdir(folder)
    sys.stderr = (folder / "errors.txt").open("a")
    (folder / STARTED).touch()
    if fault:
        strike(*fault)
    try:
        work.function(folder, *work.arguments)
    except MinigptError as error:
        print(f"minigpt: {error}", file=sys.stderr, flush=True)
        os._exit(2)
    except KeyboardInterrupt:
        os._exit(130)


def training(settings: dict[str, Any]) -> Work:
    """A training with these settings."""
    return Work(_train_or_resume, (settings,))


def fine_tuning(bases: Path, kind: str) -> Work:
    """A fine-tuning of a run in a folder that `make_bases` filled; `kind` is one of FINE_TUNINGS."""
    return Work(_finetune_or_resume, (bases, kind))


def _train_or_resume(folder: Path, settings: dict[str, Any]) -> None:
    run = RunDirectory(folder / "run")
    if CheckpointDirectory(run.path).list_paths():
        if run.read_info().status != "finished":  # a process may be killed after all is done
            resume(run.path)
    else:
        shutil.rmtree(run.path, ignore_errors=True)
        minigpt.train(out=run.path, device="cpu", **settings)


FINE_TUNINGS = ("text-full", "text-lora", "text-qlora", "sft-full", "sft-lora", "tasks-lora", "dpo-full", "dpo-qlora")


def make_bases(folder: Path, text: str) -> None:
    """Write a base, a base that follows instructions, and the data of each kind of fine-tuning to a folder."""
    (folder / "text.txt").write_text(text)
    (folder / "other.txt").write_text(text[::-1])
    questions = [{"instruction": f"{n}", "output": "ab"[n % 2]} for n in range(60)]
    pairs = [{"prompt": f"{n}", "chosen": "a", "rejected": "b"} for n in range(60)]
    for name, lines in (("questions.jsonl", questions), ("pairs.jsonl", pairs)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = SETTINGS | {"block_size": 32, "max_iters": 10, "eval_interval": 10, "eval_windows": 16, "snapshots": 0}
    minigpt.train(data=folder / "text.txt", out=folder / "base", device="cpu", **settings)
    base = minigpt.load(folder / "base", device="cpu")
    train_sft(base, folder / "questions.jsonl", out=folder / "instructed", max_iters=4)


def _finetune_or_resume(folder: Path, bases: Path, kind: str) -> None:
    what, method = kind.split("-")
    run = RunDirectory(folder / "run")
    if CheckpointDirectory(run.path).list_paths():
        if run.read_info().status != "finished":
            resume_finetuning(run.path)
        return
    shutil.rmtree(run.path, ignore_errors=True)
    base = minigpt.load(bases / ("instructed" if what == "dpo" else "base"), device="cpu")
    settings = {"max_iters": 12, "eval_interval": 4, "batch_size": 4, "out": run.path, "method": method}
    settings |= {} if method == "full" else {"lora": LoRAConfig(rank=2, dropout=0.1)}
    if what == "text":
        train_on_text(base, bases / "text.txt", **settings)
    elif what == "dpo":
        train_dpo(base, bases / "pairs.jsonl", **settings)
    elif what == "tasks":
        train_sft(base, tasks=["upper"], **settings)
    else:
        train_sft(base, bases / "questions.jsonl", **settings)


def replacement() -> Work:
    """Let the run `run-2` take the place of the run `run`."""
    return Work(_replace_run, ())


def _replace_run(folder: Path) -> None:
    RunDirectory(folder / "run-2").take_place_of(RunDirectory(folder / "run"))


class SilentProgress:
    """Shows no progress of a preparation."""

    def say(self, text: str) -> None:
        pass

    def begin(self, title: str, total: int) -> None:
        pass

    def update(self, position: int) -> None:
        pass


def preparation(out: str, processes: int) -> Work:
    """Prepare `folder / "documents.jsonl"` in small parts, or go on with it."""
    return Work(_prepare, (out, processes))


def _prepare(folder: Path, out: str, processes: int) -> None:
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
    info = json.loads((run / "run.json").read_text())
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for timed in (info, *metrics):
        for name in ("seconds", "training_seconds", "evaluation_seconds", "started"):
            timed.pop(name, None)
    names = ["snapshots.jsonl", "config.toml", "tokenizer.json", "tasks.jsonl", "adapter/adapter_config.json"]
    files = {name: (run / name).read_bytes() for name in names if (run / name).exists()}
    for name in ("model.safetensors", "best.safetensors", "adapter/adapter_model.safetensors"):
        if (run / name).exists():  # the order of a file's metadata is random
            files[name] = {key: tensor.numpy().tobytes() for key, tensor in load_file(run / name).items()}
    return {"info": info, "metrics": metrics, **files}
