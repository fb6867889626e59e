"""The interface to the optional kernels in minigpt/kernels. No other file imports them.

A kernel computes what a model file computes, up to float32 rounding, and faster. `accelerate` puts kernels into a model
by changing the class of its modules (kernels/swaps.py). `build_decoder` returns a compiled decoder for generation
(kernels/decoder_selection.py). With MINIGPT_KERNELS=off in the environment, or without the folder minigpt/kernels,
models do not change, and there is no decoder.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal

from torch import nn

from minigpt.config import Config, SamplingConfig
from minigpt.model.kv_cache import ContextWindow

if TYPE_CHECKING:
    from minigpt.kernels.decoder import Decoder
    from minigpt.kernels.decoder_selection import Limits

__all__ = [
    "accelerate",
    "build_decoder",
    "choose_training_loops",
    "compile_context_mixing",
    "describe_decoder",
    "enter_loop_step",
    "has_kernels",
    "restore",
    "should_use_loops",
]


def has_kernels() -> bool:
    """Return True if the kernels are installed and not switched off."""
    return os.environ.get("MINIGPT_KERNELS") != "off" and importlib.util.find_spec("minigpt.kernels") is not None


def accelerate(model: nn.Module, config: Config) -> list[str]:
    """Swap modules of a model for faster ones that compute the same, in place.

    Only the class of a module changes: the module, its parameters and their names stay. Modules with hooks, adapters,
    quantized layers and modules without values (meta) stay as they are. Accelerating a model twice changes nothing.

    Args:
        model: any model, on the device where it will run.
        config: the run's configuration. Its precision, dropout and compilation decide about the compiled loops.

    Returns:
        The names of the kernels in the model, sorted: "onednn_linear", "training_loops", "causal_attention", ...
    """
    if not has_kernels():
        return []
    from minigpt.kernels.swaps import swap_modules

    return swap_modules(model, config)


def restore(model: nn.Module) -> None:
    """Undo `accelerate`, in place."""
    if has_kernels():
        from minigpt.kernels.swaps import restore_modules

        restore_modules(model)


def choose_training_loops(config: Config, device: str) -> Literal["on", "off"]:
    """Decide whether a training uses the compiled loops, and compile them if they are not yet.

    The settings decide, never a timing. Without Numba, a warning says once that PyTorch trains.

    Args:
        config: the run's configuration.
        device: the kind of device, such as "cpu" or "cuda".

    Returns:
        The value of `compiled_loops` with which the run makes the same choice again.
    """
    if not has_kernels():
        return "off"
    from minigpt.kernels import training_loops

    can_train = training_loops.can_train_with_loops(config, device) and training_loops.load_loops() is not None
    return "on" if can_train else "off"


def compile_context_mixing() -> dict[str, Callable] | None:
    """Compile the functions of the context-mixing model, or load them, for `ContextMixer.fit`.

    Returns:
        The functions; None without kernels, and with a warning without Numba. Then the plain functions do the work.
    """
    if not has_kernels():
        return None
    from minigpt.kernels.compilation import compile_or_warn

    def load() -> dict[str, Callable]:
        from minigpt.kernels.numba_context_mixing import compile_functions

        return compile_functions()

    return compile_or_warn("context-mixing model", load, "context mixing is slow")


def enter_loop_step(adds_gradients: bool) -> AbstractContextManager[None]:
    """Return a context for a training step in the compiled loops: they have PyTorch's threads, and PyTorch has one.

    PyTorch's other threads would wait in a loop for their next work, and so keep cores from the compiled loops.

    Args:
        adds_gradients: whether the loops themselves add to the gradients that parameters have. Autograd, which calls
            DDP's hooks, takes longer.
    """
    from minigpt.kernels.training_loops import enter_step

    return enter_step(adds_gradients)


def build_decoder(window: ContextWindow, tokens: int, limits: "Limits | None" = None) -> "Decoder | None":
    """Build a compiled decoder: Numba's loops on a CPU, a CUDA graph of the model's forward on a GPU.

    Args:
        window: a context window that has read a prompt.
        tokens: the number of tokens to generate.
        limits: when compiled loops are faster than PyTorch; by default as measured in docs/performance.md.

    Returns:
        The decoder, or None where the model's own forward is faster, or where there are no kernels.
    """
    if not has_kernels():
        return None
    from minigpt.kernels import decoder_selection

    return decoder_selection.build_decoder(window, tokens, limits or decoder_selection.Limits())


def should_use_loops(model: nn.Module, tokens: int) -> bool:
    """Return True if compiled loops will generate a text of `tokens` tokens; they can share it between threads."""
    if not has_kernels():
        return False
    from minigpt.kernels import decoder_selection

    return decoder_selection.should_use_loops(model, tokens)


def describe_decoder(model: nn.Module, tokens: int = SamplingConfig.max_new_tokens) -> str:
    """Return in a few words how a text of `tokens` tokens will be generated, for run.json."""
    if not has_kernels():
        return "PyTorch"
    from minigpt.kernels import decoder_selection

    return decoder_selection.describe_decoder(model, tokens)
