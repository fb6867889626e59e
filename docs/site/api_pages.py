"""The pages of the API reference: each package with `__all__` has a page, with the names in it and nothing else."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import minigpt


def find_modules() -> list[str]:
    """Return the names of all packages and modules that list their public names in `__all__`."""
    names = ["minigpt"]
    for module in pkgutil.walk_packages(minigpt.__path__, "minigpt."):
        if module.name != "minigpt.__main__" and vars(importlib.import_module(module.name)).get("__all__"):
            names.append(module.name)
    return names


def write_api_pages(folder: Path) -> None:
    """Write a page for each module of `find_modules`, and an index."""
    folder.mkdir()
    modules = find_modules()
    for name in modules:
        (folder / f"{name}.rst").write_text(build_page(name, modules), encoding="utf-8")
    toctree = "".join(f"   {name}\n" for name in modules)
    intro = "This page answers: which names of the package may a program use? All others are private.\n"
    index = f"{_title('API reference', '=')}{intro}\n.. toctree::\n   :maxdepth: 1\n\n{toctree}"
    (folder / "index.rst").write_text(index, encoding="utf-8")


def build_page(name: str, pages: list[str]) -> str:
    """Return the page of a module, in reStructuredText.

    Args:
        name: the module.
        pages: the modules that have a page of their own; this page only links to them.
    """
    module = importlib.import_module(name)
    page = _title(name, "=") + f".. py:module:: {name}\n\n" + (inspect.getdoc(module) or "") + "\n\n"
    for public in module.__all__:
        full = f"{name}.{public}"
        if full in pages:
            page += f"- :doc:`{full}`\n\n"
        elif isinstance(_get(module, public), ModuleType):
            page += f"{_title(full, '-')}.. automodule:: {full}\n   :members:\n\n"
        else:
            directive = _choose_directive(_get(module, public))
            options = "   :members:\n" if directive == "autoclass" else ""
            page += f".. {directive}:: {public if directive == 'py:data' else full}\n{options}\n"
    return page


def list_public_names() -> set[str]:
    """Return the full name of everything that must be in the reference, members of classes left out."""
    return {full for name in find_modules() for full in _list_names(name)}


def list_places() -> set[str]:
    """Return the full names by which the public classes are defined; Sphinx lists them beside the public names."""
    values = (
        _get(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in list_public_names()
    )
    return {f"{value.__module__}.{value.__qualname__}" for value in values if inspect.isclass(value)}


def _list_names(name: str) -> Iterator[str]:
    module = importlib.import_module(name)
    for public in module.__all__:
        value = _get(module, public)
        if not isinstance(value, ModuleType):
            yield f"{name}.{public}"
        elif "__all__" not in vars(value):
            for member, content in vars(value).items():
                is_own = getattr(content, "__module__", None) == value.__name__ and callable(content)
                if is_own and not member.startswith("_") and inspect.getdoc(content):
                    yield f"{value.__name__}.{member}"


def _get(module: ModuleType, name: str) -> Any:
    """Return what a public name stands for; a module is imported."""
    try:
        return getattr(module, name)
    except AttributeError:
        return importlib.import_module(f"{module.__name__}.{name}")


def _choose_directive(value: object) -> str:
    """Return the directive for a value. Autodoc would show the docstring of the type of a value that is data."""
    if inspect.isclass(value):
        return "autoclass"
    return "autofunction" if callable(value) else "py:data"


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n\n"
