"""Measure memory and time of a fine-tuning step: all weights, LoRA and QLoRA, at three sizes.

    python benchmarks/finetuning.py

Each case runs in a process of its own. The largest size is GPT-2's of 124 million parameters, with random weights;
QLoRA also runs with recomputed activations, as in its paper. The memory is the peak during the steps above that
before the model was built (Linux).
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from processor import describe_processor
from steps import FixedBatch, make_step

from minigpt.config import Config
from minigpt.finetuning.lora import apply_lora, count_trained_parameters
from minigpt.model import build
from minigpt.model.quantization import quantize_layers

GPT2 = {"activation": "gelu", "qkv_bias": True, "tied_head": True}
SIZES: dict[str, dict[str, Any]] = {
    "64 wide, 4 blocks": {"n_embd": 64, "n_head": 4, "n_layer": 4, "block_size": 32, "batch_size": 16},
    "384 wide, 6 blocks": {"n_embd": 384, "n_head": 6, "n_layer": 6, "block_size": 256, "batch_size": 8},
    "GPT-2, 768 wide, 12 blocks": {
        "n_embd": 768,
        "n_head": 12,
        "n_layer": 12,
        "block_size": 256,
        "batch_size": 2,
        "vocab_size": 50257,
        **GPT2,
    },
}
METHODS = ("full", "lora", "qlora", "qlora, recomputed")
STEPS = 6


def read_memory(name: str) -> float:
    """Return the resident memory of this process, "VmRSS", or its peak, "VmHWM", in MB (Linux)."""
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split(f"{name}:")[1].split()[0]) / 1024


def measure(size: str, method: str) -> None:
    """Run a few steps and print the peak memory, the time and the number of trained parameters."""
    recomputed = method.endswith("recomputed")
    config = Config().override(max_iters=100, checkpoint_activations=recomputed, **SIZES[size])
    torch.manual_seed(0)
    idx = torch.randint(config.model.vocab_size, (config.training.batch_size, config.model.block_size))
    before = read_memory("VmRSS")
    model = build(config.model).train()
    if method.startswith("qlora"):
        quantize_layers(model, "nf4")
    if method != "full":
        apply_lora(model, rank=8)
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    step = make_step(model, config, FixedBatch(idx, idx))
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    trained = count_trained_parameters(model)
    figures = {"peak": read_memory("VmHWM") - before, "ms": statistics.median(times[1:]) * 1e3, "trained": trained}
    print(json.dumps(figures))


def main() -> None:
    """Print the table; or one case, in a process that this program started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(*arguments.one)
        return
    print(f"{describe_processor()}\n")
    print("| size | method | trained parameters | peak memory, MB | a step, ms |\n| --- | --- | --- | --- | --- |")
    for size in SIZES:
        for method in METHODS:
            f = json.loads(subprocess.check_output([sys.executable, __file__, "--one", size, method]))
            print(f"| {size} | {method} | {f['trained']:,} | {f['peak']:,.0f} | {f['ms']:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
