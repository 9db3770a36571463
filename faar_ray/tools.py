"""Commands to type next, as they work in this environment and this folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def tool_command(name: str) -> str:
    """`mlflow` if the shell finds this environment's program by that name, else its path, relative if it is below."""
    program = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    if not program.exists() or (on_path and Path(on_path).parent == program.parent):
        return name
    relative = os.path.relpath(program)
    return str(program) if relative.startswith("..") else relative


def ui_command(tracking_uri: str) -> str:
    """The command that shows the runs; without an argument where MLflow finds the database by itself."""
    if tracking_uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}":
        return f"{tool_command('mlflow')} ui"
    return f"{tool_command('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}"
