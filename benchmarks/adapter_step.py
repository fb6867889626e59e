"""Time a fine-tuning step of all weights, of LoRA, of QLoRA, and of LoRA on the 4-bit layers of bitsandbytes.

    pip install bitsandbytes
    python benchmarks/adapter_step.py

The methods take turns, in one process. A ratio is a method's time over LoRA's in the same round: the median, and the
range in parentheses. Adapters have rank 8 and are on all linear layers of the blocks.
"""

import argparse
from collections.abc import Callable
from typing import Any

import bitsandbytes as bnb
import torch
from finetuning import SIZES
from processor import describe_processor
from side_by_side import THREAD_COUNTS, Side, time_in_turns
from steps import FixedBatch, make_step

from minigpt.config import Config
from minigpt.finetuning.lora import apply_lora, find_lora_layers
from minigpt.finetuning.lora_layer import LoRALinear
from minigpt.model import build
from minigpt.model.quantization import quantize_layers

LORA, FULL, QLORA, BITSANDBYTES = "LoRA", "all weights", "QLoRA", "LoRA on the layers of bitsandbytes"


def make_method_step(size: dict[str, Any], method: str) -> Callable[[], float]:
    """Return a function that makes a fine-tuning step of a model of this size, with random weights."""
    config = Config().override(max_iters=100, compiled_loops="off" if method == BITSANDBYTES else "on", **size)
    torch.manual_seed(0)
    idx = torch.randint(config.model.vocab_size, (config.training.batch_size, config.model.block_size))
    model = build(config.model).train()
    if method == QLORA:
        quantize_layers(model, "nf4")
    if method != FULL:
        apply_lora(model, rank=8)
    if method == BITSANDBYTES:
        for layer in find_lora_layers(model).values():
            replace_with_bitsandbytes(layer)
    return make_step(model, config, FixedBatch(idx, idx))


def replace_with_bitsandbytes(layer: LoRALinear) -> None:
    """Replace the frozen layer by a 4-bit layer of bitsandbytes."""
    base, has_bias = layer.base, layer.base.bias is not None
    new = bnb.nn.Linear4bit(base.in_features, base.out_features, bias=has_bias, quant_type="nf4")
    new.load_state_dict(base.state_dict())
    layer.base = new.to("cpu").requires_grad_(False)  # `to` quantizes


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, nargs="+", default=THREAD_COUNTS)
    arguments = parser.parse_args()
    print(f"{describe_processor()}\n")
    print("| size | threads | method | ms per step | time over LoRA |\n| --- | --- | --- | --- | --- |")
    for name in ("64 wide, 4 blocks", "GPT-2, 768 wide, 12 blocks"):
        steps = {method: make_method_step(SIZES[name], method) for method in (LORA, FULL, QLORA, BITSANDBYTES)}
        for threads in arguments.threads:
            timings = time_in_turns({m: Side(step, threads) for m, step in steps.items()}, arguments.rounds)
            for method, timing in timings.items():
                print(f"| {name} | {threads} | {method} | {timing.seconds * 1e3:,.1f} | {timing} |", flush=True)


if __name__ == "__main__":
    main()
