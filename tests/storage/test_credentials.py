"""Where the credentials of an S3 store come from: the chain of the AWS libraries, each link of it."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from faar_ray.errors import StorageError
from faar_ray.storage.object_store import ObjectStore

ROLE = {"AccessKeyId": "ROLEKEY", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}


class Handler(BaseHTTPRequestHandler):
    """An empty bucket and the metadata server of a machine."""

    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        signed = re.search(r"Credential=([^/]+)/\d+/([^/]+)/", self.headers.get("Authorization") or "")
        if signed:
            self.server.signed = signed.groups()
        answers = {"/latest/meta-data/iam/security-credentials/": "role"}
        answers["/latest/meta-data/iam/security-credentials/role"] = json.dumps(ROLE | {"Code": "Success"})
        answers |= {"/latest/api/token": "token", "/bucket": "<ListBucketResult/>"}
        body = answers.get(self.path.partition("?")[0], "").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


class Server(ThreadingHTTPServer):
    """Keeps the key and the region that the last request was signed with."""

    daemon_threads = True
    signed: tuple[str, ...] = ()


@pytest.fixture
def server(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()


def write_profiles(home: Path) -> None:
    (home / ".aws").mkdir()
    keys = "[{}]\naws_access_key_id = {}\naws_secret_access_key = s\n"
    (home / ".aws/credentials").write_text(keys.format("default", "FILEKEY") + keys.format("other", "OTHERKEY"))
    (home / ".aws/config").write_text("[default]\nregion = eu-central-1\n[profile other]\nregion = eu-west-1\n")


def signed_with(server: Server) -> tuple[str, ...]:
    assert ObjectStore("s3://bucket/runs").files() == {}
    return server.signed


def test_keys_of_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert signed_with(server) == ("ENVKEY", "eu-north-1")


def test_a_profile_with_its_region(server: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_profiles(home)
    assert signed_with(server) == ("FILEKEY", "eu-central-1")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert signed_with(server) == ("OTHERKEY", "eu-west-1")


def test_keys_of_the_environment_go_before_a_profile(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(home)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ENVKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert signed_with(server) == ("ENVKEY", "eu-north-1")


def test_a_profile_without_boto3_says_what_to_install(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_profiles(home)
    monkeypatch.setitem(sys.modules, "obstore.auth.boto3", None)
    with pytest.raises(StorageError, match=r"an AWS profile needs boto3: pip install boto3"):
        ObjectStore("s3://bucket/runs")


def test_the_role_of_the_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert signed_with(server)[0] == "ROLEKEY"


def test_a_web_identity_is_exchanged_at_the_token_service(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "token").write_text("jwt")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(home / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/x")
    with socket.create_server(("127.0.0.1", 0)) as tokens, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"https://127.0.0.1:{tokens.getsockname()[1]}")
        listing = pool.submit(ObjectStore("s3://bucket/runs", attempts=1).files)
        connection, _ = tokens.accept()
        assert connection.recv(1) == b"\x16"  # TLS, which obstore insists on there
        connection.close()
        with pytest.raises(StorageError):
            listing.result()
