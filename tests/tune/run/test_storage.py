"""A search whose storage is a bucket or a disk that gets full: what survives, and that `--resume` ends as if nothing
had been. moto's server on loopback stands in for S3, a tmpfs for a disk.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faar_ray.records import MEASURED
from faar_ray.report.results import read_results
from faar_ray.storage.object_store import ObjectStore
from faar_ray.storage.remote_copy import RemoteCopy
from tests.commands import start_command

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SEARCH: dict[str, Any] = {
    "budget": {"trials": 2},
    "resources": {"max_concurrent": 1},
    "search": {"replicates": {"top": 1, "seeds": 2}},
    "storage": {"keep_checkpoints": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("storage")
    space_file(path / "space.yaml", **SEARCH)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    done = tune(folder)
    assert done.returncode == 0, done.stderr
    return facts(folder / "runs" / "tiny")


def tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    process = start_command("tune", folder, "space.yaml", *arguments)
    out, err = process.communicate(timeout=400)
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def facts(run: Path) -> dict[str, Any]:
    """What must not depend on interruptions: who, with what, how it ended, every value but the clock's."""
    rows = read_results(run / "results.parquet")
    timeless = {r.trial_id: {k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)} for r in rows}
    return {r.trial_id: (r.state, r.seed, r.params, r.epochs, timeless[r.trial_id]) for r in rows}


def test_a_search_in_a_bucket_goes_on_where_its_machine_was_lost(
    folder: Path, undisturbed: dict[str, Any], s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, twin = f"storage.path={s3}/runs", ObjectStore(f"{s3}/runs/tiny")
    process = start_command("tune", folder, "space.yaml", storage)
    deadline = time.monotonic() + 240
    while (twin.read("study.log") or b"").count(b'"epoch/') < 2 and process.poll() is None:
        assert time.monotonic() < deadline, "no epoch in four minutes"
        time.sleep(0.1)
    process.send_signal(signal.SIGSTOP)  # alive, and no faster than the second one
    monkeypatch.setenv("FAAR_RAY_CACHE", str(tmp_path / "cache"))  # from here on, another machine
    second = tune(folder, storage, "--resume")
    assert second.returncode == 2, second.stderr
    assert f"a search is running in {twin.uri} at this moment (process {process.pid} on " in second.stderr
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)

    resumed = tune(folder, storage, "--resume", "--json", "-q")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["path"] == twin.uri
    assert f"the report   {twin.uri}/report/index.html" in resumed.stderr
    RemoteCopy(twin.uri, tmp_path / "seen").pull("")
    assert facts(tmp_path / "seen") == undisturbed
    names = set(twin.files())
    assert {"space.yaml", "run.json", "study.log", "results.parquet", "report/index.html"} <= names
    assert twin.read(".lease") is None
    for trial, (state, *_) in undisturbed.items():
        kept = [name for name in names if name.startswith(f"trials/{trial}/checkpoints/")]
        assert len(kept) == 1
        assert (f"trials/{trial}/adapter.safetensors" in names) == (state == "COMPLETE")

    again = tune(folder, storage)
    assert again.returncode == 2
    assert f"name: {twin.uri} exists already" in again.stderr


def test_a_bucket_that_is_not_there_is_exit_2_before_anything_starts(folder: Path, s3: str) -> None:
    refused = tune(folder, "storage.path=s3://nobody-s-bucket/runs")
    assert refused.returncode == 2
    given = "command line: storage.path=s3://nobody-s-bucket/runs: "
    assert refused.stderr.startswith(f"{given}s3://nobody-s-bucket/runs/tiny: there is no bucket")
    assert len(refused.stderr.splitlines()) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of the size of one trial."""
    path = tmp_path / "disk"
    path.mkdir()
    mount(path, "size=2500k")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def mount(path: Path, options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")


def test_a_full_disk_ends_the_search_and_no_trial(folder: Path, undisturbed: dict[str, Any], disk: Path) -> None:
    full = tune(folder, f"storage.path={disk}")
    assert full.returncode == 1, full.stderr
    assert f"storage.path: {disk}/tiny" in full.stderr
    assert "No space left on device" in full.stderr
    assert f"faar_ray.tune space.yaml storage.path={disk} --resume" in full.stderr
    finished = facts(disk / "tiny")
    assert {state for state, *_ in finished.values()} <= {"COMPLETE", "PRUNED"}
    assert all(undisturbed[name] == row for name, row in finished.items())

    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    resumed = tune(folder, f"storage.path={disk}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert facts(disk / "tiny") == undisturbed


def test_a_folder_that_cannot_be_written_is_exit_2(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path, reason in ((tmp_path / "file", "Not a directory"), (tmp_path / "read_only", "Read-only file system")):
        if path.name == "read_only":
            path.mkdir()
            mount(path, "ro")
        try:
            refused = tune(folder, f"storage.path={path}")
        finally:
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)
        assert refused.returncode == 2
        given = f"command line: storage.path={path}: "
        assert refused.stderr.splitlines() == [f"{given}{path}/tiny cannot be written ({reason})"]


def test_a_damaged_trace_of_a_finished_trial_is_written_again_on_resume(
    folder: Path, undisturbed: dict[str, Any]
) -> None:
    trace = folder / "runs" / "tiny" / "rank_trace" / "t000-s0.parquet"
    whole = trace.read_bytes()
    trace.write_bytes(whole[:1000])
    resumed = tune(folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert str(trace) in resumed.stdout
    assert trace.read_bytes() == whole
