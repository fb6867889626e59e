"""The decorators that compile the loops with Numba, and the cache of the compiled code."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import njit

SETTINGS = vars(numba.config)
MAX_PARTS = 2  # of a layer, each with a thread


def _has_openmp() -> bool:
    """Return True if Numba can start threads by OpenMP. That takes 2 microseconds; its own thread pool takes 100."""
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return SETTINGS["THREADING_LAYER"] in ("default", "omp")


if _has_openmp():
    SETTINGS["THREADING_LAYER"] = "omp"
SETTINGS["NUMBA_NUM_THREADS"] = min(SETTINGS["NUMBA_NUM_THREADS"], MAX_PARTS)  # Numba starts that many at once

# These options let the compiler use vectors: it may reorder sums, and a division by zero is no error. Infinities are
# still treated correctly.
FAST: dict[str, Any] = {"cache": True, "fastmath": {"reassoc", "contract", "nsz", "arcp"}, "error_model": "numpy"}
NO_ALLOCATION: dict[str, Any] = FAST | {"_nrt": False}  # without allocations, arrays need no reference counts


def njit_cached(**options: Any) -> Callable[[Callable], Any]:
    """Return a decorator that compiles a function and caches the result in a directory for this version of the loops.

    A compiled function contains all functions that it calls, but Numba's cache checks only the function's own file.
    """

    def decorate(function: Callable) -> Any:
        before = SETTINGS["CACHE_DIR"]
        SETTINGS["CACHE_DIR"] = str(
            Path(before or Path(__file__).parent / "__pycache__") / f"compiled-{hash_sources()}"
        )
        try:
            return njit(**options)(function)
        finally:
            SETTINGS["CACHE_DIR"] = before

    return decorate


@functools.cache
def hash_sources() -> str:
    """Return the first 16 digits of the SHA-256 of the files with compiled functions."""
    here = Path(__file__).parent
    mixing = here.parent / "model" / "context_mixing"  # numba_context_mixing.py compiles these
    files = [*sorted(here.glob("numba_*.py")), *sorted(mixing.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


njit_fast = njit_cached(**NO_ALLOCATION)
njit_inner = njit_cached(**NO_ALLOCATION, no_cpython_wrapper=True, no_cfunc_wrapper=True)  # Python cannot call these
njit_allocating = njit_cached(**FAST)
njit_inner_allocating = njit_cached(**FAST, no_cpython_wrapper=True, no_cfunc_wrapper=True)
njit_parallel = njit_cached(**FAST, parallel=_has_openmp())  # for a function with a `prange`
njit_exact = njit_cached(cache=True, error_model="numpy")
