"""What all commands share: exit codes, errors without a traceback, signals, readers of their output that go away."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from faar_ray import interrupts
from faar_ray.errors import FaarRayError, StorageError
from faar_ray.streams import drop_unread_output

INTERRUPTED = 130


def run_process(main: Callable[[], int]) -> NoReturn:
    """Run a command as this process, and exit with its code."""
    drop_unread_output()
    interrupts.listen()
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # before or after the command's own work
        sys.exit(INTERRUPTED)


def run_command(command: Callable[[], int | None], resume: str = "") -> int:
    """Run a command and give its exit code; an unexpected error keeps its traceback (exit 1).

    Args:
        command: gives its exit code; None is 0.
        resume: the command line that continues an interrupted run, if there is one.
    """
    try:
        code = command() or 0
        sys.stdout.flush()
        return code
    except FaarRayError as error:
        print(error, file=sys.stderr)
        if resume and isinstance(error, StorageError):
            print(f"no trial failed because of this; once it is repaired, continue with:\n  {resume}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted" + (f"; continue with:\n  {resume}" if resume else ""), file=sys.stderr)
        return INTERRUPTED


def refuse_repeats(parser: argparse.ArgumentParser) -> None:
    """Refuse an option with a value that is given twice, of which argparse would silently take the last.

    Args:
        parser: before its options are added.
    """
    parser.register("action", None, _Once)


class _Once(argparse.Action):
    """Stores a value, once."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given: set[str] = namespace.__dict__.setdefault("_given", set())
        if option and self.dest in given:
            parser.error(f"{option}: given twice, takes one value; run the command once for each")
        given.add(self.dest)
        setattr(namespace, self.dest, values)
