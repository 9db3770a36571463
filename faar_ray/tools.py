"""Commands to type next, as they work in this environment and this folder."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from faar_ray.config.secrets import is_server, without_secrets


def tool_command(name: str) -> str:
    """`mlflow` if the shell finds this environment's program by that name, else its path, relative if it is below."""
    program = Path(sys.executable).parent / name
    on_path = shutil.which(name)
    if not program.exists() or (on_path and Path(on_path).parent == program.parent):
        return name
    relative = os.path.relpath(program)
    return str(program) if relative.startswith("..") else relative


def shell_command(words: Sequence[str]) -> str:
    """A command line to type, without passwords."""
    return shlex.join(map(without_secrets, words))


def where_to_look(tracking_uri: str, experiment_id: str, run_id: str = "") -> str:
    """The page of an experiment, or of a run, on a server; else the command that shows a database's runs.

    The command has no argument where MLflow finds the database by itself.
    """
    if is_server(tracking_uri):
        return f"{tracking_uri}/#/experiments/{experiment_id}" + (f"/runs/{run_id}" if run_id else "")
    if tracking_uri.replace("%3F", "?").replace("%25", "%") == f"sqlite:///{Path.cwd() / 'mlflow.db'}":
        return f"{tool_command('mlflow')} ui"
    return f"{tool_command('mlflow')} ui --backend-store-uri {shlex.quote(tracking_uri)}"
