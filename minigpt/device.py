"""Which device to compute on, and with how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from minigpt.errors import DeviceError, MemoryShortError

NUMBERS_A_THREAD = 2**14  # measured: docs/log.md, "Threads"


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" is CUDA, else MPS, else the CPU. Raises DeviceError if it isn't there."""
    available = [
        device
        for device, there in (
            ("cuda", torch.cuda.is_available()),
            ("mps", torch.backends.mps.is_available()),
            ("cpu", True),
        )
        if there
    ]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise DeviceError(f"the device '{name}' is not available on this machine: choose from {', '.join(available)}")
    return torch.device(name)


@contextmanager
def threads_for(numbers: int) -> Iterator[int]:
    """Within the block, as many CPU threads as pay where an activation holds `numbers` numbers; yields the count.

    Handing a part of the work to a further thread costs more than it takes off if the part is small.
    PyTorch's own number of threads, the machine's cores or OMP_NUM_THREADS, is never exceeded.
    """
    before = torch.get_num_threads()
    threads = min(before, max(1, numbers // NUMBERS_A_THREAD))
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_explained(way_out: str) -> Iterator[None]:
    """Turn PyTorch's various ways to say that memory has run out into one MemoryShortError with a way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        signs = ("allocate memory", "out of memory", "overflow", "Invalid buffer size")
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in signs):
            raise
        raise MemoryShortError(f"that does not fit in memory: {way_out}") from None
