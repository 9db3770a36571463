"""Peak memory of a stretch of work: of an accelerator what torch allocated, else what of the process was resident.

A worker that is used again must not be charged for the trials before it, nor training for the evaluation before it:
what was freed and kept by malloc (see `allocator`) goes back to the system first, and the high-water mark falls to what
is in use now.
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
    """From here on; `mb` is the most that was in use since.

    Without a mark that can be reset (elsewhere than on Linux) it is what is resident when `mb` is asked: where malloc
    keeps what it frees, that is the peak too.
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
    """Freed memory that glibc's malloc holds goes back to the system; nothing elsewhere."""
    with suppress(AttributeError, OSError, TypeError):  # another C library, another system
        ctypes.CDLL(None).malloc_trim(0)


def own_peak_mb() -> float:
    """Largest resident memory of this process, MiB; on Linux of this program alone (getrusage counts the parent's)."""
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
