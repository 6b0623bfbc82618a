"""What the C library does with memory that training gives back after every pass: keep it."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let malloc hand out freed pages again, however large the array, instead of giving them to the system, which would
    clear each of them before the next pass may have it: a twelfth of an update's time. Nothing where the C library is
    not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_MAX, 0)
