"""Files of tensors, safetensors: opened with suspicion, as they may be a stranger's."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors

from minigpt.errors import InputError

LARGEST_HEADER = 2**22  # bytes, tens of thousands of tensors: each of them takes a while, whatever is in it


@contextmanager
def open_safetensors(path: Path, error: type[InputError]) -> Iterator[Any]:
    """A safetensors file, opened; that error for one that is none, or that has more tensors than any model here."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")  # of the header
        if size > LARGEST_HEADER:
            raise error(
                f"{str(path)!r} cannot be read as safetensors: its header has {size:,} bytes, too many to be one"
            )
        with safetensors.safe_open(path, framework="pt") as tensors:
            yield tensors
    except (safetensors.SafetensorError, OSError) as found:
        raise error(f"{str(path)!r} cannot be read as safetensors: {found}") from None
