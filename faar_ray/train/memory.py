"""Peak memory of a stretch of work: what torch allocated on an accelerator, else the process's resident memory.

A process trains one trial after another, and evaluates between epochs. So that neither counts for the next stretch,
memory that malloc keeps goes back to the system first, and the high-water mark is reset.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import torch

STATUS, MARKS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORGET_PEAK = "5"
MIB = 2**20


class PeakMemory:
    """Measures from its creation on; `mb` is the most that was in use since.

    Only Linux has a high-water mark that can be reset. Elsewhere `mb` is the resident memory at the time of the call,
    which is the peak too if malloc keeps what is freed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._marked = False
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        trim_malloc()
        with suppress(OSError):
            MARKS.write_text(FORGET_PEAK)
            self._marked = True

    def mb(self) -> float:
        """In MiB."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / MIB
        return own_peak_mb() if self._marked else psutil.Process().memory_info().rss / MIB


def trim_malloc() -> None:
    """Give memory that glibc's malloc keeps back to the system; does nothing with another C library."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


def own_peak_mb() -> float:
    """Largest resident memory of this process, MiB; on Linux without the parent's, which getrusage counts."""
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = -1
LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Make glibc's malloc keep freed memory; False with another C library.

    By default it maps every block above 32 MB anew, and the system clears it page by page: 10% of a floor step's time
    and 20% of a step with task streams (Swin-T, 448x448).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, NEVER))
