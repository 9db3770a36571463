"""Ray's own autoscaler under a search: it starts workers for it, and drops them after it.

Ray's fake node provider stands in for a cloud: its machines are raylets on this one. The cluster lives in PID, network
and mount namespaces of its own, so that ending the first process of these ends all of it, and nothing else is seen.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from faar_ray.cluster.ray_cluster import QUIET
from faar_ray.tune.execute.resource_monitor import START_TIMEOUT_S
from faar_ray.tune.propose.journal import read_journal, spent
from tests.commands import SOURCE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
ADDRESS = "127.0.0.1:6379"
STORE = 80_000_000
HEAD_ID = "f" * 51 + "00000"
HEAD_TYPE = "ray.head.default"
"""By these the fake provider knows the head."""
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
CLUSTER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 2,
    "provider": {"type": "external", "module": PROVIDER, "head_node_id": HEAD_ID, "launch_multiple": True},
    "head_node_type": HEAD_TYPE,
    "available_node_types": {
        HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0, "labels": {"usd-per-hour": "0.25"}},
        "worker": {
            "resources": {"CPU": 1, "object_store_memory": STORE},
            "node_config": {},
            "labels": {"usd-per-hour": "0.5"},
            "min_workers": 0,
            "max_workers": 2,
        },
    },
    "idle_timeout_minutes": 0.1,
    # what `ray up` fills in, and the autoscaler does not start without
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("initialization_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter")},
    **{f"{whose}setup_commands": [] for whose in ("", "head_", "worker_")},
    **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
}
HEAD_ENVIRONMENT = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}
START = """ip link set lo up && mkdir -p /tmp/ray && mount -t tmpfs tmpfs /tmp/ray && ray get-auth-token --generate
ray start --block --head --num-cpus 0 --node-ip-address 127.0.0.1 --port 6379 --include-dashboard false \
    --object-store-memory {store} --autoscaling-config cluster.yaml"""
COUNT = """
import json, ray, time
ray.init("{address}", logging_level="ERROR", log_to_driver=False)
while True:
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    print(json.dumps([int(each["CPU"]) for each in alive if each.get("CPU")]), flush=True)
    time.sleep(0.3)
"""
"""Prints the CPUs of each worker that is alive, over and over."""


@dataclass
class Cluster:
    """A head without CPUs and its autoscaler, in namespaces of their own."""

    folder: Path
    init: int
    """The first process in there, as this machine numbers it."""
    children: list[subprocess.Popen[str]] = field(default_factory=list)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command in there."""
        enter = ["nsenter", "--target", str(self.init), "--pid", "--net", "--mount", f"--wdns={self.folder}"]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen([*enter, *command], env=environment(self.folder), text=True, **pipe)  # type: ignore[call-overload]
        self.children.append(child)
        return child  # type: ignore[no-any-return]

    def cpus_of_workers(self) -> Iterator[list[int]]:
        """The CPUs of each worker that is alive, over and over."""
        watch = self.start(sys.executable, "-c", COUNT.format(address=ADDRESS))
        assert watch.stdout is not None
        try:
            for line in watch.stdout:
                if line.startswith("["):  # Ray says something at times
                    yield json.loads(line)
        finally:
            watch.kill()

    def tune(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the search there."""
        words = ["-m", "faar_ray.tune", "space.yaml", "--address", ADDRESS, "storage.path=./runs", *arguments]
        return self.start(sys.executable, *words)

    def machine(self, cpus: int, hidden: Path | None = None) -> subprocess.Popen[str]:
        """A further machine, which has not got a folder that is there on the others."""
        ray = f"ray start --block --address {ADDRESS} --num-cpus {cpus} --object-store-memory {STORE}"
        hide = f"mount -t tmpfs tmpfs {hidden} && " if hidden else ""
        return self.start("unshare", "--mount", "sh", "-c", f"{hide}exec {ray}")


def environment(folder: Path, **more: str) -> dict[str, str]:
    ours = {**QUIET, "HOME": str(folder), "RAY_AUTH_MODE": "token"}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(SOURCE)}
    return {**os.environ, **ours, **path, **more}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, space_file: Callable[..., Path]) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("autoscaler")
    over = {"scheduler": {"type": "none"}, "search": {"sampler": "random"}, "budget": {"trials": 2}}
    space_file(folder / "space.yaml", base={"optim": {"epochs": 1, "warmup_steps": 0}}, **over)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--net"]
    if not shutil.which("nsenter") or subprocess.run([*apart, "true"], capture_output=True, check=False).returncode:
        pytest.skip("namespaces cannot be made here (root and util-linux can)")
    with (folder / "head.log").open("w") as log:
        outer = subprocess.Popen(
            [*apart, "sh", "-c", START.format(store=STORE)],
            cwd=folder, env=environment(folder, **HEAD_ENVIRONMENT), stdout=log, stderr=log,
        )  # fmt: skip
    try:
        until(lambda: "Ray runtime started" in (folder / "head.log").read_text(), "the head started")
        made = Cluster(folder, psutil.Process(outer.pid).children()[0].pid)
        yield made
    finally:
        outer.kill()  # and with it, by --kill-child, the first process of the namespaces and all that is in them
        outer.wait(30)
    for child in made.children:
        child.wait(30)


def until(happened: Callable[[], object], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.2)


def done(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def event_of(search: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    """The next one of its kind that the search tells on stderr."""
    assert search.stderr is not None
    message = []
    for line in search.stderr:
        message.append(line)
        if line.startswith("{") and (event := json.loads(line))["event"] == kind:
            return dict(event)
    raise AssertionError(f"no event {kind!r}: {''.join(message)}")


def test_a_dry_run_says_what_there_is_and_what_may_come_and_starts_nothing(cluster: Cluster) -> None:
    code, out, err = done(cluster.tune("--dry-run", "resources.cluster=cluster.yaml", "budget.time=2h"))
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert [HEAD_TYPE, "0", "0", "1", "1", "on-demand", "0.25"] in rows
    assert ["worker", "1", "0", "0", "2", "on-demand", "0.5"] in rows
    assert "cost: 0.25 USD/h now, at most 1.25 USD/h" in out
    assert (
        "at once: 2 trial(s); a trial needs 1 CPU, there are 0 CPUs now, 2 machines may be added: 2 CPUs in all" in out
    )
    assert "all within 2h of wall time: at most 2.5 USD for the whole cluster" in out
    assert not (cluster.folder / "runs").exists()


def test_the_autoscaler_starts_workers_for_a_search_and_drops_them_after_it(cluster: Cluster) -> None:
    counts = cluster.cpus_of_workers()
    assert next(counts) == []
    search = cluster.tune("resources.cluster=cluster.yaml", "budget.usd=5", "--json", "-q")
    seen: list[Sequence[int]] = []

    def workers(number: int) -> bool:
        seen.append(next(counts))
        return len(seen[-1]) == number

    until(lambda: workers(2), "two workers came", 200)
    code, out, err = done(search)
    assert code == 0, err
    assert json.loads(out)["trials"] == {"complete": 2, "pruned": 0, "failed": 0}
    until(lambda: workers(0), "the workers were dropped")
    assert max(map(len, seen)) == 2


def test_a_machine_without_the_folder_ends_the_search_and_gets_none(cluster: Cluster) -> None:
    runs = cluster.folder / "apart"
    runs.mkdir()
    cluster.machine(2, hidden=runs)
    counts = cluster.cpus_of_workers()
    until(lambda: 2 in next(counts), "the machine came")  # no other has the CPUs that a trial needs
    code, _, err = done(cluster.tune("storage.path=./apart", "resources.cpus_per_worker=2", "-q"))
    assert code == 1, err
    output = err.splitlines()
    assert f"storage.path: {runs}/tiny is not on machine " in output[-3]
    assert output[-3].endswith(": use a bucket or a folder that all machines share")
    assert output[-1].endswith("--resume")
    assert (runs / "tiny" / "space.yaml").is_file()  # or --resume would find nothing
    assert list((runs / "tiny" / "trials").iterdir()) == []


@pytest.mark.parametrize(("workers", "cpus", "needs"), [(1, 3, "3 CPUs"), (2, 4, "2 workers of 4 CPUs")])
def test_a_search_says_that_it_waits_and_goes_on_when_a_machine_comes(
    cluster: Cluster, workers: int, cpus: int, needs: str
) -> None:
    promised = yaml.safe_load(yaml.safe_dump(CLUSTER))
    promised["max_workers"] = 9  # of 8 CPUs, none of which the autoscaler can start
    promised["available_node_types"]["worker"] |= {"max_workers": 9, "resources": {"CPU": 8}}
    (cluster.folder / "promised.yaml").write_text(yaml.safe_dump(promised))
    name = f"patient-{workers}"
    each = f"resources={{cluster: promised.yaml, workers: {workers}, cpus_per_worker: {cpus}, usd_per_hour: 3600}}"
    search = cluster.tune(each, "budget={trials: 1, usd: 9000}", "--name", name, "--json")
    waiting = event_of(search, "machines")
    assert waiting["waiting"] is True
    assert waiting["text"].startswith(f"waiting for machines: a trial needs {needs}, the cluster has ")
    cluster.machine(workers * cpus)
    came = event_of(search, "machines")
    assert came["waiting"] is False
    assert came["text"].startswith("machines are there after ")
    assert event_of(search, "ended")["state"] == "COMPLETE"
    assert search.wait(120) == 0
    spending = spent(read_journal(cluster.folder / "runs" / name / "study.log"))
    assert 0 < spending["usd"] < spending["elapsed_s"] - START_TIMEOUT_S  # a dollar a second, and none for waiting
