"""kill -9 of the driver and of a trial, and Ctrl-C: what survives, and that `--resume` ends as if nothing had been."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from faar_ray.report.results import read_results

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SEARCH: dict[str, Any] = {
    "controls": [{"method": "lora"}],
    "budget": {"trials": 3},
    "resources": {"max_concurrent": 1},
    "base": {"optim": {"epochs": 4}},
    "search": {"replicates": {"top": 1, "seeds": 2}},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Path:
    path = tmp_path_factory.mktemp("kills")
    space_file(path / "space.yaml", **SEARCH)
    return path


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen[str]:
    source = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "faar_ray.tune", "space.yaml", "--name", name, *arguments]
    env = {**os.environ, "PYTHONPATH": source}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(folder: Path, name: str, *arguments: str) -> str:
    process = start(folder, name, *arguments)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> dict[str, Any]:
    finish(folder, "whole")
    return facts(folder, "whole")


def facts(folder: Path, name: str) -> dict[str, Any]:
    """What must not depend on interruptions: who, with what, how it ended, every value but the clock's."""
    rows = read_results(folder / "runs" / name / "results.parquet")
    timeless = {r.trial_id: {k: v for k, v in r.metrics.items() if not k.startswith("time/")} for r in rows}
    return {r.trial_id: (r.state, r.seed, r.params, r.epochs, timeless[r.trial_id]) for r in rows}


def open_runs(folder: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return [run.info.run_name for run in runs if run.info.status == "RUNNING"]


def epochs_in(journal: Path) -> int:
    return journal.read_text().count('"epoch/') if journal.exists() else 0


def wait_for(process: subprocess.Popen[str], journal: Path, epochs: int) -> None:
    """Until the journal holds so many epochs."""
    deadline = time.monotonic() + 240
    while epochs_in(journal) < epochs and process.poll() is None:
        assert time.monotonic() < deadline, "no epoch in four minutes"
        time.sleep(0.02)


def family_of(pid: int) -> dict[int, str]:
    """All descendants of a process with their command lines."""
    parents, commands = {}, {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {child: commands[child] for child in found - {pid} if child in commands}


def training(process: subprocess.Popen[str]) -> int:
    """The process in which a trial is training now: Ray names a process after the call that it is in."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        for pid, command in family_of(process.pid).items():
            if "Trainable.train" in command:
                return pid
        time.sleep(0.05)
    raise AssertionError("no trial is training")


def moments() -> Iterator[int]:
    """After how many epochs in the journal the driver is killed."""
    yield from random.Random(0).sample(range(1, 11), 3)


@pytest.mark.parametrize("epochs", moments())
def test_a_killed_driver_loses_nothing(folder: Path, undisturbed: dict[str, Any], epochs: int) -> None:
    name = f"killed-{epochs}"
    process = start(folder, name)
    wait_for(process, folder / "runs" / name / "study.log", epochs)
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    finish(folder, name, "--resume")
    assert facts(folder, name) == undisturbed
    assert open_runs(folder) == []


def test_a_killed_trial_is_tried_again_from_its_checkpoint(folder: Path, undisturbed: dict[str, Any]) -> None:
    process = start(folder, "actor")
    wait_for(process, folder / "runs" / "actor" / "study.log", 2)
    os.kill(training(process), signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert facts(folder, "actor") == undisturbed


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_closes_everything_and_names_the_command_that_resumes(
    folder: Path, undisturbed: dict[str, Any], stop: signal.Signals
) -> None:
    name = f"stopped-{stop.name}"
    process = start(folder, name)
    wait_for(process, folder / "runs" / name / "study.log", 2)
    family = family_of(process.pid)
    process.send_signal(stop)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"python -m faar_ray.tune space.yaml --name {name} --resume" in said
    assert "Traceback" not in said
    assert open_runs(folder) == []
    assert family
    deadline = time.monotonic() + 20
    while alive := [command for pid, command in family.items() if Path(f"/proc/{pid}/cmdline").exists()]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
    finish(folder, name, "--resume")
    assert facts(folder, name) == undisturbed
