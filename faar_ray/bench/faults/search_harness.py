"""A small search as real processes: started, killed in part with SIGKILL, recovered, and read afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import pyarrow as pa
import yaml

import faar_ray
from faar_ray.bench.local_cluster import LocalCluster
from faar_ray.errors import FaarRayError
from faar_ray.records import MEASURED
from faar_ray.report.results import read_results
from faar_ray.tracking.files.rank_trace import read_rank_trace
from faar_ray.tracking.mlflow.runs import open_runs

Target = Literal["driver", "trial", "worker", "raylet", "node"]
MARK = "FAAR_RAY_FAULTS"
"""In the environment of every process of a run, so that none escapes."""
GONE_S = 20.0
"""How long the processes of a search that ended may take to be gone."""
TITLES = {"trial": "Trainable.train", "worker": "RayTrainWorker"}
SPACE: dict[str, Any] = {
    "version": 1,
    "name": "faults",
    "base": {
        "data": {
            "tasks": ["semseg", "normals"],
            "image_size": 32,
            "train_images": 32,
            "val_images": 16,
            "test_images": 16,
        },
        "backbone": {"pretrained": False},
        "ranks": {"init_rank": 4},
        "optim": {"epochs": 4, "batch_size": 8, "warmup_steps": 2},
    },
    "parameters": {"pdrs.rho_shared": {"min": 0.5, "max": 0.9, "scale": "log1m", "prior": 0.8}},
    "objectives": [{"name": "delta_m", "goal": "maximize"}],
    "references": {"semseg": 40.0, "normals": 20.0},
    "search": {"startup_trials": 2, "replicates": {"top": 1, "seeds": 2}, "share_prefixes": False},
    "scheduler": {"min_epochs": 2, "reduction": 2},
    "budget": {"trials": 3},
    "controls": [{"method": "lora"}],
}


class SearchFailed(FaarRayError):
    """A search that did not come to its end."""


@dataclass(frozen=True)
class SearchRecord:
    """What must not depend on interruptions."""

    rows: dict[str, tuple[Any, ...]]
    """By trial id: state, seed, parameters, epochs, every metric but the clock's."""
    trace: pa.Table

    def same_trials(self, other: SearchRecord) -> bool:
        """The same trials, ended the same way, with the same rows in the trace."""
        keys = ["trial_id", "epoch", "stage", "block", "layer", "task"]
        ours, theirs = ({name: row[:4] for name, row in record.rows.items()} for record in (self, other))
        return ours == theirs and self.trace.select(keys).equals(other.trace.select(keys))

    def equal(self, other: SearchRecord) -> bool:
        """Bit for bit."""
        return self.rows == other.rows and self.trace.equals(other.trace)


class SearchHarness:
    """A folder in which searches run; `mark` is on each of their processes."""

    def __init__(self, folder: Path, workers: int = 1, file: str = "space.yaml", **over: Any) -> None:
        self.folder, self.mark = folder, f"{folder}:{os.getpid()}"
        resources = {"max_concurrent": 1, **({"workers": workers} if workers > 1 else {})}
        self.space = folder / file
        self.space.write_text(yaml.safe_dump(SPACE | {"resources": resources} | over, sort_keys=False))

    def run(self, name: str) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / name

    def start(self, name: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a search's driver."""
        command = [sys.executable, "-m", "faar_ray.tune", self.space.name, "--name", name, *arguments]
        source = str(Path(faar_ray.__file__).parents[1])
        env = {**os.environ, "PYTHONPATH": source, MARK: self.mark}
        log = (self.folder / f"{name}.log").open("a")
        with log:
            return subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=subprocess.STDOUT, text=True)

    def log_text(self, name: str) -> str:
        """What a search's drivers printed."""
        return (self.folder / f"{name}.log").read_text()

    def finish(self, process: subprocess.Popen[str], name: str, limit_s: float = 300) -> None:
        """Wait for the end of a search.

        Raises:
            SearchFailed: it failed or did not end.
        """
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise SearchFailed(f"{name}: not over after {limit_s:.0f} s") from None
        if code:
            raise SearchFailed(f"{name}: exit code {code}: {' | '.join(self.log_text(name).splitlines()[-3:])}")

    def record(self, name: str) -> SearchRecord:
        """What a search found."""
        rows = read_results(self.run(name) / "results.parquet")
        timeless = {r.trial_id: {k: v for k, v in r.metrics.items() if not k.startswith(MEASURED)} for r in rows}
        known = {r.trial_id: (r.state, r.seed, r.params, r.epochs, timeless[r.trial_id]) for r in rows}
        return SearchRecord(known, read_rank_trace(self.run(name) / "rank_trace"))

    def processes(self) -> list[psutil.Process]:
        """Every living process of this harness's drivers."""
        return [process for process in psutil.process_iter() if _environ(process).get(MARK) == self.mark]

    def end_all(self) -> None:
        """Kill what is still there of a search that was given up, or that leaked."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def leaks(self, name: str, cluster: LocalCluster | None = None) -> list[str]:
        """What a search that is over left behind."""
        leaks = [f"temporary file {path.name}" for path in self.run(name).rglob(".*.tmp")]
        leaks += ["ray scratch"] if (self.run(name) / ".ray").exists() else []
        leaks += [f"open MLflow run {run}" for run in open_runs(f"sqlite:///{self.folder / 'mlflow.db'}")]
        leaks += [f"process {what}" for what in self._left(cluster)]
        return leaks + (_resources_held(cluster.address) if cluster else [])

    def _left(self, cluster: LocalCluster | None) -> list[str]:
        deadline = time.monotonic() + GONE_S
        while left := [*self.processes(), *(trainers(cluster.workers()) if cluster else [])]:
            if time.monotonic() > deadline:
                return [_title(process) for process in left]
            time.sleep(0.1)
        return []


def inject_fault(target: Target, driver: psutil.Process, cluster: LocalCluster | None) -> bool:
    """Kill it with SIGKILL; False where there is no such process at this moment."""
    victims: Sequence[psutil.Process] = [driver]
    if target != "driver":
        family = cluster.workers() if cluster else driver.children(recursive=True)
        victims = trainers(family, TITLES.get(target, TITLES["trial"]))[:1]
    if target in ("raylet", "node") and victims:
        raylet = victims[0].parent()
        assert raylet is not None
        victims = [raylet, *(raylet.children(recursive=True) if target == "node" else [])]
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(signal.SIGKILL)
    return bool(victims)


def trainers(processes: Sequence[psutil.Process], title: str = TITLES["trial"]) -> list[psutil.Process]:
    """Those that are training: Ray names a process after the call that it is in."""
    return [process for process in processes if title in _title(process)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _environ(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ() if process.status() != psutil.STATUS_ZOMBIE else {}
    except psutil.Error:
        return {}


PROBE = """
import ray, sys
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
groups = [g for g in ray.util.placement_group_table().values() if g["state"] != "REMOVED"]
busy = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
print(len(groups), busy)
"""


def _resources_held(address: str) -> list[str]:
    """Placement groups and CPUs that a cluster still holds, seen by another driver."""
    out = subprocess.run([sys.executable, "-c", PROBE, address], capture_output=True, text=True, timeout=60)
    if out.returncode:
        return [f"the cluster does not answer ({out.stderr.strip().splitlines()[-1:]})"]
    groups, busy = out.stdout.split()[-2:]
    resources = [f"{groups} placement groups"] if int(groups) else []
    return resources + ([f"{busy} CPUs"] if float(busy) else [])
