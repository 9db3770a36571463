"""What a driver keeps in a bucket, and who may; moto's server on loopback stands in for S3."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.errors import ConfigError, FaarRayError, StorageError
from faar_ray.records import TrialResult
from faar_ray.storage.lease import NAME
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.remote_copy import RemoteCopy
from faar_ray.storage.run_location import RunLocation, location_of
from faar_ray.tune.run import remote_run
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.run.remote_run import check_remote, open_remote_run
from faar_ray.tune.space.space import SearchSpace


@pytest.fixture
def place(s3: str) -> RunLocation:
    return location_of(f"{s3}/runs", "rho")


@pytest.fixture
def store(place: RunLocation) -> ObjectStore:
    return ObjectStore(place.uri)


def write(place: RunLocation, name: str, text: str) -> None:
    (place.path / name).parent.mkdir(parents=True, exist_ok=True)
    (place.path / name).write_text(text)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def held_by(store: ObjectStore, host: str, pid: int) -> None:
    store.write(NAME, json.dumps({"driver": "another", "host": host, "pid": pid}).encode())


def test_what_the_driver_writes_goes_up_after_every_event(place: RunLocation, store: ObjectStore) -> None:
    write(place, "space.yaml", "version: 1\n")
    with open_remote_run(place, fresh=True) as run:
        assert run is not None
        assert set(store.files()) == {"space.yaml"}
        write(place, "study.log", "one\n")
        run._note()
        eventually(lambda: store.read("study.log") == b"one\n")
        write(place, "results.parquet", "all")
    assert set(store.files()) == {"space.yaml", "study.log", "results.parquet"}
    assert store.read(NAME) is None


def test_a_resumed_run_is_what_the_bucket_has(place: RunLocation, store: ObjectStore) -> None:
    store.write("study.log", b"of another machine\n")
    store.write("trials/t000-s0/config.yaml", b"x: 1\n")
    write(place, "study.log", "of an earlier run here\n")
    write(place, "results.parquet", "of an earlier run here")
    with open_remote_run(place, fresh=False):
        assert (place.path / "study.log").read_text() == "of another machine\n"
        assert not (place.path / "results.parquet").exists()
    assert store.read("study.log") == b"of another machine\n"


def test_a_run_that_could_not_start_leaves_nothing(place: RunLocation, store: ObjectStore) -> None:
    write(place, "space.yaml", "version: 1\n")
    with pytest.raises(FaarRayError, match="no MLflow"), open_remote_run(place, fresh=True):
        raise FaarRayError("no MLflow")
    assert store.files() == {}
    assert store.read(NAME) is None


def test_a_storage_that_gives_out_is_told_at_the_next_event(
    place: RunLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_remote_run(place, fresh=True) as run:
        assert run is not None

        def out(*_: object) -> None:
            raise StorageError("storage.path: gone")

        monkeypatch.setattr(RemoteCopy, "push", out)
        run._note()
        eventually(lambda: run.fault is not None)
        with pytest.raises(StorageError, match="gone"):
            run._note()


def test_the_lease_is_refreshed_while_nothing_happens(
    place: RunLocation, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "REFRESH_S", 0.2)
    with open_remote_run(place, fresh=True) as run:
        assert run is not None
        held_by(store, "elsewhere", 17)
        eventually(lambda: "taken over" in str(run.fault))
    assert store.read(NAME) is not None


def test_names_are_refused_as_on_a_disk(place: RunLocation, store: ObjectStore) -> None:
    assert check_remote(place, resume=False) == place
    with pytest.raises(ConfigError, match=r"--resume: there is no run in s3://.*/runs/rho; without --resume"):
        check_remote(place, resume=True)
    store.write("space.yaml", b"version: 1\n")
    assert check_remote(place, resume=False) == place  # of a search that ended before any trial began
    store.write("trials/t000-s0/config.yaml", b"")
    with pytest.raises(ConfigError, match=r"name: s3://.*/runs/rho exists already: --resume goes on with it"):
        check_remote(place, resume=False)
    look = check_remote(place, resume=True)
    assert (look.path / "space.yaml").read_text() == "version: 1\n"
    assert look.path != place.path


def test_a_local_run_has_no_twin(tmp_path: Path) -> None:
    with open_remote_run(RunLocation(tmp_path), fresh=True) as run:
        assert run is None


def test_what_mlflow_is_to_get_of_a_trial_is_fetched_from_where_it_trained(
    place: RunLocation, store: ObjectStore, space: Callable[..., SearchSpace]
) -> None:
    job = Job("t000-s0", "trial", space().trial_config({}), {}, 0)
    local = place.trial(job.trial_id)
    wanted = (local.trace, local.adapter, local.sines)
    for path in wanted:
        store.write(path.relative_to(place.path).as_posix(), path.name.encode())
    with open_remote_run(place, fresh=False) as run:
        assert run is not None
        run.ended(job, TrialResult("t000-s0", "abc", 0, "trial", "COMPLETE", {}, {}, 1.0, 1))
    assert [path.read_text() for path in wanted] == [path.name for path in wanted]
