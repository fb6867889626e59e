"""Mini-Gpt: a small GPT to read, train and sample from.

In Python::

    import minigpt
    run = minigpt.train(preset="lecture", max_iters=500)
    print(run.generate("ROMEO:", max_new_tokens=200))
    run = minigpt.load("runs/lecture")

The command `minigpt` does the same from a shell. `minigpt/entry_points.py` has the functions; they are imported when
they are first used, so that `import minigpt` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

from minigpt.system.lazy_imports import import_lazily
from minigpt.version import __version__

if TYPE_CHECKING:
    from minigpt import config, data, errors, generation, learn, model, presets, studies, tokenizers
    from minigpt.entry_points import finetune, load, resume, train
    from minigpt.runs.run import Run
    from minigpt.training.callbacks import Callback

__all__ = [
    "Callback",
    "Run",
    "__version__",
    "config",
    "data",
    "errors",
    "finetune",
    "generation",
    "learn",
    "load",
    "model",
    "presets",
    "resume",
    "studies",
    "tokenizers",
    "train",
]

_MODULES = {
    "Callback": "training.callbacks",
    "Run": "runs.run",
    "finetune": "entry_points",
    "load": "entry_points",
    "resume": "entry_points",
    "train": "entry_points",
}
_SUBMODULES = ("config", "data", "errors", "generation", "learn", "model", "presets", "studies", "tokenizers")

_import_name = import_lazily(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    """Import a public name or module when it is first used."""
    return importlib.import_module(f"minigpt.{name}") if name in _SUBMODULES else _import_name(name)


def __dir__() -> list[str]:
    """Return the public names, for completion, also those that are not imported yet."""
    return sorted({*globals(), *__all__})
