"""Runs with random weights, for tests that need logits which differ and no training."""

from pathlib import Path
from typing import Any

import fuzz_targets
import torch

import minigpt
from minigpt.runs.run import Run
from minigpt.tokenizers.base import Tokenizer

BLOCK_SIZE = 256


def make_random_run(folder: Path, tokenizer: Tokenizer, **settings: Any) -> Run:
    """Write a run with random weights, biases and gains, and open it."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = {"n_embd": 32, "n_head": 2, "n_layer": 2, "block_size": BLOCK_SIZE}
    directory = fuzz_targets.make_run(folder, tokenizer, **shape | settings)
    model = minigpt.load(folder).model
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    directory.write_weights(model.state_dict())
    return minigpt.load(folder)
