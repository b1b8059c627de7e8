"""Memory that pieces of blobs have used is kept for the next ones."""

import ctypes

KEPT_BYTES = 32 * 1024 * 1024
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of the settings in the GNU C library's `malloc.h`."""


def keep_freed_memory() -> bool:
    """Tells the C library not to give freed memory back to the kernel at once; returns whether it took that.

    Each piece of a transfer is a message and a field of it, a megabyte each. Given back and taken anew, their pages are
    zeroed by the kernel each time, which costs an upload as much processor time as its hash.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of the GNU C library; others do without
    if mallopt is None:
        return False
    return all(mallopt(setting, KEPT_BYTES) == 1 for setting in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
