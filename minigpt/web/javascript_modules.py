"""Join the page's modules to one script. A browser refuses to import modules from `file://`."""

import re
from pathlib import Path

_IMPORT = re.compile(r'^import \{([^}]*)\} from "([^"]+)";\n', re.M)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const)\b)", re.M)
_EXPORTED_NAME = re.compile(r"^export (?:async )?(?:function\*?|class|const) (\w+)", re.M)
_COMMENT = re.compile(r"^[ \t]*(?://[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)\n", re.M)


def join_modules(entry: Path) -> str:
    """Return one script that does what a module and its imports do.

    Each module becomes a function that is called once and returns its exports. The page's modules import names in
    braces and export declarations only, which is all that this function knows. Comments on lines of their own are left
    out.

    Args:
        entry: the module that a page would load.

    Raises:
        ValueError: a module imports or exports in another way, or imports itself through others.
    """
    order: list[Path] = []
    _list_modules(entry.resolve(), (), order)
    numbers = {path: number for number, path in enumerate(order)}
    return "".join(f"const module{numbers[path]} = {_wrap(path, numbers)};\n" for path in order)


def _list_modules(path: Path, importers: tuple[Path, ...], order: list[Path]) -> None:
    """Add a module to `order`, after those that it imports."""
    if path in importers:
        raise ValueError(f"{path.name} imports itself through other modules")
    if path in order:
        return
    for _, name in _IMPORT.findall(path.read_text(encoding="utf-8")):
        _list_modules((path.parent / name).resolve(), (*importers, path), order)
    order.append(path)


def _wrap(path: Path, numbers: dict[Path, int]) -> str:
    """Return a call of a function that does what a module does, and returns its exports."""
    source = path.read_text(encoding="utf-8")

    def take_from_module(match: re.Match[str]) -> str:
        names = ", ".join(name.strip().replace(" as ", ": ") for name in match[1].split(",") if name.strip())
        return f"const {{ {names} }} = module{numbers[(path.parent / match[2]).resolve()]};\n"

    body = _IMPORT.sub(take_from_module, _COMMENT.sub("", source))
    exported = ", ".join(_EXPORTED_NAME.findall(source))
    body = _EXPORT.sub("", body)
    if re.search(r"^(import|export)\b", body, re.M):
        raise ValueError(f"{path.name} imports or exports in a way that cannot be joined")
    return f"(() => {{\n{body}return {{ {exported} }};\n}})()"
