"""A library that is imported when a test first uses it: each worker of pytest-xdist collects all files."""

import importlib
from typing import Any


class LazyModule:
    """Stands for a module, and imports it at the first use of an attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest asks every object of a test file for marks of its own
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)
