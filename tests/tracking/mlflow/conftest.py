"""A real tracker over a sqlite database that tests lock and move, with short waits."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from faar_ray.tracking.mlflow.writer import Tracker


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def until() -> Callable[[Callable[[], Any]], None]:
    """Waits until something is true."""

    def wait(condition: Callable[[], Any], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return wait


@pytest.fixture
def local_tracker(tmp_path: Path, empty_mlflow: Path) -> Tracker:
    """With a search open in `tmp_path/db/mlflow.db`."""
    (tmp_path / "db").mkdir()
    shutil.copyfile(empty_mlflow, tmp_path / "db" / "mlflow.db")
    tracker = Tracker(f"sqlite:///{tmp_path}/db/mlflow.db", "rho")
    tracker.start_search("rho", "name: rho\n", {})
    return tracker


@pytest.fixture
def locked() -> Callable[[Path], Any]:
    """Context in which another process holds a whole database; gives the function that ends it."""

    @contextmanager
    def hold(database: Path) -> Iterator[Callable[[], None]]:
        code = (
            "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); "
            "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); sys.stdin.read()"
        )
        command = [sys.executable, "-c", code, str(database)]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert holder.stdin and holder.stdout and holder.stdout.readline() == "locked\n"

        def release() -> None:
            holder.stdin.close()
            holder.wait(20)

        try:
            yield release
        finally:
            if holder.poll() is None:
                release()

    return hold


@pytest.fixture
def short_lock_wait() -> Iterator[None]:
    """sqlite waits 0.2 s for a lock, not MLflow's 20 s."""

    def shorter(conn: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> tuple[str, Any]:
        return statement.replace("busy_timeout = 20000", "busy_timeout = 200"), parameters

    event.listen(Engine, "before_cursor_execute", shorter, retval=True)
    yield
    event.remove(Engine, "before_cursor_execute", shorter)
