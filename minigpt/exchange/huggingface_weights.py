"""The tensors of a folder that transformers has saved: in one file, or in parts that an index names."""

import json
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from minigpt.errors import ExchangeError
from minigpt.system.files import explain_os_errors, read_text, require_inside
from minigpt.system.safetensors_files import open_safetensors

INDEX = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 2**24
_PREFIX = "transformer."  # all names but lm_head.weight begin with it


def read_huggingface_weights(folder: Path, say: Callable[[str], None]) -> dict[str, Tensor]:
    """Read every tensor of model.safetensors, or of the parts that its index names.

    Args:
        folder: the folder.
        say: is called with a message about parts that are left out, as the index does not name them.

    Returns:
        The tensors by GPT-2's names.

    Raises:
        ExchangeError: there are no weights, or a file is damaged.
    """
    places = {"model.safetensors": None} if (folder / "model.safetensors").is_file() else _read_index(folder, say)
    tensors: dict[str, Tensor] = {}
    for name, wanted in places.items():
        require_inside(folder, [folder / name])
        with explain_os_errors("read", folder / name):
            is_there = (folder / name).is_file()
        if not is_there:
            raise ExchangeError(f"{str(folder)!r} is not complete: {name!r}, which {INDEX} names, is missing")
        with open_safetensors(folder / name, ExchangeError) as content:
            for tensor in content.keys():  # noqa: SIM118 (the handle is not a dict)
                if wanted is None or tensor in wanted:
                    tensors[tensor.removeprefix(_PREFIX)] = content.get_tensor(tensor)
    return tensors


def _read_index(folder: Path, say: Callable[[str], None]) -> dict[str, set[str]]:
    """Return the files that the index names, and the tensors that each of them has."""
    path = folder / INDEX
    if not path.is_file():
        pickle = next((found.name for found in sorted(folder.glob("*.bin"))), None)
        why = f"its {pickle} is a pickle, which could run anything" if pickle else "it has no model.safetensors"
        if any(folder.glob("*-of-*.safetensors")):
            why = f"it has parts of a model, and no {INDEX} that names them"
        raise ExchangeError(f"{str(folder)!r} cannot be read: {why}; save it with safe_serialization=True")
    try:
        places = json.loads(read_text(path, _MAX_INDEX_BYTES))["weight_map"]
        files: dict[str, set[str]] = {}
        for tensor, name in places.items():
            files.setdefault(str(name), set()).add(tensor)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise ExchangeError(f"{str(path)!r} is damaged: {error}; save the model again") from None
    others = sorted(found.name for found in folder.glob("*-of-*.safetensors") if found.name not in files)
    if others:
        say(f"{', '.join(others[:3])}{' and more' * (len(others) > 3)}: left out, as {INDEX} does not name it")
    return files
