"""The trainings that two processes run together."""

import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

import minigpt
from minigpt.config import Config
from minigpt.data.dataset import Dataset
from minigpt.distributed.parallelism import gather_full_tensor
from minigpt.distributed.process_group import SINGLE, Processes, join_processes
from minigpt.errors import MinigptError
from minigpt.model import build
from minigpt.system.device import limit_threads
from minigpt.tokenizers import CharTokenizer
from minigpt.training.callbacks import Callback, Losses
from minigpt.training.loop import train_model
from minigpt.training.resume import resume
from minigpt.training.train import train
from minigpt.training.training_state import TrainingState

PARALLEL = ("ddp", "fsdp")
EXACT: dict[str, Any] = {  # seven windows for two processes, in two batches a step; no dropout, which differs
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "block_size": 16,
    "batch_size": 7,
    "gradient_accumulation": 2,
    "max_iters": 4,
    "eval_interval": 2,
    "eval_windows": 8,
    "grad_clip": 0.5,
    "weight_decay": 0.1,
    "snapshots": 0,
}
OTHERS: dict[str, dict[str, Any]] = {
    "lecture": {"implementation": "lecture", "parallel": "fsdp"},
    "tied": {"tied_head": True, "activation": "gelu", "parallel": "fsdp"},
    "recomputed": {"checkpoint_activations": True, "qkv_bias": True, "parallel": "fsdp"},
    "bigram": {"architecture": "bigram", "parallel": "ddp"},
    "modern": {"architecture": "modern", "optimizer": "muon", "parallel": "ddp"},
    "modern-sharded": {"architecture": "modern", "parallel": "fsdp"},
}
RANDOM = EXACT | {"dropout": 0.2, "n_layer": 1}
# Long enough for a test to stop it several times.
LONG = RANDOM | {"gradient_accumulation": 1, "max_iters": 200, "eval_interval": 25}


class LossLog(Callback):
    """Keeps the losses of all evaluations."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_evaluate(self, state: TrainingState, losses: Losses) -> None:
        self.losses += losses.values()


def fit_briefly(text: Path, processes: Processes = SINGLE, **settings: Any) -> tuple[dict[str, Tensor], list[float]]:
    """Three steps of a model of one layer by the training loop alone, without a run on disk: weights and losses."""
    content = text.read_text()
    tokenizer = CharTokenizer.from_text(content)
    config = Config().override(**EXACT | {"n_layer": 1, "max_iters": 3} | settings, vocab_size=tokenizer.vocab_size)
    data = Dataset(tokenizer.encode(content), config, rank=processes.rank, world_size=processes.size)
    torch.manual_seed(config.training.seed)
    model, log = build(config.model), LossLog()
    with limit_threads(1):
        train_model(model, data, config, [log], processes=processes)
    return {
        name: gather_full_tensor(tensor).detach().clone() for name, tensor in model.state_dict().items()
    }, log.losses


def train_exactly(data: Path, out: Path, **settings: Any) -> None:
    """Train as `minigpt.train` does, in PyTorch's default dtype instead of float32."""
    train.__wrapped__(Config().override(**settings), data=data, out=out)


def resume_exactly(path: Path, **changes: Any) -> None:
    """Resume as `resume` does, in PyTorch's default dtype instead of float32."""
    resume.__wrapped__(path, **changes)


def train_all(folder: Path, text: Path) -> None:
    """Train each way, resume what one process or two have begun, and fail in the second process alone."""
    with join_processes() as processes:
        torch.set_default_dtype(torch.float64)
        for parallel in PARALLEL:
            train_exactly(text, folder / parallel, parallel=parallel, **EXACT)
            train_exactly(text, folder / f"{parallel}-begun", parallel=parallel, **EXACT | {"max_iters": 2})
            resume_exactly(folder / f"alone-to-{parallel}", parallel=parallel, max_iters=4)
        for name, settings in OTHERS.items():
            weights, _ = fit_briefly(text, processes, **settings)
            if processes.is_first:
                save_file(weights, folder / f"{name}.safetensors")
        torch.set_default_dtype(torch.float32)
        for parallel in PARALLEL:
            _, losses = fit_briefly(text, processes, parallel=parallel)
            (folder / f"{parallel}-{processes.rank}.json").write_text(json.dumps(losses))
            minigpt.train(
                data=text, out=folder / f"{parallel}-random", parallel=parallel, log_to="tensorboard", **RANDOM
            )
            minigpt.train(data=text, out=folder / f"{parallel}-resumed", parallel=parallel, **RANDOM | {"max_iters": 2})
            resume(folder / f"{parallel}-resumed", max_iters=4)
        said = ""
        try:
            minigpt.train(data=text if processes.is_first else folder / "nothing.txt", out=folder / "never")
        except MinigptError as error:
            said = f"{type(error).__name__}{', silent' if error.silent else ''}: {error}"
        (folder / f"said-{processes.rank}.json").write_text(json.dumps(said))


def train_long(out: Path, text: Path) -> None:
    """Train the run that a test stops several times, without a stop."""
    minigpt.train(data=text, out=out, **LONG)


def resume_run(run: Path) -> None:
    """Resume a run in as many processes as there are."""
    resume(run)


def work(environment: Mapping[str, str], folder: Path, task: str, *arguments: Path) -> None:
    """Do a task, a function of this file, in one of the processes; its errors go to a file in the folder."""
    gc.freeze()
    os.environ.update(environment)
    sys.stderr = (folder / f"errors-{os.environ['RANK']}.txt").open("a")
    dist.init_process_group("gloo")
    globals()[task](*arguments)
    dist.destroy_process_group()
