"""The device to compute on, its threads and its memory."""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from minigpt.errors import DeviceError, OutOfMemoryError
from minigpt.system.cpus import count_cpus
from minigpt.system.fork_detector import ForkDetector

ELEMENTS_PER_THREAD = 2**14  # measured: docs/log.md, "Threads"
_MALLOPT = {  # glibc: keep freed memory instead of returning it to the system
    -3: 2**25,  # M_MMAP_THRESHOLD: blocks from this size on come from the system directly; 32 MiB is the largest value
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: free memory at the end of the heap that is kept
    -2: 2**26,  # M_TOP_PAD: how much more memory than needed is requested at a time
}
_openmp_threads = ForkDetector()  # marked where `limit_threads` allowed several threads
_OUT_OF_MEMORY_SIGNS = ("allocate memory", "out of memory", "overflow", "Invalid buffer size")


def pick_device(name: str = "auto") -> torch.device:
    """Return the device with a name.

    Args:
        name: "cuda", "mps", "cpu", or "auto" for the first of these that the machine has.

    Raises:
        DeviceError: the machine does not have it.
    """
    has = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    available = [device for device in has if has[device]]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise DeviceError(f"the device '{name}' is not available on this machine: choose from {', '.join(available)}")
    return torch.device(name)


def describe_device(device: torch.device) -> str:
    """Return the kind of a device, and for a GPU its name: "cuda (NVIDIA H100)"."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def has_fast_bf16(device: torch.device) -> bool:
    """Return True if the device has instructions for bfloat16 products; without them float32 is faster.

    On a CPU only x86 is recognized.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities: dict = getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def limit_threads(activation_size: int, threads: int = 0, cpus: int | None = None) -> Iterator[int]:
    """Limit PyTorch's CPU threads within the block. Small operations are slower on several threads.

    A process that was forked from one with several threads gets one thread: those of its parent are gone, and GNU's
    OpenMP would wait for them forever.

    Args:
        activation_size: elements of one activation tensor. There is one thread for each 2**14 elements, and never more
            than PyTorch's setting: the number of cores, or OMP_NUM_THREADS.
        threads: the number of threads, whatever the size and the CPUs are; 0 computes it from them.
        cpus: how many CPUs this process may use, which limits the threads too unless OMP_NUM_THREADS is set; None
            counts them.

    Yields:
        The number of threads.
    """
    before = torch.get_num_threads()
    if not threads:
        threads = min(before, max(1, activation_size // ELEMENTS_PER_THREAD))
        if threads > 1 and "OMP_NUM_THREADS" not in os.environ:  # one thread needs no count of CPUs
            threads = min(threads, cpus or count_cpus())
    if _openmp_threads.is_forked:
        threads = 1
    elif threads > 1:
        _openmp_threads.mark_started()
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory for the next training step.

    Linux's C library otherwise returns large blocks to the system, which must clear them before they can be used again:
    that takes a fifth of a small model's step (docs/performance.md). On other systems nothing happens.
    """
    with suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, size in _MALLOPT.items():
            mallopt(parameter, size)


@contextmanager
def explain_memory_errors(way_out: str) -> Iterator[None]:
    """Turn PyTorch's different errors for a lack of memory, raised within the block, into an OutOfMemoryError.

    Args:
        way_out: what the user can do, for the message.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error) for sign in _OUT_OF_MEMORY_SIGNS):
            raise
        raise OutOfMemoryError(f"the model and its batch do not fit in memory: {way_out}") from None
