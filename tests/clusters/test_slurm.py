"""`clusters/slurm.sh` on this machine. `srun` and `scontrol` are stand-ins that run a step here, `ray` and `python`
record what they were asked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "clusters" / "slurm.sh"
STAND_INS = {
    "scontrol": "printf 'node1\\nnode2\\nnode3\\nnode4\\n'",
    "srun": 'echo "srun $*" >> "$LOG"; while [[ $1 == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 127.0.0.1 10.0.0.1",
    "ray": (
        'echo "ray $* [$RAY_AUTH_MODE $RAY_ADDRESS]" >> "$LOG"; [[ $1 != start ]] || exec sleep 60\n'
        'grep -q "^ray start --head" "$LOG"  # the status of a cluster is one when it has a head'
    ),
    "python": 'trap "kill \\$! 2> /dev/null; exit 130" TERM; echo "python $*" >> "$LOG"; eval "$SEARCH"',
}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a batch job whose commands are stand-ins; the token is there."""
    binaries = tmp_path / "venv" / "bin"
    binaries.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (binaries / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (binaries / name).chmod(0o755)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("token")
    slurm = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "node[1-4]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "1",
    }
    task_own = {
        "HOME": str(tmp_path),
        "VENV": str(tmp_path / "venv"),
        "LOG": str(tmp_path / "log"),
        "SEARCH": "until grep -q '^ray start --address' $LOG; do sleep 0.05; done",
    }
    return {"PATH": os.environ["PATH"], **slurm, **task_own}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, timeout=200
    )  # fmt: skip


def log(environment: dict[str, str]) -> list[str]:
    return Path(environment["LOG"]).read_text().splitlines()


def test_bash_reads_it() -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)


def test_a_head_its_workers_and_the_search_start_in_this_order(environment: dict[str, str]) -> None:
    done = run(environment, "budget.trials=40", "--resume")
    assert done.returncode == 0, done.stderr
    lines = log(environment)
    (head,) = (line for line in lines if line.startswith("ray start --head"))
    assert "--node-ip-address=127.0.0.1 --port=20028 --dashboard-host=127.0.0.1" in head
    assert head.endswith("[token 127.0.0.1:20028]")
    (worker,) = (line for line in lines if line.startswith("ray start --address=127.0.0.1:20028"))
    for line in (head, worker):
        assert "--block --temp-dir=/tmp/faar_ray-7 --dashboard-agent-listen-port=20031" in line
        assert "--num-cpus=8 --num-gpus=1 --labels=usd-per-hour=1.20,ray.io/market-type=on-demand" in line
    assert any(line.startswith("srun --overlap --nodes=3 --ntasks=3 --exclude=node1 ray start") for line in lines)
    (search,) = (line for line in lines if line.startswith("python -m faar_ray.tune"))
    runs = f"{environment['HOME']}/faar_ray-runs"
    assert f"--address auto storage.path={runs} tracking.uri=sqlite:///{runs}/mlflow.db" in search
    assert search.endswith("resources.workers=4 resources.gpus_per_worker=1 budget.trials=40 --resume")
    assert lines.index(head) < lines.index(search)


def test_the_searchs_exit_code_is_the_jobs_and_nothing_is_left_behind(environment: dict[str, str]) -> None:
    done = run({**environment, "SEARCH": "exit 4"})
    assert done.returncode == 4
    assert left(environment) == []


def test_a_job_whose_time_is_nearly_over_tells_the_search_to_end(environment: dict[str, str]) -> None:
    job = subprocess.Popen(["bash", str(SCRIPT)], env={**environment, "SEARCH": "sleep 60 & echo asleep >> $LOG; wait"})
    try:
        wait_for(environment, "asleep")
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == 130
    finally:
        job.kill()
    assert left(environment) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [({"HOME": "/nonexistent"}, "no token"), ({"RUNS": "s3://bucket/runs"}, "MLFLOW must be a server")],
)
def test_what_cannot_work_is_said_before_ray_starts(
    environment: dict[str, str], change: dict[str, str], said: str
) -> None:
    done = run({**environment, **change})
    assert done.returncode == 2 and said in done.stderr
    assert not Path(environment["LOG"]).exists()


SEARCH = """#!{python}
import json, os, subprocess, sys, time
import ray
ray.init(address="auto", log_to_driver=False)
until = time.monotonic() + 60
while len(ray.nodes()) < 2 and time.monotonic() < until:
    time.sleep(0.5)
stranger = subprocess.run(["ray", "status"], env={{**os.environ, "RAY_AUTH_TOKEN": "0" * 32}}, capture_output=True)
nodes = [[node["Alive"], node["Resources"]["CPU"], node["Labels"]["usd-per-hour"]] for node in ray.nodes()]
with open(os.environ["LOG"], "w") as log:
    json.dump({{"stranger": stranger.returncode, "nodes": nodes}}, log)
"""


@pytest.mark.cluster
def test_rays_own_nodes_meet_by_the_token_and_bring_their_price(environment: dict[str, str], tmp_path: Path) -> None:
    """Ray itself, two nodes of it on this machine; what stands in for the search looks at them."""
    binaries = tmp_path / "venv" / "bin"
    (binaries / "ray").unlink()
    (binaries / "ray").symlink_to(Path(sys.executable).with_name("ray"))
    (binaries / "python").write_text(SEARCH.format(python=sys.executable))
    (binaries / "scontrol").write_text("#!/usr/bin/env bash\nprintf 'node1\\nnode2\\n'\n")
    (binaries / "srun").write_text('#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done; exec "$@"\n')
    (tmp_path / ".ray" / "auth_token").write_text("a" * 32)
    job = str(os.getpid())
    done = run({**environment, "SLURM_JOB_ID": job, "SLURM_CPUS_PER_TASK": "1", "SLURM_GPUS_ON_NODE": "0"})
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(Path(environment["LOG"]).read_text())
    assert seen["nodes"] == [[True, 1.0, "1.20"]] * 2
    assert seen["stranger"] != 0
    assert left(environment) == []
    assert not Path(f"/tmp/faar_ray-{job}").exists()


def wait_for(environment: dict[str, str], text: str) -> None:
    for _ in range(200):
        if Path(environment["LOG"]).exists() and any(line.startswith(text) for line in log(environment)):
            return
        time.sleep(0.1)
    pytest.fail(f"no {text!r} within 20 s")


def left(environment: dict[str, str]) -> list[str]:
    """Processes of the job that still run, by their environment; those that are just ending get a second."""
    mark = f"VENV={environment['VENV']}".encode()
    for _ in range(50):
        result = [
            path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if mark in content(path).split(b"\0")
        ]
        if not result:
            return []
        time.sleep(0.1)
    return result


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
