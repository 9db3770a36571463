"""What all commands share: exit codes, errors without a traceback, signals, unread output, hidden passwords."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from faar_ray import interrupts
from faar_ray.config.run_sections import TRACKING_URI
from faar_ray.config.secrets import take_credentials, without_secrets
from faar_ray.config.yaml_document import read_override
from faar_ray.errors import ConfigError, FaarRayError, StorageError
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


def hide_passwords() -> None:
    """Start this process anew where its arguments hold a tracking URI with a password, now in the environment.

    Otherwise every list of processes shows it, and so do Ray's logs, which quote the driver's command line.
    """
    uris = {text: list(_uris_with_password(text)) for text in sys.orig_argv}
    if not any(uris.values()):
        return

    for uri in (uri for found in uris.values() for uri in found):
        take_credentials(uri)
    sys.stdout.flush()
    os.execv(sys.executable, [without_secrets(text) if found else text for text, found in uris.items()])


def _uris_with_password(argument: str) -> Iterator[str]:
    """The tracking URIs of that kind that an argument is or holds: `URI`, `--option=URI`, `key=YAML`."""
    if without_secrets(argument) == argument:
        return
    try:
        values = _texts(read_override(argument)[1])
    except ConfigError:
        values = iter(())
    for text in dict.fromkeys((argument, argument.partition("=")[2], *values)):
        if TRACKING_URI.match(text) and without_secrets(text) != text:
            yield text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for below in value.values() if isinstance(value, dict) else value:
            yield from _texts(below)


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
