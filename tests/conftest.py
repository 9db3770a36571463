"""What all tests share: one thread, and a cache that is not the user's."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import hypothesis
import pytest
import torch

from .commands import wait_until_healthy

# a busy machine is no fault of the code: pytest's own timeout is the only clock
hypothesis.settings.register_profile("faar_ray", deadline=None)
hypothesis.settings.load_profile("faar_ray")


CHROMIUM_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
)  # fmt: skip
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",  # any will do there
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs an accelerator where there is none, and the long sweeps unless `FAAR_RAY_NIGHTLY` is set."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no accelerator that torch.cuda sees"))
    if os.environ.get("FAAR_RAY_NIGHTLY"):
        return
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="long: FAAR_RAY_NIGHTLY=1, or .ci/nightly"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data and references that tests make go to a folder of their own."""
    folder = tmp_path_factory.mktemp("faar_ray_cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAAR_RAY_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_tracking_server() -> Iterator[None]:
    """What tests track goes to databases of their own, not to the user's server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("URI", "USERNAME", "PASSWORD", "TOKEN"):
            patch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        yield


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
        wait_until_healthy(address)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """moto's server on loopback, a stand-in for S3: its address."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh, empty bucket on the stand-in: its URI; the environment leads there, also that of processes started."""
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}"


@pytest.fixture(scope="session")
def chromium() -> Callable[..., str]:
    """Runs headless Chromium, `chromium(profile folder, *arguments)`; gives what it printed."""
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if binary is None:
        pytest.skip("no Chromium on PATH (apt-get install chromium)")

    def run(profile: Path, *arguments: str) -> str:
        command = [binary, *CHROMIUM_FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    return run


@pytest.fixture(scope="session")
def mlflow_ui() -> Callable[[Path], AbstractContextManager[str]]:
    """`serve_mlflow`, for the tests that look at what MLflow shows."""
    return serve_mlflow


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite database with MLflow's tables; a copy takes a moment, a new one seconds."""
    from faar_ray.tracking.mlflow.writer import Tracker

    folder = tmp_path_factory.mktemp("mlflow")
    Tracker(f"sqlite:///{folder}/mlflow.db", "empty")
    return folder / "mlflow.db"
