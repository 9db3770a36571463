"""Why a trial failed, in one sentence out of Ray's error report: what happened and what to change.

A trial that ran out of memory is tried again as `failure.max_retries` says, from its last checkpoint: the same
allocation may succeed once other processes on the machine need less.
"""

from __future__ import annotations

import re

SMALLER = "lower optim.batch_size, compute it in parts by optim.accumulate, or lower data.image_size"
FEWER = f"lower resources.max_concurrent, or {SMALLER}"
ALLOCATION = re.compile(r"^.*(?:MemoryError|allocate memory|out of memory).*$", re.MULTILINE)
WHERE_IN_TORCH = re.compile(r"^(\w+: )?\[enforce fail[^]]*\] (err == 0\. )?")
MONITOR = ("killing policy", "running low on memory")
DEATH = ("worker process has died", "died unexpectedly", "process was killed")


def reason_of_failure(report: str, attempts: int = 1) -> str:
    """One sentence out of what Ray wrote about a trial's failures; the last failure counts.

    Args:
        report: text of Ray's error file, "" where there is none.
        attempts: how often the trial was tried.
    """
    last = re.split(r"^Failure # \d+.*$", report, flags=re.MULTILINE)[-1].strip()
    return _reason(last) + (f" (tried {attempts} times)" if attempts > 1 else "")


def _reason(text: str) -> str:
    if any(sign in text for sign in MONITOR):
        return f"out of memory: the machine was nearly full and Ray ended the trial's process; {FEWER}"
    if lines := ALLOCATION.findall(text):
        message = WHERE_IN_TORCH.sub("", lines[-1].strip())
        return f"out of memory: an allocation failed ({message}); {SMALLER}"
    if not text or any(sign in text for sign in DEATH):
        return f"its process was killed, most likely by the system because memory ran out (see dmesg); {FEWER}"
    return text.splitlines()[-1].strip()
