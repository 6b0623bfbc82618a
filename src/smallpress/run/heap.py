"""What the C library does with memory that training gives back after every pass: keep it until the step is done.

Left alone, glibc returns what a pass frees to the system, which clears each page before the next pass may have it: a
twelfth of an update's time. Kept for good, holes between arrays of other sizes would add up, step after step.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """From here on freed memory is handed out again, however large the array, until `give_back_freed_memory`. Nothing
    where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_MAX, 0)


def give_back_freed_memory() -> None:
    """To the system, wherever it lies."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
