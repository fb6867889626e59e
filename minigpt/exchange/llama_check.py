"""Open a GGUF file in llama.cpp, through the package llama-cpp-python, and compute logits there."""

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from llama_cpp import Llama


def open_llama(path: Path, tokens: int, **settings: Any) -> "Llama | None":
    """Open a file with a KV cache in float32; return None if llama-cpp-python is not installed.

    Args:
        path: the GGUF file.
        tokens: the most tokens of a window.
        **settings: other settings of `Llama`.
    """
    try:
        import llama_cpp
        from llama_cpp._logger import llama_log_callback
    except ImportError:
        return None
    f32 = llama_cpp.GGML_TYPE_F32
    settings = {"logits_all": True, "type_k": f32, "type_v": f32, "verbose": False} | settings
    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))  # verbose=False leaves warnings
    try:
        return llama_cpp.Llama(str(path), n_ctx=tokens, n_batch=tokens, n_ubatch=tokens, **settings)
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))


def compute_llama_logits(llama: "Llama", ids: Tensor) -> Tensor:
    """Return llama.cpp's logits (B, T, V) for token ids (B, T)."""
    rows = []
    for row in ids.tolist():
        llama.reset()
        llama.eval(row)
        rows.append(np.array(llama.scores[: len(row)]))
    return torch.from_numpy(np.stack(rows)).float()
