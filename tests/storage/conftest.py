"""Stand-ins for the three clouds' object storage, and what tests of the storage share."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import shutil
import subprocess
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from .gcs_server import Server, gcs_server

AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's own
SERVERS = {"s3": "AWS_ENDPOINT_URL_S3", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}


@pytest.fixture
def atomic_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """`s3`, where moto checks the condition of a PUT and stores its object in one step, as S3 does."""
    from moto.s3.responses import S3Response

    put_object, lock = S3Response.put_object, threading.Lock()

    def put_alone(response: S3Response) -> object:
        with lock:
            return put_object(response)

    monkeypatch.setattr(S3Response, "put_object", put_alone)
    return s3


@pytest.fixture(scope="session")
def gs_server() -> Iterator[Server]:
    with gcs_server() as server:
        yield server


@pytest.fixture
def gs(gs_server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty bucket on the stand-in for Google Cloud Storage: its URI."""
    monkeypatch.setenv("GOOGLE_BASE_URL", f"http://127.0.0.1:{gs_server.server_port}")
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "testing")
    bucket = f"bucket-{uuid.uuid4().hex[:12]}"
    gs_server.buckets[bucket] = {}
    return f"gs://{bucket}"


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    """Azurite, Microsoft's emulator of Azure's blobs: the account's address."""
    binary = shutil.which("azurite-blob")
    if binary is None:
        pytest.skip("no azurite-blob on PATH (npm install -g azurite)")
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    process = subprocess.Popen([binary, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = next(filter(None, (re.search(r"listens on (http://\S+)", line) for line in process.stdout)))
        yield f"{address[1]}/{AZURE_ACCOUNT}"
    finally:
        process.kill()
        process.wait(30)


@pytest.fixture
def az(azurite: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty container on Azurite: its URI."""
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURE_KEY)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", azurite)
    container = f"container-{uuid.uuid4().hex[:12]}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "\n".join(["PUT", *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())])
    signed += f"\n/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{container}\nrestype:container"
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    request = urllib.request.Request(f"{azurite}/{container}?restype=container", method="PUT", headers=headers)
    urllib.request.urlopen(request).close()
    return f"az://{container}"


@pytest.fixture(params=["atomic_s3", "gs", "az"])
def bucket(request: pytest.FixtureRequest) -> str:
    """An empty bucket of each kind: its URI."""
    uri: str = request.getfixturevalue(request.param)
    return uri


class Forbidding(BaseHTTPRequestHandler):
    """A server that refuses every request."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def forbidding() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Forbidding) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without AWS profiles, and an environment without AWS keys."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path
