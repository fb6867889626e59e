"""The context-mixing model, compiled: the functions of the model's own two files, as they stand there."""

import functools
import types
from collections.abc import Callable

from minigpt.kernels.numba_jit import njit_allocating, njit_inner_allocating
from minigpt.model import character_contexts, context_mixing


@functools.cache
def compile_functions() -> dict[str, Callable]:
    """Return the functions that ContextMixer calls, compiled by Numba, by their names."""
    called_from_python = ("read_text", "predict_token")
    compiled: dict[str, Callable] = {}
    for module in (character_contexts, context_mixing):
        names = {**vars(module), **compiled}  # the compiled functions find each other here, and not in the module
        for name, function in vars(module).items():
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                decorate = njit_allocating if name in called_from_python else njit_inner_allocating
                names[name] = compiled[name] = decorate(types.FunctionType(function.__code__, names, name))
    return compiled
