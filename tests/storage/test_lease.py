"""One driver at a time, on all three clouds."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from faar_ray.errors import ConfigError, StorageError
from faar_ray.storage import lease as lease_module
from faar_ray.storage.lease import NAME, Lease
from faar_ray.storage.object_store import ObjectStore


@pytest.fixture
def store(bucket: str) -> ObjectStore:
    return ObjectStore(f"{bucket}/runs/rho")


def held_by(store: ObjectStore, host: str, pid: int) -> None:
    store.write(NAME, json.dumps({"driver": "another", "host": host, "pid": pid}).encode())


def test_a_run_that_is_held_is_refused_naming_the_holder(store: ObjectStore) -> None:
    held_by(store, "elsewhere", 17)
    with pytest.raises(ConfigError, match=r"a search is running in .*://.*/runs/rho .*process 17 on elsewhere, seen"):
        Lease(store).take()


def test_the_lease_of_a_process_that_died_on_this_machine_is_taken(store: ObjectStore) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    held_by(store, socket.gethostname(), child)
    lease = Lease(store)
    lease.take()
    lease.release()
    assert store.read(NAME) is None


def test_an_old_lease_is_a_dead_drivers(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(store, "elsewhere", 17)
    monkeypatch.setattr(lease_module, "LEASE_S", 0.0)
    Lease(store).take()


def test_a_driver_whose_run_was_taken_over_hears_of_it(store: ObjectStore) -> None:
    lease = Lease(store)
    lease.take()
    lease.refresh()
    held_by(store, "elsewhere", 17)
    with pytest.raises(StorageError, match="was taken over by another driver"):
        lease.refresh()
    lease.release()
    assert store.read(NAME) is not None


def taken_at_once(uri: str, drivers: int) -> list[Lease]:
    """The leases that were taken by drivers that start at the same moment; every refusal names who holds the run."""
    together = Barrier(drivers)

    def begin(_: int) -> Lease | None:
        lease = Lease(ObjectStore(uri))
        together.wait()
        try:
            lease.take()
        except ConfigError as refused:
            assert "a search is running in" in str(refused)
            return None
        return lease

    with ThreadPoolExecutor(drivers) as pool:
        return [lease for lease in pool.map(begin, range(drivers)) if lease]


def test_of_drivers_that_start_at_once_exactly_one_begins(store: ObjectStore) -> None:
    for turn in range(5):
        (lease,) = taken_at_once(f"{store.uri}-{turn}", 6)
        lease.refresh()


def test_of_drivers_that_find_an_expired_lease_exactly_one_takes_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by(store, "elsewhere", 17)
    version = store.read_version(NAME)
    assert version is not None
    monkeypatch.setattr(Lease, "_is_alive", lambda _, lease: lease.version != version.version)
    (lease,) = taken_at_once(store.uri, 6)
    lease.refresh()


def test_a_driver_that_wakes_up_in_time_keeps_its_run(store: ObjectStore) -> None:
    slow, other = Lease(store), Lease(store)
    slow.take()
    seen = store.read_version(NAME)
    assert seen is not None
    slow.refresh()  # between another driver's look at an expired lease and its write
    assert not other._write(seen.version)
    slow.refresh()


def test_a_lease_that_was_deleted_is_lost(store: ObjectStore) -> None:
    lease = Lease(store)
    lease.take()
    store.delete(NAME)
    with pytest.raises(StorageError, match="has lost its lease"):
        lease.refresh()


def test_a_write_whose_answer_was_lost_is_this_drivers(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write_if = ObjectStore.write_if
    lease = Lease(store)
    lease.take()

    def written_twice(store: ObjectStore, name: str, data: bytes, version: dict[str, str]) -> dict[str, str] | None:
        write_if(store, name, data, version)
        return write_if(store, name, data, version)

    monkeypatch.setattr(ObjectStore, "write_if", written_twice)
    lease.refresh()
    lease.refresh()


def test_a_store_that_ignores_conditions_is_refused(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from moto.s3.responses import S3Response

    put_object = S3Response.put_object

    def put_anyway(response: S3Response) -> object:
        response.headers = {k: v for k, v in response.headers.items() if k.lower() not in ("if-match", "if-none-match")}
        return put_object(response)

    monkeypatch.setattr(S3Response, "put_object", put_anyway)
    store = ObjectStore(f"{s3}/runs/rho")
    with pytest.raises(ConfigError, match=r"s3://.*/runs/rho: this store ignores conditional writes"):
        Lease(store).take()
    assert store.read(NAME) is None
