"""The next command to type, as it works in this environment and this folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def tool_command(name: str) -> str:
    """`mlflow` where the shell finds this environment's own one by that name, else its path, short where it can be."""
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not own.exists() or (found and os.path.samefile(found, own) and Path(found).parent == own.parent):
        return name
    short = os.path.relpath(own)
    return str(own) if short.startswith("..") else short


def ui_command(tracking_uri: str) -> str:
    """How MLflow shows the runs; without an argument where it finds the database by itself."""
    if tracking_uri == f"sqlite:///{Path.cwd() / 'mlflow.db'}":
        return f"{tool_command('mlflow')} ui"
    return f"{tool_command('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}"
