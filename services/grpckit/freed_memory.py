"""Memory that a process has used and freed is kept for its next use of the same kind."""

import ctypes

KEPT_BYTES = 32 * 1024 * 1024
"""Larger pieces go back to the kernel when they are freed, whatever is asked for: kept, they would lie in the way of
others and raise the peak (of LoRA in bfloat16 by a fifth)."""
ALL = -1
"""Keeps all of the heap."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Numbers of the settings in the GNU C library's `malloc.h`."""


def keep_freed_memory(heap_bytes: int = KEPT_BYTES, *, heaps: int | None = None) -> bool:
    """Tells the C library not to give freed memory back to the kernel at once; returns whether it took that.

    Given back and taken anew, pages are zeroed by the kernel each time. Each piece of a transfer is a message and a
    field of it, a megabyte each: that costs an upload as much processor time as its hash. A training step frees its
    gradients and activations, and the next one takes them again. A process that is forked later does the same.

    Args:
        heap_bytes: How much of the free end of each heap is kept, or `ALL`.
        heaps: Most heaps that threads take from; None: up to eight for each core, of which each keeps as much as the
            busiest needed. For a process whose pieces go from thread to thread.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of the GNU C library; others do without
    if mallopt is None:
        return False
    settings = {_MMAP_THRESHOLD: KEPT_BYTES, _TRIM_THRESHOLD: heap_bytes}
    if heaps is not None:
        settings[_ARENA_MAX] = heaps
    return all(mallopt(setting, value) == 1 for setting, value in settings.items())
