"""What all commands share: exit codes, errors without a traceback, Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from faar_ray.errors import FaarRayError, StorageError

INTERRUPTED = 130


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
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python's own flush at exit complains
        return 1


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
