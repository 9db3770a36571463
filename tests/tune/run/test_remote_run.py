"""What a driver keeps in a bucket, and who may; moto's server on loopback stands in for S3."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faar_ray.errors import ConfigError, FaarRayError, StorageError
from faar_ray.records import TrialResult
from faar_ray.storage import lease as lease_module
from faar_ray.storage.lease import NAME, Lease
from faar_ray.storage.object_store import Remote
from faar_ray.storage.run_location import RunLocation, location_of
from faar_ray.tune.run import remote_run
from faar_ray.tune.run.jobs import Job
from faar_ray.tune.run.remote_run import check_remote, mirrored
from faar_ray.tune.space.space import SearchSpace


@pytest.fixture
def place(s3: str) -> RunLocation:
    return location_of(f"{s3}/runs", "rho")


@pytest.fixture
def remote(place: RunLocation) -> Remote:
    return Remote(place.uri)


def write(place: RunLocation, name: str, text: str) -> None:
    (place.path / name).parent.mkdir(parents=True, exist_ok=True)
    (place.path / name).write_text(text)


def eventually(check: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def held_by(remote: Remote, host: str, pid: int) -> None:
    remote.write(NAME, json.dumps({"driver": "another", "host": host, "pid": pid}).encode())


def test_a_run_that_is_held_is_refused_naming_the_holder(remote: Remote) -> None:
    held_by(remote, "elsewhere", 17)
    with pytest.raises(ConfigError, match=r"a search is running in s3://.*/runs/rho .*process 17 on elsewhere, seen"):
        Lease(remote).take()


def test_the_lease_of_a_process_that_died_on_this_machine_is_taken(remote: Remote) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    held_by(remote, socket.gethostname(), child)
    lease = Lease(remote)
    lease.take()
    lease.release()
    assert remote.read(NAME) is None


def test_an_old_lease_is_a_dead_drivers(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    held_by(remote, "elsewhere", 17)
    monkeypatch.setattr(lease_module, "LEASE_S", 0.0)
    Lease(remote).take()


def test_a_driver_whose_run_was_taken_over_hears_of_it(remote: Remote) -> None:
    lease = Lease(remote)
    lease.take()
    lease.refresh()
    held_by(remote, "elsewhere", 17)
    with pytest.raises(StorageError, match="was taken over by another driver"):
        lease.refresh()
    lease.release()
    assert remote.read(NAME) is not None


def test_what_the_driver_writes_goes_up_after_every_event(place: RunLocation, remote: Remote) -> None:
    write(place, "space.yaml", "version: 1\n")
    with mirrored(place, fresh=True) as twin:
        assert twin is not None
        assert set(remote.files()) == {"space.yaml"}
        write(place, "study.log", "one\n")
        twin._note()
        eventually(lambda: remote.read("study.log") == b"one\n")
        write(place, "results.parquet", "all")
    assert set(remote.files()) == {"space.yaml", "study.log", "results.parquet"}
    assert remote.read(NAME) is None


def test_a_resumed_run_is_what_the_bucket_has(place: RunLocation, remote: Remote) -> None:
    remote.write("study.log", b"of another machine\n")
    remote.write("trials/t000-s0/config.yaml", b"x: 1\n")
    write(place, "study.log", "of an earlier run here\n")
    write(place, "results.parquet", "of an earlier run here")
    with mirrored(place, fresh=False):
        assert (place.path / "study.log").read_text() == "of another machine\n"
        assert not (place.path / "results.parquet").exists()
    assert remote.read("study.log") == b"of another machine\n"


def test_a_run_that_could_not_start_leaves_nothing(place: RunLocation, remote: Remote) -> None:
    write(place, "space.yaml", "version: 1\n")
    with pytest.raises(FaarRayError, match="no MLflow"), mirrored(place, fresh=True):
        raise FaarRayError("no MLflow")
    assert remote.files() == {}
    assert remote.read(NAME) is None


def test_a_storage_that_gives_out_is_told_at_the_next_event(
    place: RunLocation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mirrored(place, fresh=True) as twin:
        assert twin is not None

        def out(*_: str) -> None:
            raise StorageError("storage.path: gone")

        monkeypatch.setattr(twin.mirror, "push", out)
        twin._note()
        eventually(lambda: twin.fault is not None)
        with pytest.raises(StorageError, match="gone"):
            twin._note()


def test_the_lease_is_refreshed_while_nothing_happens(
    place: RunLocation, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_run, "REFRESH_S", 0.2)
    with mirrored(place, fresh=True) as twin:
        assert twin is not None
        held_by(remote, "elsewhere", 17)
        eventually(lambda: "taken over" in str(twin.fault))
    assert remote.read(NAME) is not None


def test_names_are_refused_as_on_a_disk(place: RunLocation, remote: Remote) -> None:
    assert check_remote(place, resume=False) == place
    with pytest.raises(ConfigError, match=r"--resume: there is no run in s3://.*/runs/rho; without --resume"):
        check_remote(place, resume=True)
    remote.write("space.yaml", b"version: 1\n")
    with pytest.raises(ConfigError, match=r"name: s3://.*/runs/rho exists already: --resume goes on with it"):
        check_remote(place, resume=False)
    look = check_remote(place, resume=True)
    assert (look.path / "space.yaml").read_text() == "version: 1\n"
    assert look.path != place.path


def test_a_local_run_has_no_twin(tmp_path: Path) -> None:
    with mirrored(RunLocation(tmp_path), fresh=True) as twin:
        assert twin is None


def test_what_mlflow_is_to_get_of_a_trial_is_fetched_from_where_it_trained(
    place: RunLocation, remote: Remote, space: Callable[..., SearchSpace]
) -> None:
    job = Job("t000-s0", "trial", space().trial_config({}), {}, 0)
    here = place.trial(job.trial_id)
    wanted = (here.trace, here.adapter, here.sines)
    for path in wanted:
        remote.write(path.relative_to(place.path).as_posix(), path.name.encode())
    with mirrored(place, fresh=True) as run:
        assert run is not None
        run.ended(job, TrialResult("t000-s0", "abc", 0, "trial", "COMPLETE", {}, {}, 1.0, 1))
    assert [path.read_text() for path in wanted] == [path.name for path in wanted]
