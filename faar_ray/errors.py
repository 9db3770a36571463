"""Errors that a person can repair: the commands print them without a traceback and exit with their code.

FaarRayError            1
├── StorageError        1   results cannot be stored: a full disk, a lost bucket
├── ConfigError         2   a config, a search space or a command line
├── DataError           2   a data set or a checkpoint on disk
├── TooManyFailures     3   more than `failure.max_failures`
└── NothingFeasible     4   no finished trial satisfies the constraints
"""

from __future__ import annotations

from collections.abc import Sequence


class FaarRayError(Exception):
    """Base of all errors with a message for people."""

    exit_code = 1


class ConfigError(FaarRayError):
    """One or more faults in a config or command line; `faults` holds one line for each."""

    exit_code = 2

    def __init__(self, faults: str | Sequence[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
        super().__init__("\n".join(self.faults))


class DataError(FaarRayError):
    """A data set, shard or checkpoint that is missing, damaged or not of the expected kind."""

    exit_code = 2


class StorageError(FaarRayError):
    """Results cannot be stored; no trial failed because of it, and `--resume` continues."""


class TooManyFailures(FaarRayError):
    """More trials failed than `failure.max_failures` allows."""

    exit_code = 3


class NothingFeasible(FaarRayError):
    """No trial finished that satisfies all constraints."""

    exit_code = 4
