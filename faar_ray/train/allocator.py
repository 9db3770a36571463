"""Freed memory stays with the process: a step allocates what the step before it freed."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = -1
LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to give activations back to the system; whether it listened.

    It maps every block above 32 MB anew by default, and the system then clears it page by page: 10% of a floor step
    and 20% of a step with task streams (Swin-T, 448x448). Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, NEVER))
