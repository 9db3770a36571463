"""What all commands share: exit codes, errors without a traceback, Ctrl-C."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

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
