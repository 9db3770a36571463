"""A folder and its twin in object storage; stand-ins on loopback play the three clouds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.remote_copy import NO_REMOTE, RemoteCopy
from faar_ray.storage.run_location import RunLocation, download_run, location_of, location_of_uri

from .conftest import SERVERS


@pytest.fixture
def copy(bucket: str, tmp_path: Path) -> RemoteCopy:
    return RemoteCopy(f"{bucket}/runs/rho", tmp_path / "local")


def put(copy: RemoteCopy, name: str, data: bytes) -> Path:
    path = copy.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def names(copy: RemoteCopy) -> set[str]:
    return set(copy.store.files())


FILES = {"trials/a/checkpoints/epoch_0000.pt": os.urandom(3_000_000), "trials/a/config.yaml": b"x: 1\n", "empty": b""}


def test_what_is_pushed_is_pulled_elsewhere(copy: RemoteCopy, tmp_path: Path) -> None:
    for name, data in FILES.items():
        put(copy, name, data)
    copy.push("trials/a", "empty")
    remote = RemoteCopy(copy.uri, tmp_path / "there")
    remote.pull("")
    assert {name: (remote.folder / name).read_bytes() for name in FILES} == FILES
    assert names(copy) == set(FILES)


def test_only_what_changed_is_sent_or_fetched(copy: RemoteCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in FILES.items():
        put(copy, name, data)
    copy.push("")
    moved: list[str] = []

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def move(remote: ObjectStore, name: str, *rest: Any) -> Any:
            moved.append(name)
            return original(remote, name, *rest)

        return move

    monkeypatch.setattr(ObjectStore, "upload", counted(ObjectStore.upload))
    monkeypatch.setattr(ObjectStore, "download", counted(ObjectStore.download))
    copy.push("")
    copy.pull("")
    assert moved == []
    put(copy, "empty", b"longer")
    put(copy, "trials/a/config.yaml", b"x: 2\n")  # of the same size
    copy.push("")
    assert sorted(moved) == ["empty", "trials/a/config.yaml"]
    assert copy.store.read("trials/a/config.yaml") == b"x: 2\n"


def test_what_is_dropped_here_is_dropped_there_and_the_reverse(copy: RemoteCopy) -> None:
    for epoch in range(3):
        put(copy, f"trials/a/epoch_{epoch}", bytes([epoch]))
    put(copy, "trials/b/epoch_0", b"another's")
    copy.push("trials")
    (copy.folder / "trials/a/epoch_0").unlink()
    copy.push("trials/a")
    assert names(copy) == {"trials/a/epoch_1", "trials/a/epoch_2", "trials/b/epoch_0"}
    put(copy, "trials/a/epoch_9", b"of an earlier run of this name")
    copy.pull("trials/a")
    assert not (copy.folder / "trials/a/epoch_9").exists()
    assert (copy.folder / "trials/b/epoch_0").exists()


def test_the_twin_wins_where_both_changed(copy: RemoteCopy, tmp_path: Path) -> None:
    path = put(copy, "study.log", b"one\n")
    copy.push("study.log")
    other = RemoteCopy(copy.uri, tmp_path / "other")
    put(other, "study.log", b"one\ntwo\n")
    other.push("study.log")
    path.write_bytes(b"one\nowt\n")
    copy.pull("study.log")
    assert path.read_bytes() == b"one\ntwo\n"


def test_locks_and_temporary_files_stay_here(copy: RemoteCopy) -> None:
    for name in (".lock", ".ray/x", "trials/a/.config.yaml.12.tmp", "trials/a/config.yaml"):
        put(copy, name, b"x")
    copy.push("")
    assert names(copy) == {"trials/a/config.yaml"}


def test_what_is_not_there_is_pulled_as_nothing(copy: RemoteCopy) -> None:
    copy.pull("trials/a", "rank_trace/a.parquet")
    NO_REMOTE.pull()
    NO_REMOTE.push()
    assert not copy.folder.exists()


def test_a_local_path_has_no_twin_and_a_uri_has_a_working_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert location_of("./runs", "rho") == RunLocation(tmp_path / "runs" / "rho")
    remote = location_of(f"{s3}/runs/", "rho")
    assert str(remote) == f"{s3}/runs/rho"
    assert remote.path.name == "rho"
    assert remote.path != location_of_uri(remote.uri, reading=True).path
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert location_of_uri(remote.uri).path != remote.path  # the same bucket's name at another server is another bucket


def test_a_trials_twin_holds_all_its_files(s3: str, tmp_path: Path) -> None:
    uri = f"{s3}/runs/rho"
    local, remote = (RunLocation(tmp_path / name, uri).trial("t000-s0") for name in ("here", "there"))
    for path in (local.adapter, local.epochs, local.trace, local.sines):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    local.remote_copy.push()
    remote.remote_copy.pull()
    for path in (remote.adapter, remote.epochs, remote.trace, remote.sines):
        assert path.read_text() == path.name


def test_a_reader_takes_nothing_from_the_working_copy(copy: RemoteCopy) -> None:
    put(copy, "results.parquet", b"of now")
    copy.push("results.parquet")
    read = download_run(copy.uri, "results.parquet")
    assert (read.path / "results.parquet").read_bytes() == b"of now"
    shutil.rmtree(read.path)
    with pytest.raises(ConfigError, match="has no report"):
        download_run(copy.uri, "report")


def test_a_storage_that_gives_out_is_named_in_bounded_time(
    copy: RemoteCopy, forbidding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(copy, "study.log", b"one\n")
    monkeypatch.setenv(SERVERS[copy.uri[:2]], forbidding)
    for act in (RemoteCopy(copy.uri, copy.folder).push, RemoteCopy(copy.uri, copy.folder).pull):
        with pytest.raises(StorageError, match=r"storage\.path: .*://.*-.*/runs/rho cannot be .*403 Forbidden"):
            act("study.log")
