"""Objects of all three clouds: stand-ins on loopback; and what a person reads where they cannot be used."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from faar_ray.errors import ConfigError
from faar_ray.storage import object_store
from faar_ray.storage.object_store import ATTEMPTS_AT_START, ObjectStore

from .conftest import AZURE_KEY, SERVERS


def test_objects_are_written_read_listed_and_deleted(bucket: str, tmp_path: Path) -> None:
    store = ObjectStore(f"{bucket}/runs/rho")
    store.check()
    assert store.files() == {} and store.read("a") is None
    large = os.urandom(12_000_000)  # in several parts
    (tmp_path / "large").write_bytes(large)
    with (tmp_path / "large").open("rb") as file:
        info = store.upload("trials/a/large", file)
    store.write("a b+c%d", b"1")
    store.write(".hidden", b"2")
    assert store.files("trials") == store.files("trials/a/large") == {"trials/a/large": info}
    assert set(store.files()) == {"trials/a/large", "a b+c%d"}
    store.download("trials/a/large", tmp_path / "copy", info)
    assert (tmp_path / "copy").read_bytes() == large
    assert (tmp_path / "copy").stat().st_mtime_ns == info.mtime_ns
    beside = ObjectStore(f"{bucket}/runs/rho2")
    beside.write("a", b"another run's")
    store.delete("a b+c%d")
    store.delete("a b+c%d")  # which is gone
    store.clear()
    assert store.files() == {} and store.read(".hidden") is None
    assert beside.read("a") == b"another run's"


def test_a_conditional_write_needs_the_version_that_the_store_has(bucket: str) -> None:
    store = ObjectStore(bucket)
    first = store.write_if("x", b"1", None)
    assert first
    assert store.write_if("x", b"2", None) is None
    second = store.write_if("x", b"3", first)
    assert second
    assert store.write_if("x", b"4", first) is None
    current = store.read_version("x")
    assert current is not None and current.data == b"3" and store.write_if("x", b"5", current.version)
    store.delete("x")
    assert store.write_if("x", b"6", second) is None
    assert store.read("x") is None


def refusal(uri: str) -> str:
    began = time.monotonic()
    with pytest.raises(ConfigError) as refused:
        ObjectStore(uri, ATTEMPTS_AT_START).check()
    assert time.monotonic() - began < 25
    assert str(refused.value).startswith(f"storage.path: {uri}")
    assert "testing" not in str(refused.value)  # the stand-in's key
    assert AZURE_KEY not in str(refused.value)
    return str(refused.value)


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    other = f"{bucket}-other"
    assert f"there is no bucket {other.partition('://')[2]} at http://127" in refusal(f"{other}/x/rho")


def test_an_endpoint_where_nobody_answers_is_named(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "at http://127.0.0.1:9" in refusal(f"{s3}/x/rho")


def test_an_endpoint_that_never_answers_is_given_up(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "REQUEST_S", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "timed out" in refusal(f"{s3}/x/rho")


def test_refused_credentials_are_told_with_where_they_come_from(
    bucket: str, forbidding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVERS[bucket[:2]], forbidding)
    message = refusal(f"{bucket}/x/rho")
    assert f"(403 Forbidden at {forbidding}; credentials come from the environment, " in message


def test_no_credentials_at_all_are_told(s3: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "(no credentials were found at " in refusal(f"{s3}/x/rho")
