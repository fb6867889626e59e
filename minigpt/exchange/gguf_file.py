"""Read GGUF files, which may be untrusted: every length is checked against the file before anything is read.

The format is described in ggml's docs/gguf.md: a header, keys with values, a list of tensors, and their numbers.
"""

import math
import mmap
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minigpt.errors import ExchangeError
from minigpt.system.files import explain_os_errors

_MAX_KEYS, _MAX_TENSORS, _MAX_STRINGS, _MAX_DIMENSIONS = 2**12, 2**14, 2**21, 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {  # kinds of numbers in the header, by NumPy's names
    0: "u1",
    1: "i1",
    2: "u2",
    3: "i2",
    4: "u4",
    5: "i4",
    6: "f4",
    7: "u1",
    10: "u8",
    11: "i8",
    12: "f8",
}
_F32, _F16, _Q8_0 = 0, 1, 8  # formats of tensors
_Q8_0_BLOCK = np.dtype([("scale", "<f2"), ("numbers", "i1", 32)])


@dataclass(frozen=True)
class _Tensor:
    """Where the numbers of a tensor are, and how they are written."""

    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


class GGUFFile:
    """An open GGUF file.

    Attributes:
        keys: the values by their keys: numbers, texts, arrays of numbers, and lists of texts.
        tensors: the names of the tensors.
    """

    def __init__(self, content: mmap.mmap, name: str) -> None:
        """Read the header. Raise ExchangeError if it is damaged."""
        self._content, self._name, self._at = content, name, 4
        self.keys: dict[str, Any] = {}
        self.tensors: dict[str, _Tensor] = {}
        try:
            version = self._read_number("u4")
            if version not in (2, 3):
                raise ExchangeError(f"{name} is GGUF of version {version}, and only versions 2 and 3 can be read")
            count, keys = self._read_count("tensors", _MAX_TENSORS), self._read_count("keys", _MAX_KEYS)
            for _ in range(keys):
                key = self._read_text()
                if key in self.keys:
                    raise self._build_damage_error(f"it has the key {key!r} twice")
                self.keys[key] = self._read_value(self._read_number("u4"))
            listed = [self._read_tensor() for _ in range(count)]
        except UnicodeDecodeError:
            raise self._build_damage_error("a text in its header is not UTF-8") from None
        self._locate(listed)

    def get_tensor(self, name: str) -> np.ndarray:
        """Return a tensor's numbers as float32, in the order of PyTorch: the last dimension is contiguous."""
        tensor = self.tensors[name]
        raw = self._content[tensor.start : tensor.start + tensor.size]
        if tensor.kind == _Q8_0:
            blocks = np.frombuffer(raw, _Q8_0_BLOCK)
            numbers = blocks["scale"].astype(np.float32)[:, None] * blocks["numbers"]
        else:
            numbers = np.frombuffer(raw, "<f4" if tensor.kind == _F32 else "<f2").astype(np.float32)
        return numbers.reshape(tensor.shape)

    def _locate(self, listed: list[tuple[str, tuple[int, ...], int, int]]) -> None:
        """Compute where each tensor's numbers are. Raise ExchangeError for a tensor outside the file."""
        alignment = self.keys.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 2**16:
            raise self._build_damage_error(f"its alignment is {alignment!r}")
        start = -(-self._at // alignment) * alignment
        for name, shape, kind, offset in listed:
            if name in self.tensors:
                raise self._build_damage_error(f"it has the tensor {name!r} twice")
            if kind not in (_F32, _F16, _Q8_0):
                raise ExchangeError(
                    f"{self._name} cannot be read: {name} has the number format {kind}, and only F32, F16 and Q8_0 "
                    "can be read; convert it with llama-quantize"
                )
            if kind == _Q8_0 and shape[-1] % 32:
                raise self._build_damage_error(f"{name} has rows of {shape[-1]:,} numbers, which are no blocks of 32")
            size = math.prod(shape) * 34 // 32 if kind == _Q8_0 else math.prod(shape) * (4 if kind == _F32 else 2)
            if start + offset + size > len(self._content):
                raise self._build_damage_error(f"{name} does not end within the file; copy or download it again")
            self.tensors[name] = _Tensor(shape, kind, start + offset, size)

    def _read_tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Return the name, shape, number format and offset of the next tensor in the list."""
        name = self._read_text()
        dimensions = self._read_number("u4")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self._build_damage_error(f"{name} has {dimensions:,} dimensions")
        shape = tuple(self._read_number("u8") for _ in range(dimensions))[::-1]
        return name, shape, self._read_number("u4"), self._read_number("u8")

    def _read_value(self, kind: int) -> Any:
        """Return the next value of a kind."""
        if kind == _STRING:
            return self._read_text()
        if kind != _ARRAY:
            return bool(self._read_number("u1")) if kind == _BOOL else self._read_number(self._name_number(kind))
        kind = self._read_number("u4")
        if kind == _STRING:
            return [self._read_text() for _ in range(self._read_count("texts in a list", _MAX_STRINGS))]
        dtype = np.dtype("<" + self._name_number(kind))
        return np.frombuffer(self._take(self._read_number("u8") * dtype.itemsize), dtype)

    def _name_number(self, kind: int) -> str:
        if kind not in _NUMBERS:
            raise self._build_damage_error(f"a value in its header is of the unknown kind {kind}")
        return _NUMBERS[kind]

    def _read_count(self, what: str, most: int) -> int:
        count = self._read_number("u8")
        if count > most:
            raise self._build_damage_error(f"it says that it has {count:,} {what}")
        return int(count)

    def _read_text(self) -> str:
        return self._take(self._read_number("u8")).decode()

    def _read_number(self, dtype: str) -> Any:
        return np.frombuffer(self._take(int(dtype[1])), "<" + dtype)[0].item()

    def _take(self, size: int) -> bytes:
        """Return the next bytes."""
        if size > len(self._content) - self._at:
            raise self._build_damage_error("its header does not end within the file; copy or download it again")
        self._at += size
        return self._content[self._at - size : self._at]

    def _build_damage_error(self, why: str) -> ExchangeError:
        return ExchangeError(f"{self._name} is damaged: {why}")


@contextmanager
def open_gguf(path: Path) -> Iterator[GGUFFile]:
    """Open a GGUF file within the block.

    Raises:
        ExchangeError: the file is not GGUF, or is damaged.
        FileError: it cannot be opened.
    """
    name = repr(str(path))
    with explain_os_errors("read", path):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ExchangeError(f"{name} is not a file: name a file that ends in .gguf")
        file = path.open("rb")
    with file:
        if file.read(4) != b"GGUF":
            raise ExchangeError(f"{name} is not a GGUF file: its first four bytes are not 'GGUF'")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            yield GGUFFile(content, name)
