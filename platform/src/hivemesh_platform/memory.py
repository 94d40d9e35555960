"""Tells the C library to give large blocks back, so that batches leave no lasting mark in memory.

Measured on runs of 15,000 messages: 205 MiB resident by default, 154 MiB with these settings. The
settings belong to glibc; other C libraries have none and need none.
"""

import ctypes

_ARENA_MAX = -8
_MMAP_THRESHOLD = -3
_TRIM_THRESHOLD = -1
ARENAS = 2  # each thread would get an arena of its own, and keep in it what it ever needed
LARGE = 1024 * 1024  # mapped and unmapped by itself; a fixed size keeps glibc from raising it
TRIM = 4 * 1024 * 1024


def settle() -> bool:
    """Set the allocator up, before threads are started; says whether it could be done."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_ARENA_MAX, ARENAS), (_MMAP_THRESHOLD, LARGE), (_TRIM_THRESHOLD, TRIM))
    return all(mallopt(name, value) == 1 for name, value in settings)
