"""Change the files of an adapter, as damage or another program would."""

import json
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch

from minigpt.finetuning.adapter_files import CONFIG, WEIGHTS


def change_config(folder: Path, **changes: object) -> None:
    """Change settings in adapter_config.json."""
    content = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**content, **changes}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, in place."""
    weights = safetensors.torch.load_file(folder / WEIGHTS)
    change(weights)
    safetensors.torch.save_file(weights, folder / WEIGHTS)
