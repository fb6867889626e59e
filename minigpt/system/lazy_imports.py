"""Public names of a package that are imported when they are first used."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def import_lazily(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package that imports each public name on its first use (PEP 562).

    So a command loads only what it needs.

    Args:
        package: the package's `__name__`.
        modules: for each public name, the module of the package that defines it.

    Returns:
        A function that takes a name and returns what it stands for. It raises AttributeError for an unknown name.
    """

    def import_name(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return import_name
