"""The presets: named settings to start from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A named starting point.

    Attributes:
        about: what the preset is for, in a few words.
        settings: the settings that differ from the lecture's.
    """

    about: str
    settings: Mapping[str, Any]


RECORD = {  # docs/record.md says how they were found
    "architecture": "modern",
    "block_size": 128,
    "n_embd": 96,
    "n_head": 2,
    "order": "epochs",
    "optimizer": "muon",
    "learning_rate": 4e-3,
    "schedule": "trapezoid",
    "warmup_iters": 20,
    "weight_decay": 0.0,
    "beta2": 0.95,
    "precision": "auto",
}
LONGER = {"block_size": 256, "n_embd": 128, "dropout": 0.1, "weight_decay": 0.1}
PRESETS = {
    "lecture": Preset("the lecture's small transformer: one to four minutes on two CPU cores", {}),
    "lecture-large": Preset(
        "the lecture's large transformer, 10.8 million parameters: for a GPU",
        {
            "batch_size": 64,
            "block_size": 256,
            "eval_interval": 500,
            "learning_rate": 3e-4,
            "n_embd": 384,
            "n_head": 6,
            "n_layer": 6,
            "dropout": 0.2,
        },
    ),
    "bigram": Preset(
        "the baseline, a table of which character follows which",
        {
            "architecture": "bigram",
            "batch_size": 32,
            "block_size": 8,
            "max_iters": 3000,
            "eval_interval": 300,
            "learning_rate": 1e-2,
        },
    ),
    "nanogpt-cpu": Preset(
        "nanoGPT's recipe for a laptop CPU, for comparison",
        {
            "batch_size": 12,
            "block_size": 64,
            "n_embd": 128,
            "activation": "gelu_exact",
            "tied_head": True,
            "max_iters": 2000,
            "eval_interval": 250,
            "schedule": "cosine",
            "warmup_iters": 100,
            "min_learning_rate": 1e-4,
            "weight_decay": 0.1,
            "beta2": 0.99,
            "grad_clip": 1.0,
        },
    ),
    "cpu-2min": Preset("the lowest loss in two minutes on two CPU cores", RECORD | {"max_minutes": 2.0}),
    "cpu-10min": Preset("the lowest loss in ten minutes on two CPU cores", RECORD | LONGER | {"max_minutes": 10.0}),
    "cpu-60min": Preset(
        "the lowest loss in an hour on two CPU cores", RECORD | LONGER | {"max_minutes": 60.0, "dropout": 0.2}
    ),
}
