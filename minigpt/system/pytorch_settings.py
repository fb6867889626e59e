"""PyTorch's global settings, which a caller of the Python API may have changed."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_AUTOCAST_DEVICES = ("cpu", "cuda", "mps")


@contextmanager
def use_pytorch_defaults() -> Iterator[None]:
    """Run the block in float32 with gradients and without autocast, and put the caller's settings back.

    The caller's random numbers go on as if the block had not run. It also works as a decorator.
    """
    dtype = torch.get_default_dtype()
    cuda_devices = [*range(torch.cuda.device_count())]
    with torch.random.fork_rng(cuda_devices), torch.inference_mode(False), torch.enable_grad(), _leave_autocast():
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


@contextmanager
def _leave_autocast() -> Iterator[None]:
    """Switch the caller's autocast off within the block.

    Autocast caches cast weights until the outermost autocast block ends. Inside the caller's block, a training run
    would reuse the cast weights of its first step. So the cache is off in this block.
    """
    is_nested = torch.autocast_increment_nesting() > 1
    torch.autocast_decrement_nesting()
    keeps = torch.is_autocast_cache_enabled()
    enabled = [name for name in _AUTOCAST_DEVICES if torch.is_autocast_enabled(name)]
    try:
        if is_nested:
            torch.set_autocast_cache_enabled(False)
        for name in enabled:
            torch.set_autocast_enabled(name, False)
        yield
    finally:
        torch.set_autocast_cache_enabled(keeps)
        for name in enabled:
            torch.set_autocast_enabled(name, True)
