"""Which device to compute on, and with how many threads."""

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from minigpt.errors import DeviceError, OutOfMemoryError

NUMBERS_PER_THREAD = 2**14  # measured: docs/log.md, "Threads"
M_SIZES = {  # glibc's mallopt: from which size on memory is fetched from the system, and how much of it is kept
    -3: 2**25,  # M_MMAP_THRESHOLD, the most it takes
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD
    -2: 2**26,  # M_TOP_PAD
}


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


def has_fast_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16, without which they are slower than float32's.

    Of processors x86's are asked.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def limit_threads(numbers: int) -> Iterator[int]:
    """Within the block, as many CPU threads as pay where an activation holds `numbers` numbers; yields the count.

    Handing a part of the work to a further thread costs more than it takes off if the part is small.
    PyTorch's own number of threads, the machine's cores or OMP_NUM_THREADS, is never exceeded.
    """
    before = torch.get_num_threads()
    threads = min(before, max(1, numbers // NUMBERS_PER_THREAD))
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep what it frees, for the next step, which needs as much again.

    The C library of Linux otherwise hands the larger pieces back to the system, which has to clear them before it
    gives them out again: a fifth of a small model's step (docs/performance.md). Elsewhere nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in M_SIZES.items():
            mallopt(parameter, size)


@contextmanager
def explain_memory_errors(way_out: str) -> Iterator[None]:
    """Turn PyTorch's various ways to say that memory has run out into one OutOfMemoryError with a way out."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        signs = ("allocate memory", "out of memory", "overflow", "Invalid buffer size")
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in signs):
            raise
        raise OutOfMemoryError(f"that does not fit in memory: {way_out}") from None
