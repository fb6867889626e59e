"""Compare the memory that `minigpt plan` computes with real steps: three sizes, on one process and on two.

    python benchmarks/plan.py

Each row is a training on the CPU in float32, in processes of its own: one, or two over gloo, of which the figures are
the first one's. "Tensors" is the peak of all tensors' bytes in a step, by PyTorch's MemTracker: this is what the plan
estimates. "Process" is the peak of resident memory above what a process holds after a first, discarded training
(Linux); it includes gaps that the C library leaves between tensors.
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
from typing import Any, get_args

import torch
from finetuning import read_memory
from steps import FixedBatch, make_step
from torch.distributed._tools.mem_tracker import MemTracker

from minigpt.config import Config
from minigpt.distributed.process_group import Processes, join_processes
from minigpt.model import build
from minigpt.training.planning.memory_model import Parallel, estimate_memory

GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True, "vocab_size": 50257}
SIZES: dict[str, dict[str, Any]] = {
    "lecture": {},
    "lecture-large, 8 windows": {"preset": "lecture-large", "batch_size": 8},
    "GPT-2, 4 windows of 128": {"n_embd": 768, "n_head": 12, "n_layer": 12, "block_size": 128, "batch_size": 4, **GPT2},
}
PROCESSES = {"single": 1, "ddp": 2, "fsdp": 2}  # by strategy
STEPS = 2  # the first one allocates AdamW's averages
Step = Callable[[], object]


def make_config(size: str, recomputed: bool) -> Config:
    """Return the configuration of a size."""
    settings = {"device": "cpu", "compiled_loops": "off", "checkpoint_activations": recomputed, **SIZES[size]}
    return Config.from_preset(settings.pop("preset", "lecture")).override(**settings)


def make_random_step(config: Config, processes: Processes) -> Step:
    """Return a function that makes a training step on this process's share of a batch."""
    shape = (config.training.batch_size, config.model.block_size)
    idx = torch.randint(config.model.vocab_size, shape).tensor_split(processes.size)[processes.rank]
    return make_step(build(config.model).train(), config, FixedBatch(idx, idx), processes)


def measure_tensors(config: Config, processes: Processes) -> int:
    """Return the peak of all tensors' bytes over some steps."""
    tracker = MemTracker()
    with tracker:
        step = make_random_step(config, processes)
        for _ in range(STEPS):
            tracker.reset_mod_stats()
            step()
    return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]


def measure_process(config: Config, processes: Processes) -> int:
    """Return the peak of resident memory over some steps, above what the process held before, in bytes."""
    make_random_step(config, processes)()  # the first training loads libraries
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    before = read_memory("VmRSS")
    step = make_random_step(config, processes)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the peak counts from here on
    for _ in range(STEPS):
        step()
    return int((read_memory("VmHWM") - before) * 2**20)


def measure_in_processes(*case: str) -> int:
    """Measure a case (size, strategy, recomputed, "tensors" or "process") in new processes, and return the bytes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    calls = [[sys.executable, __file__, "--one", *case, str(rank), str(port)] for rank in range(PROCESSES[case[1]])]
    children = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for call in calls]
    said = [child.communicate() for child in children]
    if any(child.returncode for child in children):
        raise SystemExit("\n".join(errors for _, errors in said))
    return json.loads(said[0][0].splitlines()[-1])


def measure_one(size: str, parallel: str, recomputed: str, what: str, rank: str, port: str) -> None:
    """Measure a case in this process and print the bytes."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    config = make_config(size, recomputed == "True")
    if parallel != "single":
        config = config.override(parallel=parallel)
        size_of_job = str(PROCESSES[parallel])  # as torchrun sets it
        os.environ |= {"RANK": rank, "WORLD_SIZE": size_of_job, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    with join_processes() as processes:
        found = {"tensors": measure_tensors, "process": measure_process}[what](config, processes)
    print(f"\n{found}", flush=True)


def main() -> None:
    """Print the table; or one figure, in a process that this program started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure_one(*arguments.one)
        return
    print("| size | strategy | activations | planned, MB | tensors, MB | planned / tensors | process, MB |")
    print("| --- " * 7 + "|")
    for size in SIZES:
        for parallel in get_args(Parallel):
            for recomputed in (False, True):
                planned = estimate_memory(make_config(size, recomputed), PROCESSES[parallel], parallel).total
                case = (size, parallel, str(recomputed))
                counted = measure_in_processes(*case, "tensors")
                held_by_process = f"{measure_in_processes(*case, 'process') / 1e6:,.1f}" if parallel == "single" else ""
                ways = f"{parallel} | {'recomputed' if recomputed else 'kept'}"
                figures = f"{planned / 1e6:,.1f} | {counted / 1e6:,.1f} | {planned / counted:.3f}"
                print(f"| {size} | {ways} | {figures} | {held_by_process} |", flush=True)


if __name__ == "__main__":
    main()
