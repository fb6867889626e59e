"""What `minigpt plan` computes, against what real steps hold: three sizes, on one process and shared between two.

    python benchmarks/plan.py

Each row is a training in processes of its own on the CPU, in float32, on one, or on two over gloo, of which the figures
are the first one's. Tensors are the bytes of all tensors at the steps' peak, as PyTorch's MemTracker counts them: that
is what is planned. The process is the peak of resident memory above what was held after a first such training was let
go of (Linux): with the C library's gaps.
"""

import argparse
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from finetuning import held
from torch.distributed._tools.mem_tracker import MemTracker

from minigpt.config import Config
from minigpt.distributed.processes import Processes, joined
from minigpt.model import build
from minigpt.training.gradients import Gradients
from minigpt.training.memory_model import memory
from minigpt.training.optimizer import Optimizer

GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True, "vocab_size": 50257}
SIZES: dict[str, dict[str, Any]] = {
    "lecture": {},
    "lecture-large, 8 windows": {"preset": "lecture-large", "batch_size": 8},
    "GPT-2, 4 windows of 128": {"n_embd": 768, "n_head": 12, "n_layer": 12, "block_size": 128, "batch_size": 4, **GPT2},
}
SHARINGS = {"alone": 1, "ddp": 2, "fsdp": 2}  # and processes
STEPS = 2  # of which the first makes AdamW's averages
Step = Callable[[], object]


def config_of(size: str, recomputed: bool) -> Config:
    """A size's configuration."""
    settings = {"device": "cpu", "checkpoint_activations": recomputed, **SIZES[size]}
    return Config.from_preset(settings.pop("preset", "lecture")).override(**settings)


def training(config: Config, processes: Processes) -> Step:
    """What makes a step of that training, on this process's share of a batch."""
    shape = (config.training.batch_size, config.model.block_size)
    idx = torch.randint(config.model.vocab_size, shape).tensor_split(processes.size)[processes.rank]
    gradients = Gradients(build(config.model).train(), config, processes)
    optimizer = Optimizer(gradients.parameters, config.training, gradients.scaler)
    return lambda: (gradients.add(idx, idx), optimizer.step(0))


def tensors(config: Config, processes: Processes) -> int:
    """Bytes of all tensors at the peak of some steps."""
    tracker = MemTracker()
    with tracker:
        step = training(config, processes)
        for _ in range(STEPS):
            tracker.reset_mod_stats()
            step()
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def process(config: Config, processes: Processes) -> int:
    """Bytes of resident memory at the peak of some steps, above what was held before."""
    training(config, processes)()  # loads what is loaded once
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before = held("VmRSS")
    step = training(config, processes)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    for _ in range(STEPS):
        step()
    return int((held("VmHWM") - before) * 2**20)


def measured(*case: str) -> int:
    """What a case, a size, sharing, recomputed and what is measured, gives on processes of their own."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    calls = [[sys.executable, __file__, "--one", *case, str(rank), str(port)] for rank in range(SHARINGS[case[1]])]
    children = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for call in calls]
    said = [child.communicate() for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("\n".join(errors for _, errors in said))
    return json.loads(said[0][0].splitlines()[-1])


def one(size: str, sharing: str, recomputed: str, what: str, rank: str, port: str) -> None:
    """Measure one case on this process, and print it."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = config_of(size, recomputed == "True")
    if sharing != "alone":
        config = config.override(parallel=sharing)
        size_of_job = str(SHARINGS[sharing])  # what torchrun would say
        os.environ |= {"RANK": rank, "WORLD_SIZE": size_of_job, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    with joined() as processes:
        found = {"tensors": tensors, "process": process}[what](config, processes)
    print(f"\n{found}", flush=True)


def main() -> None:
    """Print a table, or one figure for the process that was started for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    print("| size | on | activations | planned, MB | tensors, MB | planned over tensors | process, MB |")
    print("| --- " * 7 + "|")
    for size in SIZES:
        for sharing, processes in SHARINGS.items():
            for recomputed in (False, True):
                planned = memory(config_of(size, recomputed), processes, sharing).total
                case = (size, sharing, str(recomputed))
                counted = measured(*case, "tensors")
                held_by_process = f"{measured(*case, 'process') / 1e6:,.1f}" if sharing == "alone" else ""
                ways = f"{sharing} | {'recomputed' if recomputed else 'kept'}"
                figures = f"{planned / 1e6:,.1f} | {counted / 1e6:,.1f} | {planned / counted:.3f}"
                print(f"| {size} | {ways} | {figures} | {held_by_process} |", flush=True)


if __name__ == "__main__":
    main()
