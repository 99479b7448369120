"""Memory that is freed in one step is taken again in the next, and not returned in between."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# glibc's mallopt: parameters, and the values that it comes to by itself after freeing large blocks.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4
_KEEPING = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 2**26}
_USUAL = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 2**25, _M_TRIM_THRESHOLD: 2**26, _M_TOP_PAD: 2**17}

_lock = threading.Lock()
_n_users = 0


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Have the C library keep what is freed inside the block, for the next allocation.

    torch allocates every activation on the CPU with malloc. glibc maps each large block anew and
    unmaps it when it is freed, so the kernel clears the same pages in every step: on small images
    that took as long as the arithmetic (docs/performance.md). GPUs have torch's own caching
    allocator for this. At the end everything free is returned to the system.

    Does nothing where the C library is another.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        yield
        return
    global _n_users
    with _lock:
        _n_users += 1
        if _n_users == 1:
            for parameter, value in _KEEPING.items():
                mallopt(parameter, value)
    try:
        yield
    finally:
        with _lock:
            _n_users -= 1
            if _n_users == 0:
                for parameter, value in _USUAL.items():
                    mallopt(parameter, value)
                ctypes.CDLL(None).malloc_trim(0)
