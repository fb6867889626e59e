"""The only place that reads or writes pickles: the .pt and .pkl files of other programs. No code of a pickle ever runs.

A pickle is a small program. Its opcodes can name any function of Python and call it. So a .pt file is read with
`weights_only`, which makes tensors and plain values only. A .pkl file is read after a check that each of its opcodes
makes a dict, a string or an integer.
"""

import io
import pickle
import pickletools
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minigpt.errors import ExchangeError
from minigpt.system.files import explain_os_errors, read_bytes

SAFE_TORCH = (2, 10)  # older versions can run code in a file of weights: CVE-2025-32434 and CVE-2026-24747
_MAX_PICKLE_BYTES = 2**25  # the largest vocabulary; all of Unicode takes 23 MB
_MAX_VALUES_BYTES = 2**24  # the most that a .pt file may hold beside the numbers of its tensors
_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "SETITEM", "SETITEMS", "MEMOIZE", "BINPUT", "BINGET"),
    *("LONG_BINPUT", "LONG_BINGET", "SHORT_BINUNICODE", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"),
}


def serialize_checkpoint(content: Mapping[str, Any]) -> bytes:
    """Return the content of a .pt file, which PyTorch reads with weights_only."""
    written = io.BytesIO()
    torch.save(dict(content), written)
    return written.getvalue()


def serialize_vocabulary(content: Mapping[str, Any]) -> bytes:
    """Return a pickle of dicts, strings and integers."""
    return pickle.dumps(dict(content), protocol=4)


def load_own_tensors(path: Path) -> dict[str, Tensor]:
    """Read a .pt file that this program has just written."""
    tensors: dict[str, Tensor] = torch.load(path, weights_only=True, map_location="cpu")
    return tensors


def load_checkpoint(path: Path, torch_version: str = torch.__version__) -> dict[str, Any]:
    """Read a .pt file of another program: a dict of tensors and plain values.

    Args:
        path: the file.
        torch_version: the version of PyTorch that reads it.

    Raises:
        ExchangeError: this version of PyTorch is not safe, or the file holds other things or is damaged.
        FileError: the file cannot be read.
    """
    if tuple(int(part) for part in torch_version.split("+")[0].split(".")[:2]) < SAFE_TORCH:
        raise ExchangeError(
            f"{str(path)!r} cannot be read: a .pt file can run code in PyTorch {torch_version}; install PyTorch "
            f"{'.'.join(map(str, SAFE_TORCH))} or later"
        )
    _require_stored(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[-1].strip() or "it is no pickle of tensors"
        raise ExchangeError(
            f"{str(path)!r} holds more than tensors and plain values, so it is not opened: {reason}"
        ) from None
    except Exception as error:  # a damaged file leads to any exception of PyTorch's reader
        raise ExchangeError(f"{str(path)!r} is damaged: {_shorten(error)}; copy the file again") from None
    if not isinstance(content, dict):
        raise ExchangeError(
            f"{str(path)!r} holds no dict of tensors, but a {type(content).__name__}: save a state_dict"
        )
    return content


def _require_stored(path: Path) -> None:
    """Raise ExchangeError unless a file is a zip archive as `torch.save` writes it, without compression."""
    with explain_os_errors("read", path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ExchangeError(f"{str(path)!r} is not a file of tensors: name a .pt file")
        size = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.infolist()
        except Exception as error:  # a damaged archive leads to any exception
            raise ExchangeError(
                f"{str(path)!r} is no .pt file that PyTorch 1.6 or later has saved: {_shorten(error)}"
            ) from None
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ExchangeError(f"{str(path)!r} is compressed, which torch.save never does: save the tensors again")
    pickled = sum(member.file_size for member in members if member.filename.endswith(".pkl"))
    if pickled > _MAX_VALUES_BYTES or sum(member.file_size for member in members) > size:
        raise ExchangeError(f"{str(path)!r} is damaged: its parts are larger than the file; copy the file again")


def load_vocabulary(path: Path) -> dict[Any, Any]:
    """Read a pickle of dicts, strings and integers.

    Raises:
        ExchangeError: the pickle holds anything else, or is damaged.
        FileError: the file cannot be read.
    """
    content = read_bytes(path, _MAX_PICKLE_BYTES)
    try:
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name not in _OPCODES:
                raise ExchangeError(
                    f"{str(path)!r} is not opened, because a pickle can run any code and this one has more than dicts, "
                    f"strings and integers: {opcode.name}"
                )
            if opcode.name == "LONG_BINPUT" and (argument or 0) > len(content):
                raise ValueError("a number is too large")  # Python would reserve memory for as many entries
        found = _NoClasses(io.BytesIO(content)).load()
    except ExchangeError:
        raise
    except Exception as error:  # a damaged pickle leads to any exception
        raise ExchangeError(f"{str(path)!r} is damaged: {_shorten(error)}; copy the file again") from None
    if not isinstance(found, dict):
        raise ExchangeError(f"{str(path)!r} is no vocabulary: it holds no dict")
    return found


class _NoClasses(pickle.Unpickler):
    """An unpickler that refuses every class and function, in case the check of the opcodes misses one."""

    def find_class(self, module: str, name: str) -> Any:
        """Raise UnpicklingError."""
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _shorten(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip() or type(error).__name__).split("\n")[0][:200].rstrip(".")
