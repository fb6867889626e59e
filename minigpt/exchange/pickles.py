"""The only place that reads or writes pickles: the .pt files of other programs. Tensors are read, and nothing is run."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def serialize_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a .pt file, which `torch.load(…, weights_only=True)` reads."""
    content = io.BytesIO()
    torch.save(dict(tensors), content)
    return content.getvalue()


def load_own_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .pt file that this program has just written."""
    tensors: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return tensors
