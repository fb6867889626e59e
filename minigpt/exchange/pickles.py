"""The only place that reads or writes pickles: the .pt files of other programs. They hold tensors; no code runs."""

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def serialize_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a .pt file, which PyTorch reads with weights_only."""
    content = io.BytesIO()
    torch.save(dict(tensors), content)
    return content.getvalue()


def load_own_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .pt file that this program has just written."""
    tensors: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return tensors
