"""The package's commands as real processes, from wherever the tests run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
"""The root of the checkout."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the checkout's package on the path of Python."""
    path = os.pathsep.join(part for part in (str(SOURCE), os.environ.get("PYTHONPATH")) if part)
    return {**os.environ, "PYTHONPATH": path, **(more or {})}


def start_command(
    module: str, folder: Path, *arguments: str, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start `python -m faar_ray.<module> ...` in a folder; its streams are pipes unless `options` say otherwise."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", f"faar_ray.{module}", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment(env), text=True, **(pipes | options))


def run_command(
    module: str, folder: Path, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run `python -m faar_ray.<module> ...` in a folder to its end."""
    command = [sys.executable, "-m", f"faar_ray.{module}", *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(env), capture_output=True, text=True, timeout=timeout, check=False
    )


def run_tune(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the search of `space.yaml` in a folder to its end."""
    return run_command("tune", folder, "space.yaml", *arguments, env=env)


def wait_until_healthy(address: str) -> None:
    """Wait until an MLflow server answers; two minutes at most."""
    for _ in range(240):
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
