"""A folder and its twin in object storage; moto's server on loopback stands in for S3."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage import object_store as remote_module
from faar_ray.storage.object_store import ATTEMPTS_AT_START, Remote
from faar_ray.storage.remote_copy import NO_REMOTE, Mirror
from faar_ray.storage.run_location import RunLocation, download_run, location_of, location_of_uri


@pytest.fixture
def mirror(s3: str, tmp_path: Path) -> Mirror:
    return Mirror(f"{s3}/runs/rho", tmp_path / "here")


def put(mirror: Mirror, name: str, data: bytes) -> Path:
    path = mirror.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(mirror: Mirror) -> set[str]:
    return set(mirror.remote.files())


FILES = {"trials/a/checkpoints/epoch_0000.pt": os.urandom(3_000_000), "trials/a/config.yaml": b"x: 1\n", "empty": b""}


def test_what_is_pushed_is_pulled_elsewhere(mirror: Mirror, tmp_path: Path) -> None:
    for name, data in FILES.items():
        put(mirror, name, data)
    mirror.push("trials/a", "empty")
    there = Mirror(mirror.uri, tmp_path / "there")
    there.pull("")
    assert {name: (there.folder / name).read_bytes() for name in FILES} == FILES
    assert names(mirror) == set(FILES)


def test_only_what_changed_is_sent_or_fetched(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        put(mirror, name, data)
    mirror.push("")
    moved: list[str] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def move(remote: Remote, name: str, *rest: Any) -> Any:
            moved.append(name)
            return original(remote, name, *rest)

        return move

    monkeypatch.setattr(Remote, "upload", counted(Remote.upload))
    monkeypatch.setattr(Remote, "download", counted(Remote.download))
    mirror.push("")
    mirror.pull("")
    assert moved == []
    put(mirror, "empty", b"longer")
    put(mirror, "trials/a/config.yaml", b"x: 2\n")  # of the same size
    mirror.push("")
    assert sorted(moved) == ["empty", "trials/a/config.yaml"]
    assert mirror.remote.read("trials/a/config.yaml") == b"x: 2\n"


def test_what_is_dropped_here_is_dropped_there_and_the_reverse(mirror: Mirror) -> None:
    for epoch in range(3):
        put(mirror, f"trials/a/epoch_{epoch}", bytes([epoch]))
    put(mirror, "trials/b/epoch_0", b"another's")
    mirror.push("trials")
    (mirror.folder / "trials/a/epoch_0").unlink()
    mirror.push("trials/a")
    assert names(mirror) == {"trials/a/epoch_1", "trials/a/epoch_2", "trials/b/epoch_0"}
    put(mirror, "trials/a/epoch_9", b"of an earlier run of this name")
    mirror.pull("trials/a")
    assert not (mirror.folder / "trials/a/epoch_9").exists()
    assert (mirror.folder / "trials/b/epoch_0").exists()


def test_the_twin_wins_where_both_changed(mirror: Mirror, tmp_path: Path) -> None:
    path = put(mirror, "study.log", b"one\n")
    mirror.push("study.log")
    other = Mirror(mirror.uri, tmp_path / "other")
    put(other, "study.log", b"one\ntwo\n")
    other.push("study.log")
    path.write_bytes(b"one\nowt\n")
    mirror.pull("study.log")
    assert path.read_bytes() == b"one\ntwo\n"


def test_locks_and_temporary_files_stay_here(mirror: Mirror) -> None:
    for name in (".lock", ".ray/x", "trials/a/.config.yaml.12.tmp", "trials/a/config.yaml"):
        put(mirror, name, b"x")
    mirror.push("")
    assert names(mirror) == {"trials/a/config.yaml"}


def test_what_is_not_there_is_pulled_as_nothing(mirror: Mirror) -> None:
    mirror.pull("trials/a", "rank_trace/a.parquet")
    NO_REMOTE.pull()
    NO_REMOTE.push()
    assert not mirror.folder.exists()


def test_a_local_path_has_no_twin_and_a_uri_has_a_working_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert location_of("./runs", "rho") == RunLocation(tmp_path / "runs" / "rho")
    there = location_of(f"{s3}/runs/", "rho")
    assert str(there) == f"{s3}/runs/rho"
    assert there.path.name == "rho"
    assert there.path != location_of_uri(there.uri, reading=True).path
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert location_of_uri(there.uri).path != there.path  # the same bucket's name at another server is another bucket


def test_a_trials_twin_holds_all_its_files(s3: str, tmp_path: Path) -> None:
    uri = f"{s3}/runs/rho"
    here, there = (RunLocation(tmp_path / name, uri).trial("t000-s0") for name in ("here", "there"))
    for path in (here.adapter, here.epochs, here.trace, here.sines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    here.remote_copy.push()
    there.remote_copy.pull()
    for path in (there.adapter, there.epochs, there.trace, there.sines):
        assert path.read_text() == path.name


def test_a_reader_takes_nothing_from_the_working_copy(mirror: Mirror, s3: str) -> None:
    put(mirror, "results.parquet", b"of now")
    mirror.push("results.parquet")
    read = download_run(mirror.uri, "results.parquet")
    assert (read.path / "results.parquet").read_bytes() == b"of now"
    shutil.rmtree(read.path)
    with pytest.raises(ConfigError, match="has no report"):
        download_run(mirror.uri, "report")


def told_at_start(uri: str) -> str:
    began = time.monotonic()
    with pytest.raises(ConfigError) as told:
        Remote(uri, ATTEMPTS_AT_START).check()
    assert time.monotonic() - began < 25
    assert str(told.value).startswith("storage.path: s3://")
    assert "testing" not in str(told.value)  # the stand-in's key
    return str(told.value)


def test_a_bucket_that_is_not_there_is_named(s3: str) -> None:
    assert "there is no bucket nobody-s-bucket at http://127" in told_at_start("s3://nobody-s-bucket/x/rho")


def test_an_endpoint_where_nobody_answers_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "at http://127.0.0.1:9" in told_at_start(f"{s3}/x/rho")


def test_an_endpoint_that_never_answers_is_given_up(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "REQUEST_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "Timeout" in told_at_start(f"{s3}/x/rho")


class Forbidding(BaseHTTPRequestHandler):
    """A server that lets nobody in."""

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


def test_refused_credentials_are_told_with_where_they_come_from(
    s3: str, forbidding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", forbidding)
    assert "credentials come from the environment" in told_at_start(f"{s3}/x/rho")


def test_a_storage_that_gives_out_is_named_in_bounded_time(
    mirror: Mirror, forbidding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(mirror, "study.log", b"one\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL", forbidding)
    for act in (Mirror(mirror.uri, mirror.folder).push, Mirror(mirror.uri, mirror.folder).pull):
        with pytest.raises(StorageError, match=r"storage\.path: s3://bucket-.*/runs/rho cannot be .*ACCESS_DENIED"):
            act("study.log")
