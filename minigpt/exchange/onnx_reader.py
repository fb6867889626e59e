"""A text read by ONNX Runtime, some tokens at a time, with the cache passed on from call to call."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


class OnnxReader:
    """An exported model and the cache of the tokens that it has read."""

    def __init__(self, path: Path) -> None:
        """Open a model. Raise ImportError if onnxruntime is not installed."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # threads that wait leave the CPU free
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {given.name: given.shape for given in self._session.get_inputs()}
        self._outputs = [result.name for result in self._session.get_outputs()]
        self._present: dict[str, Any] = {}
        self._length = 0

    def read(self, ids: Tensor) -> Tensor:
        """Read more tokens (B, T), and return the logits (B, T, V)."""
        B, T = ids.shape
        end = self._length + T
        given: dict[str, Any] = {
            "input_ids": ids.numpy(),
            "attention_mask": np.ones((B, end), np.int64),
            "position_ids": np.arange(self._length, end)[None].repeat(B, axis=0),
        }
        sizes = {"batch": B, "past": 0}
        for name, shape in self._inputs.items():
            if name.startswith("past"):
                before = name.replace("past_key_values", "present").replace("past_shift", "present_shift")
                empty = np.zeros([sizes.get(size, size) for size in shape], np.float32)
                given[name] = self._present.get(before, empty)
        found = self._session.run(None, {name: given[name] for name in self._inputs})
        self._present, self._length = dict(zip(self._outputs, found, strict=True)), end
        return torch.from_numpy(self._present["logits"])
