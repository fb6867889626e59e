"""The context-mixing model, compiled: the model's own functions, as they stand in its files."""

import functools
import types
from collections.abc import Callable

from minigpt.kernels.numba_jit import njit_allocating, njit_inner_allocating
from minigpt.model.context_mixing import CharacterTable, ContextMixer, ContextMixingConfig, contexts, memory, mixing

CALLED_FROM_PYTHON = ("read_text", "predict_token")


@functools.cache
def compile_functions() -> dict[str, Callable]:
    """Return the functions that ContextMixer calls, compiled by Numba, by their names."""
    compiled: dict[str, Callable] = {}
    for module in (contexts, memory, mixing):
        names = {**vars(module), **compiled}  # the compiled functions find each other here, and not in the module
        for name, function in vars(module).items():
            if isinstance(function, types.FunctionType) and function.__module__ == module.__name__:
                decorate = njit_allocating if name in CALLED_FROM_PYTHON else njit_inner_allocating
                names[name] = compiled[name] = decorate(types.FunctionType(function.__code__, names, name))
    functions = {name: compiled[name] for name in CALLED_FROM_PYTHON}
    # Numba compiles a function at its first call.
    ContextMixer.fit([0, 1], CharacterTable.from_characters("ab"), ContextMixingConfig(2), functions).log_probs([0])
    return functions
