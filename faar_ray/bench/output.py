"""What the commands share: the folder of a measurement, its messages, its result."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

Notify = Callable[[str], None]


def notifier() -> Notify:
    """Prints messages to stderr, so that stdout holds the result alone."""
    return functools.partial(Console(stderr=True, highlight=False).print, soft_wrap=True)


@contextmanager
def working_folder(args: argparse.Namespace) -> Iterator[Path]:
    """The folder of `--out`, else one that is deleted afterwards."""
    out: Path | None = getattr(args, "out", None)
    with tempfile.TemporaryDirectory(prefix="faar-ray-bench-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch) if out is None else out.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def print_result(args: argparse.Namespace, result: dict[str, Any], *renderables: Any) -> None:
    """One JSON object with `--json`, else what a person reads."""
    if args.json:
        print(json.dumps(result))
    else:
        Console().print(*renderables, sep="\n")
