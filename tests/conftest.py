"""What all tests share: one thread, and a cache that is not the user's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch

# a busy machine is no fault of the code: pytest's own timeout is the only clock
hypothesis.settings.register_profile("faar_ray", deadline=None)
hypothesis.settings.load_profile("faar_ray")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data and references that tests make go to a folder of their own."""
    folder = tmp_path_factory.mktemp("faar_ray_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAAR_RAY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Bit-for-bit tests need a fixed number of threads, and the machine may be shared."""
    torch.set_num_threads(1)


@contextmanager
def serve_mlflow(folder: Path) -> Iterator[str]:
    """A plain `mlflow ui` in a folder; gives its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{probe.getsockname()[1]}"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "ui", "--port", address.rpartition(":")[2], "--workers", "1"],
        cwd=folder, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture(scope="session")
def mlflow_ui() -> Callable[[Path], AbstractContextManager[str]]:
    """`serve_mlflow`, for the tests that look at what MLflow shows."""
    return serve_mlflow
