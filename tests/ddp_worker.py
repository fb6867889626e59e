"""The trainings that two processes run together; torchrun starts this file with a folder and a text."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import minigpt
from minigpt.errors import MinigptError
from minigpt.training.resume import resume

PARALLEL = ("ddp", "fsdp")
EXACT: dict[str, Any] = {  # seven windows for two processes, in two batches a step; no dropout, which differs
    "n_embd": 16,
    "n_head": 2,
    "n_layer": 2,
    "block_size": 16,
    "batch_size": 7,
    "gradient_accumulation": 2,
    "max_iters": 20,
    "eval_interval": 5,
    "eval_windows": 16,
    "grad_clip": 0.5,
    "weight_decay": 0.1,
    "snapshots": 0,
}
OTHERS: dict[str, dict[str, Any]] = {
    "lecture": {"implementation": "lecture", "parallel": "fsdp", "max_iters": 6},
    "tied": {"tied_head": True, "activation": "gelu", "parallel": "fsdp", "max_iters": 6},
    "recomputed": {"checkpoint_activations": True, "qkv_bias": True, "parallel": "fsdp", "max_iters": 6},
    "bigram": {"architecture": "bigram", "parallel": "ddp", "max_iters": 6},
    "modern": {"architecture": "modern", "optimizer": "muon", "parallel": "ddp", "max_iters": 6},
    "modern-in-parts": {"architecture": "modern", "parallel": "fsdp", "max_iters": 6},
}
RANDOM = EXACT | {"dropout": 0.2, "max_iters": 16, "eval_interval": 8}


def main(folder: Path, text: Path) -> None:
    """Train each way, go on with what one process or two have begun, and go wrong in the second process alone."""
    dist.init_process_group("gloo")
    torch.set_default_dtype(torch.float64)
    for parallel in PARALLEL:
        minigpt.train(data=text, out=folder / parallel, parallel=parallel, **EXACT)
        minigpt.train(data=text, out=folder / f"{parallel}-begun", parallel=parallel, **EXACT | {"max_iters": 12})
        resume(folder / f"alone-to-{parallel}", parallel=parallel, max_iters=20)
    for name, settings in OTHERS.items():
        minigpt.train(data=text, out=folder / f"{name}-two", **EXACT | settings)
    torch.set_default_dtype(torch.float32)
    for parallel in PARALLEL:
        short = EXACT | {"max_iters": 6, "parallel": parallel}
        minigpt.train(data=text, out=folder / f"{parallel}-32", **short)
        minigpt.train(data=text, out=folder / f"{parallel}-random", parallel=parallel, **RANDOM)
        minigpt.train(data=text, out=folder / f"{parallel}-resumed", parallel=parallel, **RANDOM | {"max_iters": 8})
        resume(folder / f"{parallel}-resumed", max_iters=16)
    second = os.environ["RANK"] == "1"
    said = ""
    try:
        minigpt.train(data=folder / "nothing.txt" if second else text, out=folder / "never")
    except MinigptError as error:
        said = f"{type(error).__name__}{', silent' if error.silent else ''}: {error}"
    (folder / f"said-{os.environ['RANK']}.json").write_text(json.dumps(said))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
